"""Template tags that every page needs: text of strangers shown harmlessly, and the mark of our own elements."""

import re

from django import template
from django.template import Context
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from upgrades.domain.log_events import visible

register = template.Library()

SHOWN_CHARACTERS = 4000
LINE_END = re.compile(r"\r\n|\n|\r")


@register.filter
def foreign(text: object, limit: int = SHOWN_CHARACTERS) -> SafeString:
    """Text that somebody else wrote (log line, agent's answer, file name, note), safe to look at.

    Escaped; control, direction and invisible characters shown as marks; wrapped so that htmx does nothing inside;
    not translated by the browser. Longer text than `limit` characters is cut, with a mark: `{{ line|foreign:200 }}`.
    """
    if text is None:
        return mark_safe("")
    return format_html('<bdi class="foreign" translate="no" hx-ignore>{}</bdi>', _shown(str(text), limit))


@register.filter
def foreign_lines(text: object, limit: int = SHOWN_CHARACTERS) -> SafeString:
    """As `foreign`, for text of several lines (a note, a record, a file's beginning): its lines stay lines."""
    if text is None:
        return mark_safe("")
    whole = str(text)
    lines = [visible(line) for line in LINE_END.split(whole[:limit])]
    if len(whole) > limit:
        lines.append(f"… ({len(whole) - limit} more characters)")
    return format_html('<pre class="foreign" translate="no" hx-ignore>{}</pre>', "\n".join(lines))


def _shown(text: str, limit: int) -> str:
    rest = len(text) - limit
    return visible(text[:limit]) + (f"… ({rest} more characters)" if rest > 0 else "")


@register.simple_tag(takes_context=True)
def hx_nonce(context: Context) -> SafeString:
    """`hx-nonce="…"` for an element of our own with `hx-get`, `hx-post` …: without it the element does nothing.

    Outside a request (an export, a mail) it is empty, and such an element stays inert.
    """
    nonce = getattr(context.get("request"), "csp_nonce", "")
    # The nonce is made when it is first turned into text; its truth value is False until then.
    return format_html('hx-nonce="{}"', str(nonce))
