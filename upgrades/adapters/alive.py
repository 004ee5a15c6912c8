"""A sign of life from processes that serve no pages: the time of a file, for whoever watches over them."""

from __future__ import annotations

from django.conf import settings


def tell_alive() -> None:
    """Called whenever the process has done a turn of its work; nothing happens where no file is set."""
    if settings.ALIVE_FILE is not None:
        settings.ALIVE_FILE.touch()
