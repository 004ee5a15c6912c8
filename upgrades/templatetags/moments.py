"""Moments: a tag that every template knows. A page has hundreds of them, so it is a function and no template."""

from datetime import date, datetime

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

_MONTHS = ("", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@register.simple_tag
def moment(at: date | None, show: str = "") -> SafeString:
    """`{% moment note.at %}`: the moment as day and time; nothing for None.

    `show` makes it shorter: "time" (14:02:11), "ms" (14:02:11.382), "minute" (14:02), "date". The script shows it in
    the reader's zone, with UTC as title; without it the text is in the zone of the settings.
    """
    if not at:
        return SafeString()
    text = _text(at, show)
    if not show:
        return format_html('<time datetime="{}">{}</time>', at.isoformat(), text)
    return format_html('<time datetime="{}" data-show="{}">{}</time>', at.isoformat(), show, text)


def _text(at: date, show: str) -> str:
    if isinstance(at, datetime) and timezone.is_aware(at):
        at = timezone.localtime(at)
    match show:
        case "time" | "ms":
            return f"{at:%H:%M:%S}"
        case "minute":
            return f"{at:%H:%M}"
        case "date":
            return f"{at.day} {_MONTHS[at.month]} {at.year}"
        case _:
            return f"{at.day} {_MONTHS[at.month]} {at.year} {at:%H:%M}"
