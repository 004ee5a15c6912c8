"""The auditors' pages: all runs and refused starts, reports over them, and the state of the record itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.contrib.auth.models import AbstractUser
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.encoding import iri_to_uri
from django.views.decorators.http import require_POST, require_safe

from upgrades.domain.refusal import BadInput, Refused
from upgrades.domain.report import Report
from upgrades.models import Environment
from upgrades.queries.audit import (
    KINDS,
    ONLY,
    STATUSES,
    Filters,
    audit_page,
    audited_environments,
    list_report,
    searches_of,
)
from upgrades.queries.audit_reports import Period, access_report, duties_report, reads_report
from upgrades.queries.audit_run import audit_run
from upgrades.queries.record_state import record_state
from upgrades.services import record
from upgrades.services.exports import KINDS as FORMS
from upgrades.services.exports import export_bundle, export_list
from upgrades.services.runs import NoSuchRun
from upgrades.services.searches import delete_search, save_search
from upgrades.web.answers import status_of
from upgrades.web.environments import person

DAY = forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")
MakeReport = Callable[[Sequence[Environment], Period, AbstractUser, datetime], Report]


class PeriodForm(forms.Form):
    """From which day to which, and in which environment. An impossible choice is said and narrows nothing."""

    environment = forms.ModelChoiceField(
        Environment.objects.none(), required=False, empty_label="All environments"
    )
    since = forms.DateField(required=False, label="From", widget=DAY)
    until = forms.DateField(required=False, label="To", widget=DAY)

    def __init__(self, environments: Any, data: Any) -> None:
        super().__init__(data)
        field = self.fields["environment"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = environments
        self.full_clean()

    def clean(self) -> dict[str, Any]:
        found = super().clean() or {}
        since, until = found.get("since"), found.get("until")
        if since and until and until < since:
            self.add_error("until", "This day lies before the first one.")
        return found

    @property
    def period(self) -> Period:
        return Period(self.cleaned_data.get("since"), self.cleaned_data.get("until"))

    def chosen(self, environments: Sequence[Environment]) -> list[Environment]:
        wanted = self.cleaned_data.get("environment")
        return [item for item in environments if wanted is None or item.pk == wanted.pk]


class FilterForm(PeriodForm):
    """All that the list of runs can be narrowed to."""

    status = forms.ChoiceField(choices=[("", "Any state"), *STATUSES], required=False, label="State")
    kind = forms.ChoiceField(choices=[("", "Live and rehearsal"), *KINDS], required=False, label="Kind")
    person = forms.CharField(max_length=100, required=False)
    only = forms.ChoiceField(choices=[("", "All"), *ONLY], required=False, label="Only")

    @property
    def filters(self) -> Filters:
        said = self.cleaned_data
        chosen = said.get("environment")
        return Filters(
            environment=chosen.pk if chosen else None,
            since=said.get("since"),
            until=said.get("until"),
            status=said.get("status", ""),
            kind=said.get("kind", ""),
            person=said.get("person", ""),
            only=said.get("only", ""),
        )


def _environments(request: HttpRequest) -> list[Environment]:
    """Those in which this person audits or administers; without any there are no such pages."""
    found = list(audited_environments(person(request)))
    if not found:
        raise Http404("There is no such page, or you are neither auditor nor administrator anywhere.")
    return found


def _query(request: HttpRequest) -> str:
    """The filters of the address, without page and form of export."""
    kept = {key: value for key, value in request.GET.items() if key not in ("page", "export") and value}
    return urlencode(sorted(kept.items()))[:1000]


def _exported(
    request: HttpRequest, report: Report, environments: Sequence[Environment], form: PeriodForm
) -> HttpResponse:
    kind = request.GET["export"]
    if kind not in FORMS:
        raise Http404("A list can be taken out as csv, jsonl or pdf.")
    try:
        export = export_list(
            report,
            kind,
            by=person(request),
            environments=form.chosen(environments),
            query={key: str(value) for key, value in request.GET.items() if value},
        )
    except BadInput as refusal:
        messages.error(request, refusal.message)
        query = _query(request)
        return redirect(f"{request.path}?{query}" if query else request.path)
    response = HttpResponse(export.content, content_type=export.content_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{export.name}"'
    return response


@require_safe
def list_audited(request: HttpRequest) -> HttpResponse:
    """Every start, newest first; `?export=csv|jsonl|pdf` takes the list as it is filtered."""
    environments = _environments(request)
    user = person(request)
    form = FilterForm(audited_environments(user), request.GET)
    filters = form.filters
    if "export" in request.GET:
        return _exported(request, list_report(user, filters, timezone.now()), environments, form)
    shown = audit_page(user, filters, request.GET.get("page", "1"))
    context = {
        "form": form,
        "shown": shown,
        "page": shown.page,
        "is_filtered": filters != Filters(),
        "searches": searches_of(user),
        "query": _query(request),
        "record": record_state(timezone.now()),
    }
    return render(request, "upgrades/audit/list.html", context)


@require_POST
def keep_search(request: HttpRequest) -> HttpResponse:
    """Save the present filters under a name, or forget a saved search."""
    _environments(request)
    query = request.POST.get("query", "")
    if "forget" in request.POST:
        forget = request.POST["forget"]
        if forget.isascii() and forget.isdigit() and len(forget) < 19:
            delete_search(person(request), int(forget))
        return redirect("audit")
    try:
        save_search(person(request), name=request.POST.get("name", ""), query=query)
    except BadInput as refusal:
        messages.error(request, refusal.message)
    response = redirect("audit")
    if query:
        response.headers["Location"] += f"?{iri_to_uri(query)}"
    return response


def _report(request: HttpRequest, make: MakeReport) -> HttpResponse:
    environments = _environments(request)
    user = person(request)
    form = PeriodForm(audited_environments(user), request.GET)
    report = make(form.chosen(environments), form.period, user, timezone.now())
    if "export" in request.GET:
        return _exported(request, report, environments, form)
    context = {"report": report, "form": form, "query": _query(request)}
    return render(request, "upgrades/audit/report_page.html", context)


@require_safe
def show_duties(request: HttpRequest) -> HttpResponse:
    return _report(request, duties_report)


@require_safe
def show_access(request: HttpRequest) -> HttpResponse:
    return _report(request, access_report)


@require_safe
def show_reads(request: HttpRequest) -> HttpResponse:
    return _report(request, reads_report)


@require_safe
def show_audited_run(request: HttpRequest, run_id: int) -> HttpResponse:
    """One run with everything that an auditor asks of it, and whether its record holds."""
    _environments(request)
    shown = audit_run(run_id, person(request))
    if shown is None:
        raise Http404(
            "There is no such run, or you are neither auditor nor administrator in its environment."
        )
    return render(request, "upgrades/audit/run.html", {"shown": shown, "rehearsal": shown.page.rehearsal})


@require_safe
def export_record(request: HttpRequest, run_id: int) -> HttpResponseBase:
    """The bundle of a run, for whoever may see the run."""
    try:
        bundle = export_bundle(run_id, person(request))
    except NoSuchRun as refusal:
        raise Http404(refusal.message) from None
    response = FileResponse(
        bundle.file, content_type="application/zip", as_attachment=True, filename=bundle.name
    )
    response.headers["Content-Length"] = str(bundle.size)
    return response


@require_safe
def show_record(request: HttpRequest) -> HttpResponse:
    """The checkpoints, where they went, the keys, and how to check all of it."""
    _environments(request)
    return render(request, "upgrades/audit/record.html", {"record": record_state(timezone.now())})


@require_POST
def check_record(request: HttpRequest) -> HttpResponse:
    """Check the whole record now, as `manage.py verify` does; what is broken is named where this person audits."""
    environments = _environments(request)
    context: dict[str, Any] = {"record": record_state(timezone.now())}
    status = 200
    try:
        context |= {"checked": record.check_record(environments), "checked_at": timezone.now()}
    except Refused as refusal:
        messages.error(request, refusal.message)
        status = status_of(refusal)
    return render(request, "upgrades/audit/record.html", context, status=status)
