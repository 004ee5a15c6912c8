"""What reports need: text of strangers, harmless and with its lines, in pages that know no htmx."""

from django import template

from upgrades.domain.log_events import visible

register = template.Library()


@register.filter
def shown(text: str) -> str:
    """The text with a mark for each character that shows nothing or changes the direction; its lines stay lines."""
    return "\n".join(visible(line) for line in text.split("\n"))
