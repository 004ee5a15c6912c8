"""The formats of our own logs: one event, one line for programs; readable for people. Foreign text forges neither.

A line says which request, task, person, run and step it belongs to (upgrades/adapters/log_context.py). What the
settings hold as a secret, and what looks like one, is blotted out in both formats, whoever logs it.
"""

import json
import logging
import re
import time
from collections.abc import Iterable

from upgrades.adapters import log_context

BLOT = "•••"
SHORTEST_SECRET = 8  # a shorter one would blot out ordinary words
# user:password@ in an address, the Authorization header, what is called a secret where it is printed, the address of a
# person's calendar, and a token for the API wherever it stands.
_LOOKS_SECRET = re.compile(
    r"(?P<url>://[^/\s:@]*:)[^@\s/]+(?=@)"
    r"|(?P<header>\b(?:Bearer|Basic) )[\w.~+/=-]{8,}"
    r"|(?P<named>\b\w*(?:password|passwd|secret|token|ticket|api_?key)['\"]?\s*[=:]\s*)(?!•)(?:'[^']*'|\"[^\"]*\"|[^\s,;&'\")}\]]+)"
    r"|(?P<calendar>/calendar/)[^\s/]+(?=\.ics)"
    r"|\brbk_[0-9a-f]{8}_[\w-]{43}",
    re.IGNORECASE | re.ASCII,
)


def visible_line(text: str) -> str:
    """The text on one line: line breaks, control and bidi characters as their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def visible_lines(text: str) -> str:
    """Several lines, each behind a blank margin, so that none can look like the beginning of another event."""
    return "\n".join(f"    {visible_line(line)}" for line in text.split("\n"))


class _WithoutSecrets(logging.Formatter):
    """Times in UTC with milliseconds. `secrets` are the values that must never be seen."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: str = "%",
        secrets: Iterable[str] = (),
    ) -> None:
        super().__init__(fmt, datefmt, style)  # type: ignore[arg-type]  # the style comes from the settings
        known = sorted(
            {secret for secret in secrets if len(secret) >= SHORTEST_SECRET}, key=len, reverse=True
        )
        self._secret = re.compile("|".join(map(re.escape, known))) if known else None

    def without_secrets(self, text: str) -> str:
        if self._secret is not None:
            text = self._secret.sub(BLOT, text)
        return _LOOKS_SECRET.sub(
            lambda found: next((before for before in found.groups() if before), "") + BLOT, text
        )

    def trace_of(self, record: logging.LogRecord) -> str:
        """The traceback and stack of the record; empty where it has none."""
        parts = [self.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return self.without_secrets("\n".join(parts))


class OneLine(_WithoutSecrets):
    """For people. A traceback follows below its line, indented."""

    def format(self, record: logging.LogRecord) -> str:
        record.message = self.without_secrets(record.getMessage())
        record.asctime = self.formatTime(record, self.datefmt)
        line = visible_line(self.formatMessage(record))
        about = " ".join(f"{name}={value}" for name, value in log_context.fields().items())
        trace = self.trace_of(record)
        return (
            line
            + (visible_line(f" [{about}]") if about else "")
            + (f"\n{visible_lines(trace)}" if trace else "")
        )


class JsonLine(_WithoutSecrets):
    """For programs: JSON Lines in ASCII, so that no character of a foreign text means anything to a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        trace = self.trace_of(record)
        line: dict[str, object] = {
            "at": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": self.without_secrets(record.getMessage()),
            **log_context.fields(),
            **({"trace": trace} if trace else {}),
        }
        return json.dumps(line, ensure_ascii=True, allow_nan=False)
