"""Pages for changing an environment by hand: the environment itself, targets, hosts, applications, agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import render, resolve_url
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from upgrades.adapters.certificates import fingerprints
from upgrades.domain.application_type import NUMBERS
from upgrades.domain.environment_records import FIELDS, LCA, ROLES, TARGETS_ONLY, Kind, Record, blank
from upgrades.domain.refusal import NotAllowed, Refused
from upgrades.models import Application, Environment, Host, Target
from upgrades.queries.access import roles_in
from upgrades.queries.environment_editing import agent_of, edit_page
from upgrades.queries.environment_export import (
    application_record,
    environment_changes,
    environment_record,
    host_record,
    target_record,
)
from upgrades.queries.topology import agent_view
from upgrades.services import agent_registration
from upgrades.services.environment_editing import (
    ROLE,
    BadFields,
    create_environment,
    may_create,
    remove_record,
    save_record,
)
from upgrades.web.answers import status_of
from upgrades.web.environments import environment_or_404, person

YES_NO = [("no", "No"), ("yes", "Yes")]
YES_NO_UNKNOWN = [("", "Not known"), *YES_NO]
HELP = {
    (Kind.ENVIRONMENT, "disaster_recovery"): "A second site has dormant copies of the servers.",
    (
        Kind.ENVIRONMENT,
        "single_language",
    ): "How the Configuration Database is used; it decides the order of proxies.",
    (Kind.ENVIRONMENT, "schema_version"): "For example 8.1.1. Empty: not known.",
    (Kind.ENVIRONMENT, "log_schema_version"): "For example 7.6. Empty: not known, or there is none.",
    (Kind.TARGET, "type"): f"An application type, or {', '.join(TARGETS_ONLY)}.",
    (Kind.TARGET, "version"): "For example 8.5.101 or 8.5.101.38.",
    (Kind.HOST, "host"): "Its name in the network or its address, for example fra-cfg-01.example.net.",
    (Kind.HOST, "host_type"): "As the Host object has it: Linux, Windows, …",
    (Kind.HOST, "os_name"): "Such as Red Hat Enterprise Linux.",
    (Kind.HOST, "os_version"): "Such as 2019, 9.4 or 22.04.",
    (Kind.HOST, "lca_version"): "Of the Local Control Agent on it. Empty: not known.",
    (Kind.APPLICATION, "name"): "Exactly as in the Configuration Database.",
    (
        Kind.APPLICATION,
        "type",
    ): "For example ConfigurationServer, ConfigurationServerProxy, SCS, MessageServer.",
    (Kind.APPLICATION, "version"): "For example 8.5.101.38. Empty: not known; gates that need it stay shut.",
    (
        Kind.APPLICATION,
        "peer",
    ): "The other server of the HA pair. It gets this one as its peer, and the other role.",
    (Kind.APPLICATION, "database"): "Which configuration database it works with, if that is known.",
    (Kind.APPLICATION, "dormant"): "A copy at the other site that does not run until that site takes over.",
}
SAVED = "Saved. The change is on record."


def administered(request: HttpRequest, environment_id: int) -> Environment:
    """The environment, if this person administers it; a copy of a rehearsal is not changed at all."""
    environment = environment_or_404(request, environment_id)
    if environment.rehearsal_of_id is not None:
        raise Http404("The copy of a rehearsal is not changed. Change the environment that it copies.")
    if ROLE not in roles_in(person(request), environment):
        raise PermissionDenied(
            f"Changing {environment.name} takes the role administrator there. One of its administrators can do it."
        )
    return environment


class ActForm(forms.Form):
    """A form that acts once."""

    command_id = forms.UUIDField(
        widget=forms.HiddenInput, error_messages={"required": "Load the page again."}
    )

    def take(self, refusal: Refused) -> int:
        """Put what was refused beside its fields; gives the status of the answer."""
        mistakes = refusal.mistakes if isinstance(refusal, BadFields) else {"": refusal.message}
        for name, text in mistakes.items():
            self.add_error(name if name in self.fields else None, text)
        return status_of(refusal)


class RecordForm(ActForm):
    """The fields of one record. What they mean is judged by the service, so that forms and files agree."""

    seen = forms.CharField(widget=forms.HiddenInput, required=False, max_length=64)

    def __init__(self, environment: Environment | None, kind: Kind, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind = kind
        self.order: list[str] = []
        for field in FIELDS[kind]:
            self.fields[field.name] = _form_field(environment, kind, field.name, field.title)

    def rows(self) -> list[forms.BoundField]:
        return [self[field.name] for field in FIELDS[self.kind]]

    def texts(self) -> dict[str, str]:
        return {field.name: str(self.cleaned_data[field.name]) for field in FIELDS[self.kind]}


def _form_field(environment: Environment | None, kind: Kind, name: str, title: str) -> forms.Field:
    common: dict[str, Any] = {"label": title, "required": False, "help_text": HELP.get((kind, name), "")}
    match name:
        case "disaster_recovery" | "uses_lrm" | "dormant":
            return forms.ChoiceField(choices=YES_NO, widget=forms.RadioSelect, **{**common, "required": True})
        case "single_language":
            return forms.ChoiceField(choices=YES_NO_UNKNOWN, widget=forms.RadioSelect, **common)
        case "role":
            return forms.ChoiceField(
                choices=[(role, role.capitalize()) for role in reversed(ROLES)], **common
            )
        case "host" if kind is Kind.APPLICATION:
            return forms.ChoiceField(choices=_hosts(environment), **{**common, "required": True})
        case "peer":
            return forms.ChoiceField(choices=_applications(environment), **common)
    needed = (kind, name) in _NEEDED
    attrs = {"list": "components"} if name == "type" else {"inputmode": "numeric"} if name == "port" else {}
    return forms.CharField(
        max_length=1000, strip=False, widget=forms.TextInput(attrs=attrs), **{**common, "required": needed}
    )


_NEEDED = {
    (Kind.ENVIRONMENT, "name"),
    (Kind.TARGET, "type"),
    (Kind.TARGET, "version"),
    (Kind.HOST, "host"),
    (Kind.APPLICATION, "name"),
    (Kind.APPLICATION, "type"),
}


def _hosts(environment: Environment | None) -> list[tuple[str, str]]:
    names = environment.hosts.values_list("name", flat=True) if environment else ()
    return [("", "Choose a host"), *((name, name) for name in names)]


def _applications(environment: Environment | None) -> list[tuple[str, str]]:
    rows = environment.applications.order_by("name").values_list("name", "type") if environment else ()
    return [("", "None: it stands alone"), *((name, f"{name} ({type_})") for name, type_ in rows)]


COMPONENTS = sorted({*NUMBERS} - {LCA}) + list(TARGETS_ONLY)


# The environment.


@require_http_methods(["GET", "HEAD", "POST"])
def new_environment(request: HttpRequest) -> HttpResponse:
    if not may_create(person(request)):
        raise PermissionDenied(
            "A new environment is made by an administrator of one that exists, or by whoever runs this installation."
        )
    form = NewForm(request.POST or None, initial={"command_id": uuid4()})
    status = 400 if form.is_bound else 200
    if form.is_bound and form.is_valid():
        try:
            done = create_environment(
                name=form.cleaned_data["name"], by=person(request), command_id=form.cleaned_data["command_id"]
            )
            messages.success(
                request, "The environment is there, and you administer it. Now its hosts and servers."
            )
            return HttpResponseRedirect(resolve_url("edit-environment", done.environment), status=303)
        except Refused as refusal:
            status = form.take(refusal)
    return render(request, "upgrades/environments/edit_new.html", {"form": form}, status=status)


class NewForm(ActForm):
    name = forms.CharField(
        max_length=1000,
        strip=False,
        help_text="As your team calls it, for example “Production · Frankfurt”. It can be changed later.",
        error_messages={"required": "A name is needed."},
    )


@require_http_methods(["GET", "HEAD", "POST"])
def edit_environment(request: HttpRequest, environment_id: int) -> HttpResponse:
    """The environment's own fields, and the way to everything else of it."""
    environment = administered(request, environment_id)
    record = environment_record(environment)
    form, status = _record_form(request, environment, Kind.ENVIRONMENT, record)
    if request.method == "POST" and status == 200:
        answer = _save(request, environment, form, record.name)
        if isinstance(answer, HttpResponse):
            return answer
        status = answer
    context = {
        "environment": environment,
        "page": edit_page(environment, timezone.now()),
        "form": form,
        "may_create": may_create(person(request)),
    }
    return render(request, "upgrades/environments/edit.html", context, status=status)


