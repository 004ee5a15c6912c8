"""What is known of a gate: three values and the reason. Doubt never opens anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Value(StrEnum):
    MET = "met"
    FAILED = "failed"
    CANNOT_TELL = "cannot-tell"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of three values with the sentence that explains it.

    `pending` marks the ordinary kind of *cannot tell*: nothing is wrong, the answer is simply not there yet
    (nobody has confirmed, the event has not come). `proof` names what the verdict rests on.
    """

    value: Value
    reason: str
    pending: bool = False
    proof: tuple[str, ...] = field(default=())

    @property
    def is_met(self) -> bool:
        return self.value is Value.MET


def met(reason: str, *proof: str) -> Verdict:
    return Verdict(Value.MET, reason, proof=proof)


def failed(reason: str, *proof: str) -> Verdict:
    return Verdict(Value.FAILED, reason, proof=proof)


def waiting(reason: str) -> Verdict:
    return Verdict(Value.CANNOT_TELL, reason, pending=True)


def cannot_tell(reason: str, *proof: str) -> Verdict:
    return Verdict(Value.CANNOT_TELL, reason, proof=proof)
