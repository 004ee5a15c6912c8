"""Planned runs: their times on a page, and as a feed that calendar programs read at a secret address."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import PermissionDenied
from django.core.validators import MaxValueValidator, MinValueValidator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_http_methods, require_safe

from upgrades.adapters.calendar_text import Entry, to_ics
from upgrades.domain.refusal import BadInput, OutOfTurn, Refused
from upgrades.models import Environment
from upgrades.queries.access import roles_in
from upgrades.queries.calendar import PlannedRun, TimedItem, plan_number, planned_runs, timed_items
from upgrades.services.calendar_feed import reader_of
from upgrades.services.planned_times import ROLE, Span, set_times
from upgrades.web.answers import answer_refusal
from upgrades.web.environments import environment_or_404, person

PAGE = "upgrades/notices/times.html"
FIRST, LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
FAR_OFF = "This year is far off. Look at the date again."
USUAL = timedelta(hours=2)  # where no end is written


@login_not_required
@require_safe
@cache_control(private=True, max_age=300)
def feed(_request: HttpRequest, token: str) -> HttpResponse:
    """The calendar at a person's secret address. A wrong secret looks like an address that is none."""
    reader = reader_of(token)
    if reader is None:
        raise Http404("There is no calendar at this address.")
    host = urlsplit(settings.BASE_URL).hostname or "runbook"
    text = to_ics(map(_entry, planned_runs(reader)), name="Runbook: planned runs", host=host)
    headers = {
        "Content-Disposition": 'attachment; filename="runbook.ics"',
        "Referrer-Policy": "no-referrer",
        "X-Robots-Tag": "noindex",
    }
    return HttpResponse(text, content_type="text/calendar; charset=utf-8", headers=headers)


def _entry(run: PlannedRun) -> Entry:
    if run.run is not None:
        link = f"{settings.BASE_URL}{reverse('show-run', args=[run.run])}"
        state = f"Run {run.run} {'is over' if run.is_over else 'is under way'}."
    else:
        link = f"{settings.BASE_URL}{reverse('plan', args=[run.environment])}#item-{run.number}"
        state = "It has not been started."
    return Entry(
        key=f"{run.environment}:{run.key}",
        title=f"{run.title} · {run.environment_name}",
        text=f"Plan {run.plan}, run {run.number}. {state}\n{link}",
        where=run.environment_name,
        link=link,
        begins_at=run.begins_at,
        ends_at=run.ends_at,
        changed_at=run.set_at,
        revision=run.revision,
        is_sure=run.run is not None,
    )


# The page of times.


def _moment(label: str) -> forms.DateTimeField:
    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
    limits = (MinValueValidator(FIRST, FAR_OFF), MaxValueValidator(LAST, FAR_OFF))
    return forms.DateTimeField(label=label, required=False, widget=widget, validators=limits)


class TimesForm(forms.Form):
    """A begin and an end for each item of the plan. An empty begin takes the planned time away."""

    def __init__(self, items: list[TimedItem], *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.items = items
        for item in items:
            self.fields[f"begins-{item.number}"] = _moment("Begins")
            self.fields[f"ends-{item.number}"] = _moment("Ends")
            self.initial[f"begins-{item.number}"] = item.begins_at
            self.initial[f"ends-{item.number}"] = item.ends_at

    def rows(self) -> list[tuple[TimedItem, forms.BoundField, forms.BoundField]]:
        return [(item, self[f"begins-{item.number}"], self[f"ends-{item.number}"]) for item in self.items]

    def times(self) -> dict[str, Span | None]:
        found: dict[str, Span | None] = {}
        for item in self.items:
            begins_at = self.cleaned_data[f"begins-{item.number}"]
            ends_at = self.cleaned_data[f"ends-{item.number}"]
            if begins_at is None and ends_at is not None:
                raise BadInput("An end needs a begin. Nothing was changed.", f"begins-{item.number}")
            found[item.key] = (begins_at, ends_at or begins_at + USUAL) if begins_at is not None else None
        return found


@require_http_methods(["GET", "HEAD", "POST"])
def show_times(request: HttpRequest, environment_id: int) -> HttpResponse:
    """When the items of the plan in force are meant to be carried out; a POST of an operator sets it."""
    environment = environment_or_404(request, environment_id)
    if environment.rehearsal_of_id is not None:
        raise Http404("The copy of a rehearsal has no plan.")
    items = timed_items(environment)
    if request.method != "POST":
        return _page(request, environment, TimesForm(items))
    if ROLE not in roles_in(person(request), environment):
        raise PermissionDenied(
            f"Planning when runs are carried out takes the role operator in {environment.name}."
        )
    form = TimesForm(items, request.POST)
    try:
        _must_be_of_this_plan(request, environment)
        if not form.is_valid():
            raise BadInput("Nothing was changed. Look at the times that are marked.")
        count = set_times(environment_id=environment.pk, times=form.times(), by=person(request))
    except Refused as refusal:
        if isinstance(refusal, BadInput) and refusal.field in form.fields:
            form.add_error(refusal.field, refusal.message)
        return answer_refusal(
            refusal, lambda text, status: _page(request, environment, form, refusal=text, status=status)
        )
    messages.success(
        request, f"{count} planned time{'s are' if count != 1 else ' is'} changed." if count else "No change."
    )
    return HttpResponseRedirect(reverse("planned-times", args=[environment.pk]), status=303)


def _must_be_of_this_plan(request: HttpRequest, environment: Environment) -> None:
    """The numbers in the form are those of one plan."""
    if request.POST.get("plan", "") != str(plan_number(environment)):
        raise OutOfTurn(
            "The plan was saved anew since this page was opened. Nothing was changed; load it again."
        )


def _page(
    request: HttpRequest, environment: Environment, form: TimesForm, *, refusal: str = "", status: int = 200
) -> HttpResponse:
    context = {
        "environment": environment,
        "form": form,
        "plan": plan_number(environment),
        "may": ROLE in roles_in(person(request), environment),
        "zone": settings.TIME_ZONE,
        "refusal": refusal,
    }
    return render(request, PAGE, context, status=status)
