"""What reports need: text of strangers, harmless and with its lines, in pages that know no htmx."""

from itertools import zip_longest

from django import template

from upgrades.domain.log_events import visible
from upgrades.domain.report import Table
from upgrades.queries.audit_run import AuditRun

register = template.Library()


@register.filter
def shown(text: str) -> str:
    """The text with a mark for each character that shows nothing or changes the direction; its lines stay lines."""
    return "\n".join(visible(line) for line in text.split("\n"))


@register.filter
def kinds(names: str) -> list[tuple[str, str]]:
    """“csv jsonl pdf” as pairs of name and label."""
    labels = {"csv": "CSV", "jsonl": "JSON Lines", "pdf": "PDF"}
    return [(name, labels[name]) for name in names.split()]


@register.filter
def with_runs(table: Table) -> list[tuple[tuple[str, ...], int | None]]:
    """Each row of the table with the run that its first cell names, or None."""
    return list(zip_longest(table.rows, table.runs))


@register.filter
def sealed_words(shown: AuditRun) -> str:
    """How far checkpoints have sealed the run."""
    at = f"{shown.sealed_at:%d %B %Y %H:%M} UTC" if shown.sealed_at else ""
    if shown.sealed < shown.events:
        newer = shown.events - shown.sealed
        return (
            f"Events 1 to {shown.sealed} are sealed by the checkpoint of {at}; the {newer} newer ones follow."
        )
    return f"All {shown.events} events are sealed by the checkpoint of {at}."
