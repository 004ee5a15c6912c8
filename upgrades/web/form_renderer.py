"""Writes the commonest controls of forms: a page has dozens, and a template for each is most of what the page takes.

What comes out is what Django's own templates make; everything else is left to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.forms.renderers import DjangoTemplates
from django.http import HttpRequest
from django.utils.html import conditional_escape
from django.utils.safestring import SafeString

_WIDGETS = "django/forms/widgets/"
_INPUTS = ("hidden", "text", "number", "email", "password", "checkbox", "url")


class FormRenderer(DjangoTemplates):
    """Django's renderer with a quick way for inputs and areas of text."""

    def render(self, template_name: str, context: dict[str, Any], request: HttpRequest | None = None) -> Any:
        write = _WRITERS.get(template_name)
        if write is None:
            return super().render(template_name, context, request)
        return SafeString(write(context["widget"]))


def _input(widget: Mapping[str, Any]) -> str:
    value = widget["value"]
    shown = "" if value is None else f' value="{_escaped(value)}"'
    return f'<input type="{widget["type"]}" name="{_escaped(widget["name"])}"{shown}{_attributes(widget)}>'


def _textarea(widget: Mapping[str, Any]) -> str:
    text = _escaped(widget["value"]) if widget["value"] else ""
    return f'<textarea name="{_escaped(widget["name"])}"{_attributes(widget)}>\n{text}</textarea>'


def _attributes(widget: Mapping[str, Any]) -> str:
    written = []
    for name, value in widget["attrs"].items():
        if value is True:
            written.append(f" {_escaped(name)}")
        elif value is not False:
            written.append(f' {_escaped(name)}="{_escaped(value)}"')
    return "".join(written)


def _escaped(value: object) -> str:
    return conditional_escape(value if isinstance(value, str) else str(value))


_WRITERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    f"{_WIDGETS}textarea.html": _textarea,
    **{f"{_WIDGETS}{kind}.html": _input for kind in _INPUTS},
}