def _record_form(
    request: HttpRequest, environment: Environment, kind: Kind, record: Record | None
) -> tuple[RecordForm, int]:
    """The form with what is there, or with what was typed; the status is 400 when it cannot be used as it is."""
    if request.method == "POST":
        form = RecordForm(environment, kind, request.POST)
        return form, 200 if form.is_valid() else 400
    shown = record or blank(kind)
    initial = {"command_id": uuid4(), **shown.values, "seen": record.digest() if record else ""}
    return RecordForm(environment, kind, initial=initial), 200


def _save(request: HttpRequest, environment: Environment, form: RecordForm, name: str) -> HttpResponse | int:
    """Back to the list when it is done, else the status with which the form is shown again."""
    try:
        done = save_record(
            environment_id=environment.pk,
            kind=form.kind,
            name=name,
            texts=form.texts(),
            seen=form.cleaned_data["seen"],
            by=person(request),
            command_id=form.cleaned_data["command_id"],
        )
    except NotAllowed as refusal:
        raise PermissionDenied(refusal.message) from refusal
    except Refused as refusal:
        return form.take(refusal)
    messages.success(request, SAVED if done.number else "There was nothing to change.")
    return _back(environment, form.kind)


def _back(environment: Environment, kind: Kind) -> HttpResponseRedirect:
    return HttpResponseRedirect(f"{resolve_url('edit-environment', environment.pk)}#{kind}s", status=303)


