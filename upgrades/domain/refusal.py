"""Refusals: why something cannot be done, said to the person at 3 a.m. One place turns them into answers."""

from __future__ import annotations


class Refused(Exception):
    """What, why, what now. `code` is for programs; the text is for people."""

    code = "refused"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class OutOfTurn(Refused):
    """The run stands somewhere else than the command assumes."""

    code = "out-of-turn"


class ContentChanged(OutOfTurn):
    """What was to be signed is not what its reader saw any more."""

    code = "content-changed"


class VersionMoved(OutOfTurn):
    """Somebody else has changed since what is to be changed. Nothing was done."""

    code = "record-changed"


class GateClosed(Refused):
    """A gate is not met, so what lies behind it cannot begin or end."""

    code = "gate-closed"


class NotAllowed(Refused):
    """This person may not do this."""

    code = "not-allowed"


class BadInput(Refused):
    """What was sent cannot be used as it is. `field` names the part of the form."""

    code = "bad-input"

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Unavailable(Refused):
    """Something that is needed does not answer now; trying again later may help."""

    code = "unavailable"


class TooOften(Unavailable):
    """It was done too often in the last while. `wait` is after how many seconds it is worth another try."""

    code = "too-many-requests"

    def __init__(self, message: str, wait: int) -> None:
        super().__init__(message)
        self.wait = wait
