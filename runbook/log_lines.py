"""The format of our own logs: one event, one line, so that foreign text cannot forge a second event."""

import logging
import time


class OneLine(logging.Formatter):
    """Times in UTC with milliseconds; line breaks and control characters of the message made visible."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name that logging calls)
        line = super().formatMessage(record)
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