# Targets, hosts, applications.

_ROWS: dict[Kind, Callable[[Environment, int], Target | Host | Application | None]] = {
    Kind.TARGET: lambda environment, pk: environment.targets.filter(pk=pk).first(),
    Kind.HOST: lambda environment, pk: environment.hosts.filter(pk=pk).first(),
    Kind.APPLICATION: lambda environment, pk: (
        environment.applications.select_related("host", "peer").filter(pk=pk).first()
    ),
}


def _record(environment: Environment, kind: Kind, pk: int) -> Record:
    match _ROWS[kind](environment, pk):
        case Target() as target:
            return target_record(target)
        case Host() as host:
            return host_record(host)
        case Application() as application:
            return application_record(application)
    raise Http404(f"There is no such {kind} here.")


def _kind(word: str) -> Kind:
    if word not in _ROWS:
        raise Http404("There is no such page.")
    return Kind(word)


@require_http_methods(["GET", "HEAD", "POST"])
def edit_record(
    request: HttpRequest, environment_id: int, kind: str, record_id: int | None = None
) -> HttpResponse:
    """Add a record (no number), change it, or remove it (`do=remove`)."""
    environment = administered(request, environment_id)
    what = _kind(kind)
    record = _record(environment, what, record_id) if record_id is not None else None
    if request.method == "POST" and request.POST.get("do") == "remove" and record is not None:
        return _remove(request, environment, record)
    form, status = _record_form(request, environment, what, record)
    if request.method == "POST" and status == 200:
        answer = _save(request, environment, form, record.name if record else "")
        if isinstance(answer, HttpResponse):
            return answer
        status = answer
    return _record_page(request, environment, form, record, status)


def _record_page(
    request: HttpRequest,
    environment: Environment,
    form: RecordForm,
    record: Record | None,
    status: int,
) -> HttpResponse:
    context = {
        "environment": environment,
        "form": form,
        "kind": form.kind,
        "record": record,
        "seen": record.digest() if record else "",
        "components": COMPONENTS,
    }
    return render(request, "upgrades/environments/edit_record.html", context, status=status)


def _remove(request: HttpRequest, environment: Environment, record: Record) -> HttpResponse:
    asked = RecordForm(environment, record.kind, request.POST)
    asked.is_valid()  # only the two hidden fields were sent
    values = asked.cleaned_data
    try:
        remove_record(
            environment_id=environment.pk,
            kind=record.kind,
            name=record.name,
            seen=values.get("seen", ""),
            by=person(request),
            command_id=values.get("command_id") or uuid4(),
        )
    except NotAllowed as refusal:
        raise PermissionDenied(refusal.message) from refusal
    except Refused as refusal:
        shown: dict[str, Any] = {**record.values, "seen": record.digest(), "command_id": uuid4()}
        form = RecordForm(environment, record.kind, shown)
        form.is_valid()
        status = form.take(refusal)
        return _record_page(request, environment, form, record, status)
    messages.success(request, f"{record.name} is removed. The change is on record.")
    return _back(environment, record.kind)


# Agents.


