"""Rolling back: one page that says which way fits and why, and starts it."""

from __future__ import annotations

from typing import Any, cast
from uuid import uuid4

from django import forms
from django.contrib.auth.models import AbstractUser
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from upgrades.domain.refusal import BadInput, Refused
from upgrades.queries.rollback import RollbackPage, rollback_page
from upgrades.queries.run_page import seen_by
from upgrades.services.rollback import Stated, start_rollback, started_by
from upgrades.web.answers import answer_refusal, status_of
from upgrades.web.forms import Hidden, reason_field

YES_NO = [("true", "Yes"), ("false", "No")]


def _asked(label: str, help_text: str) -> forms.TypedChoiceField:
    return forms.TypedChoiceField(
        label=label,
        help_text=help_text,
        choices=YES_NO,
        coerce=lambda text: text == "true",
        widget=forms.RadioSelect,
        error_messages={"required": "Choose yes or no.", "invalid_choice": "Choose yes or no."},
    )


class RollbackForm(forms.Form):
    """What a person states of the present, why, and which way he read about. The database is asked for only where it
    was upgraded."""

    command_id = forms.UUIDField(widget=forms.HiddenInput)
    procedure = Hidden()
    operational = _asked(
        "Does the master serve its clients fully?",
        "Yes when a server of the pair works and clients work with it. No when it does not: then clients wait anyway.",
    )
    former_database = _asked(
        "Is the former database still there, untouched?", "The database that the old version worked with."
    )
    copy = _asked("Is there a backup of the former database?", "One that was seen to be readable counts.")
    reason = reason_field(
        "Why the run is taken back. It ends as “rolled back”, and this stands in its record."
    )

    def __init__(self, page: RollbackPage, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not page.known.database_upgraded:
            del self.fields["former_database"], self.fields["copy"]

    def stated(self) -> Stated:
        given = self.cleaned_data
        return Stated(
            operational=given["operational"],
            former_database=bool(given.get("former_database")),
            copy=bool(given.get("copy")),
        )


@require_http_methods(["GET", "HEAD", "POST"])
def roll_back(request: HttpRequest, run_id: int) -> HttpResponse:
    """The way back from a run: GET shows which one fits the answers in the address, POST starts it."""
    user = cast(AbstractUser, request.user)
    seen = seen_by(run_id, user)
    if seen is None:
        raise Http404("There is no such run, or you have no role in its environment.")
    sent = request.POST if request.method == "POST" else request.GET
    try:
        page = rollback_page(run_id, seen.roles, **_answers(sent))
    except Refused as refusal:
        before = started_by(sent.get("command_id", ""), run_id, user) if request.method == "POST" else None
        if before is not None:  # the same form, sent twice
            return HttpResponseRedirect(reverse("show-run", args=[before.run]), status=303)
        return _told(request, run_id, refusal)
    if request.method != "POST":
        return _show(request, page, RollbackForm(page, initial=_initial(page, sent)))
    if "look" in sent:
        kept = {"reason": sent.get("reason", "")}
        return _show(request, page, RollbackForm(page, initial=_initial(page, sent) | kept))
    form = RollbackForm(page, sent)
    if not form.is_valid():
        return _show(
            request, page, form, refusal="Some answers are missing. Nothing was started.", status=400
        )
    try:
        done = start_rollback(
            run_id=run_id,
            stated=form.stated(),
            procedure=form.cleaned_data["procedure"],
            reason=form.cleaned_data["reason"],
            by=user,
            command_id=form.cleaned_data["command_id"],
        )
    except BadInput as mistake:
        if mistake.field in form.fields:
            form.add_error(mistake.field, mistake.message)
        return answer_refusal(
            mistake, lambda text, status: _show(request, page, form, refusal=text, status=status)
        )
    except Refused as refusal:
        return answer_refusal(
            refusal, lambda text, status: _show(request, page, form, refusal=text, status=status)
        )
    return HttpResponseRedirect(reverse("show-run", args=[done.run]), status=303)


def _answers(sent: QueryDict) -> dict[str, bool | None]:
    names = ("operational", "former_database", "copy")
    return {name: {"true": True, "false": False}.get(sent.get(name, "")) for name in names}


def _initial(page: RollbackPage, sent: QueryDict) -> dict[str, Any]:
    record = {
        "operational": page.known.operational,
        "former_database": page.known.former_database,
        "copy": page.known.copy,
    }
    answers = {name: "true" if value else "false" for name, value in record.items()}
    answers |= {name: str(sent[name]) for name in answers if sent.get(name) in ("true", "false")}
    return {**answers, "command_id": sent.get("command_id") or uuid4(), "procedure": page.choice.procedure}


def _told(request: HttpRequest, run_id: int, refusal: Refused) -> HttpResponse:
    context = {"run_id": run_id, "refusal": refusal.message}
    return render(request, "upgrades/runs/no_rollback.html", context, status=status_of(refusal))


def _show(
    request: HttpRequest, page: RollbackPage, form: RollbackForm, *, refusal: str = "", status: int = 200
) -> HttpResponse:
    shown = form["procedure"].value() if form.is_bound else page.choice.procedure
    context = {"page": page, "form": form, "refusal": refusal, "changed": shown != page.choice.procedure}
    return render(request, "upgrades/runs/rollback.html", context, status=status)
