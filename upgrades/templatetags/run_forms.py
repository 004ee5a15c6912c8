"""The forms of a run's page, where its template wants them."""

from typing import Any

from django import template
from django.template import Context

from upgrades.queries.run_page.shapes import CurrentStep, RunPage
from upgrades.web.forms import AskDeviationForm, AttachForm, CorrectFactForm, HandOverForm, RunForms

register = template.Library()


@register.inclusion_tag("upgrades/runs/act_form.html", takes_context=True)
def act_form(
    context: Context, verb: str, label: str = "", disabled: bool = False, **values: Any
) -> dict[str, Any]:
    """The form of `verb`, with the step and the visit that the page shows and these hidden values.

    `label` are the words on its button; `disabled` shows it shut. `accepts` (of an evidence gate) leaves fields out.
    """
    page: RunPage = context["page"]
    forms: RunForms = context["forms"]
    accepts = values.pop("accepts", frozenset())
    step = {"step": page.step.id, "visit": page.step.visit} if page.step is not None else {}
    form = forms.get(verb, **(step | values))
    if isinstance(form, AttachForm):
        form.accept(accepts)
    if isinstance(form, HandOverForm) and page.step is not None:
        form.offer(list(page.step.hand_over))
    if isinstance(form, AskDeviationForm):
        _offer(form, page.step, values)
    if isinstance(form, CorrectFactForm):
        form.offer([(item.name, f"{item.title} (now: {item.value})") for item in page.answers])
    return {
        "form": form,
        "run_id": page.id,
        "label": label or form.button,
        "disabled": disabled,
        "request": context.get("request"),
    }


def _offer(form: AskDeviationForm, step: CurrentStep | None, values: dict[str, Any]) -> None:
    if values.get("doubt") or step is None:
        del form.fields["about"]
        return
    choices = [] if step.skip_asked else [("skip", "Skip this whole step")]
    choices += [
        (f"override:{gate.id}", f"Override the gate “{gate.title}”")
        for gate in (step.gates if step.begun else step.needs)
        if gate.override.allowed and not gate.override_asked
    ]
    form.offer(choices)