class AgentForm(ActForm):
    agent_id = forms.CharField(
        max_length=100,
        label="Id of the agent",
        help_text="What its configuration calls “agent”; usually the host's name.",
        error_messages={"required": "The id is needed."},
    )
    url = forms.CharField(
        max_length=300,
        label="Address",
        widget=forms.TextInput(attrs={"inputmode": "url"}),
        help_text="https://host:port. Changing id or address makes a new key: no old key goes to a new place.",
        error_messages={"required": "The address is needed."},
    )
    certificate = forms.CharField(
        required=False,
        max_length=20_000,
        label="Certificate",
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false", "autocomplete": "off"}),
        help_text="PEM: the agent's own, or that of the authority which signed it. Then TLS rests on nothing else. Left "
        "empty, the authorities of this system count.",
    )

    def forget_private_keys(self) -> None:
        """What was refused comes back to be corrected, but never a key that somebody pasted by mistake."""
        if "PRIVATE KEY" in self.data.get("certificate", ""):
            self.data = {**self.data.dict(), "certificate": ""} if isinstance(self.data, QueryDict) else {}


@require_http_methods(["GET", "HEAD", "POST"])
def edit_agent(request: HttpRequest, environment_id: int, host_id: int) -> HttpResponse:
    """Register the agent of a host, renew its key, ask it for its health, forget it."""
    environment = administered(request, environment_id)
    host = environment.hosts.filter(pk=host_id).first()
    if host is None:
        raise Http404("There is no such host here.")
    if request.method != "POST":
        return _agent_page(request, environment, host, _agent_form(host))
    form = AgentForm(request.POST)
    try:
        return _act_on_agent(request, environment, host, form)
    except NotAllowed as refusal:
        raise PermissionDenied(refusal.message) from refusal
    except Refused as refusal:
        if request.POST.get("do") == "save" and form.is_valid():
            status = form.take(refusal)
            form.forget_private_keys()
            return _agent_page(request, environment, host, form, status=status)
        return _agent_page(
            request, environment, host, _agent_form(host), status=status_of(refusal), refused=refusal.message
        )


def _agent_form(host: Host) -> AgentForm:
    agent = agent_of(host)
    initial = {
        "command_id": uuid4(),
        "agent_id": agent.agent_id if agent else host.name,
        "url": agent.url if agent else f"https://{host.name}:7101",
        "certificate": agent.certificate if agent else "",
    }
    return AgentForm(initial=initial)


def _act_on_agent(
    request: HttpRequest, environment: Environment, host: Host, form: AgentForm
) -> HttpResponse:
    form.is_valid()
    where: dict[str, Any] = {"environment_id": environment.pk, "host_id": host.pk, "by": person(request)}
    command = form.cleaned_data.get("command_id") or uuid4()
    match request.POST.get("do"):
        case "try":
            tried = agent_registration.try_agent(**where)
            return _agent_page(request, environment, host, _agent_form(host), tried=tried)
        case "rotate":
            made = agent_registration.rotate_key(**where, command_id=command)
        case "remove":
            agent_registration.remove_agent(**where, command_id=command)
            messages.success(request, f"The agent on {host.name} is forgotten, and its key with it.")
            return _back(environment, Kind.HOST)
        case "save" if form.is_valid():
            given = form.cleaned_data
            made = agent_registration.save_agent(
                **where,
                agent_id=given["agent_id"],
                url=given["url"],
                certificate=given["certificate"],
                command_id=command,
            )
        case _:
            return _agent_page(request, environment, host, form, status=400)
    # No redirect: the key is in this answer and nowhere else. Loading it again repeats the command, which then shows none.
    host = environment.hosts.select_related("agent").get(pk=host.pk)
    return _agent_page(request, environment, host, _agent_form(host), made=made)


def _agent_page(
    request: HttpRequest,
    environment: Environment,
    host: Host,
    form: AgentForm,
    *,
    status: int = 200,
    made: agent_registration.Registered | None = None,
    tried: agent_registration.Tried | None = None,
    refused: str = "",
) -> HttpResponse:
    agent = agent_of(host)
    context = {
        "environment": environment,
        "host": host,
        "form": form,
        "agent": agent,
        "view": agent_view(agent, timezone.now()),
        "fingerprints": fingerprints(agent.certificate) if agent else [],
        "made": made,
        "tried": tried,
        "refused": refused,
        "expected": list(host.applications.order_by("name")),
    }
    return render(request, "upgrades/environments/edit_agent.html", context, status=status)


# The account.


@require_safe
def list_changes(request: HttpRequest, environment_id: int) -> HttpResponse:
    """Who changed the environment when, for everybody who may see it."""
    environment = environment_or_404(request, environment_id)
    number = _page_number(request.GET)
    entries, more = environment_changes(environment, number)
    context = {"environment": environment, "entries": entries, "number": number, "more": more}
    return render(request, "upgrades/environments/edit_changes.html", context)


def _page_number(query: Mapping[str, str]) -> int:
    text = query.get("page", "1")
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 6 and int(text) > 0 else 1
