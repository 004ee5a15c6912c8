"""Writes the commonest controls of forms: a page has dozens, and a template for each is most of what the page takes.

What comes out is what Django's own templates make; everything else is left to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.forms.renderers import DjangoTemplates
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

_WIDGETS = "django/forms/widgets/"
_INPUTS = ("hidden", "text", "number", "email", "password", "checkbox", "url")


class FormRenderer(DjangoTemplates):
    """Django's renderer with a quick way for inputs and areas of text."""

    def render(self, template_name: str, context: dict[str, Any], request: HttpRequest | None = None) -> Any:
        write = _WRITERS.get(template_name)
        if write is None:
            return super().render(template_name, context, request)
        return write(context["widget"])


def _input(widget: Mapping[str, Any]) -> SafeString:
    value = widget["value"]
    shown = "" if value is None else format_html(' value="{}"', value)
    return format_html(
        '<input type="{}" name="{}"{}{}>', widget["type"], widget["name"], shown, _attributes(widget)
    )


def _textarea(widget: Mapping[str, Any]) -> SafeString:
    text = widget["value"] or ""
    return format_html('<textarea name="{}"{}>\n{}</textarea>', widget["name"], _attributes(widget), text)


def _attributes(widget: Mapping[str, Any]) -> SafeString:
    written = (
        (name, "" if value is True else format_html('="{}"', value))
        for name, value in widget["attrs"].items()
        if value is not False
    )
    return format_html_join("", " {}{}", written)


_WRITERS: dict[str, Callable[[Mapping[str, Any]], SafeString]] = {
    f"{_WIDGETS}textarea.html": _textarea,
    **{f"{_WIDGETS}{kind}.html": _input for kind in _INPUTS},
}
