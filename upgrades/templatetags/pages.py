"""Template tags of the pages: texts of procedures, lengths of time, ids of commands."""

import re
import uuid

from django import template
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString

register = template.Library()

# `code` and {placeholder}, as the texts of procedures write them (docs/procedures.md).
_MARKED = re.compile(r"`([^`\n]{1,200})`|\{([a-z][a-z0-9.-]{0,80})\}")
_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9.-]{0,80})\}")


@register.filter
def prose(text: object) -> SafeString:
    """A procedure's text: escaped, `code` as code, and a placeholder as the name of what will stand there."""
    parts: list[SafeString] = []
    whole, end = str(text or ""), 0
    for mark in _MARKED.finditer(whole):
        parts.append(escape(whole[end : mark.start()]))
        code, name = mark.groups()
        parts.append(format_html("<code>{}</code>", _named(code)) if code else _named(f"{{{name}}}"))
        end = mark.end()
    parts.append(escape(whole[end:]))
    return format_html_join("", "{}", ((part,) for part in parts))


def _named(text: str) -> SafeString:
    """The text with each placeholder as a name: every second part of the split is one."""
    parts = _PLACEHOLDER.split(text)
    shown = (format_html("<var>{}</var>", part) if place % 2 else part for place, part in enumerate(parts))
    return format_html_join("", "{}", ((part,) for part in shown))


@register.filter
def span(seconds: int | None) -> str:
    """A length of time for people: “45 s”, “25 min”, “1 h 30 min”."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds} s"
    hours, minutes = divmod(seconds // 60, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


@register.simple_tag
def command_id() -> str:
    """A fresh id for a form that acts: sent twice, it acts once."""
    return str(uuid.uuid4())
