"""The start dialog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.forms.boundfield import BoundField
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import render, resolve_url
from django.views.decorators.http import require_http_methods

from upgrades.adapters import simulator_client
from upgrades.domain.answers import LONGEST, SHORT
from upgrades.domain.procedure import ParameterType
from upgrades.domain.refusal import NotAllowed, Refused
from upgrades.models import Environment, ProcedureVersion
from upgrades.queries.access import roles_in
from upgrades.queries.plan import proposal_of
from upgrades.queries.procedures import newest, procedure_of
from upgrades.queries.start_dialog import (
    ParameterChoice,
    Prerequisite,
    RoleChoice,
    StartDialog,
    start_dialog,
)
from upgrades.services.starting import BadAnswers, start_run
from upgrades.web.answers import status_of
from upgrades.web.environments import environment_or_404, person
from upgrades.web.forms import TWICE

YES_NO = [("true", "Yes"), ("false", "No")]
CATEGORIES = [
    ("standard", "Standard: done before, approved as a kind of change"),
    ("normal", "Normal: approved for this once"),
    ("emergency", "Emergency: an auditor looks into it afterwards"),
]
KINDS = {
    "rehearsal": "Rehearsal: on simulated copies of these servers. Nothing touches the real ones.",
    "live": "Live: you carry it out on the real servers.",
}


class StartForm(forms.Form):
    """The fields of a dialog: `role-<name>`, `parameter-<name>`, `confirm-<gate>` with `text-<gate>`, and the rest."""

    command_id = forms.UUIDField(widget=forms.HiddenInput)
    plan_item = forms.IntegerField(required=False, widget=forms.HiddenInput)
    kind = forms.ChoiceField(
        widget=forms.RadioSelect,
        label="Rehearsal or live?",
        error_messages={"required": "Choose whether this is a rehearsal or live."},
    )
    change = forms.CharField(
        required=False,
        max_length=120,
        label="Change number",
        help_text="As your change management has it, for example CHG0042317. It stands on the run and its report.",
    )
    category = forms.ChoiceField(
        choices=CATEGORIES,
        initial="normal",
        widget=forms.RadioSelect,
        label="Kind of change",
        error_messages={"required": "Choose what kind of change it is."},
    )
    reason = forms.CharField(
        required=False,
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 3}),
        label="Why, and what it may touch",
        help_text="Reason and expected impact, for those who sign and for whoever asks in a year. "
        "An emergency needs it.",
    )

    def __init__(self, dialog: StartDialog, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dialog = dialog
        self._kind_field()
        for role in dialog.roles:
            self.fields[f"role-{role.name}"] = _role_field(role)
        for parameter in dialog.parameters:
            self.fields[f"parameter-{parameter.name}"] = _parameter_field(parameter)
        for gate in self.confirmable:
            self.fields[f"confirm-{gate.id}"] = forms.BooleanField(required=False, label="It is so")
            self.fields[f"text-{gate.id}"] = forms.CharField(
                required=False, max_length=2000, label="How you know"
            )

    def _kind_field(self) -> None:
        field = self.fields["kind"]
        assert isinstance(field, forms.ChoiceField)
        if simulator_client.is_set_up():
            field.choices = list(KINDS.items())
        else:
            field.choices = [("live", KINDS["live"])]
            field.initial = "live"
            field.help_text = "A rehearsal needs a simulator, and none is set up here."

    @property
    def confirmable(self) -> tuple[Prerequisite, ...]:
        return tuple(gate for gate in self.dialog.prerequisites if gate.is_confirmed)

    def roles(self) -> Iterator[tuple[RoleChoice, BoundField]]:
        return ((role, self[f"role-{role.name}"]) for role in self.dialog.roles)

    def parameters(self) -> Iterator[tuple[ParameterChoice, BoundField]]:
        return ((item, self[f"parameter-{item.name}"]) for item in self.dialog.parameters)

    def prerequisites(self) -> Iterator[tuple[Prerequisite, BoundField | None, BoundField | None]]:
        for gate in self.dialog.prerequisites:
            if gate.is_confirmed:
                yield gate, self[f"confirm-{gate.id}"], self[f"text-{gate.id}"]
            else:
                yield gate, None, None

    def answers(self) -> dict[str, Any]:
        """What was answered, as `start_run` takes it."""
        given = self.cleaned_data
        return {
            "bindings": {role.name: given[f"role-{role.name}"] for role in self.dialog.roles},
            "parameters": {item.name: given[f"parameter-{item.name}"] for item in self.dialog.parameters},
            "confirmations": {
                gate.id: given[f"text-{gate.id}"] for gate in self.confirmable if given[f"confirm-{gate.id}"]
            },
            "rehearsal": given["kind"] == "rehearsal",
            "change": given["change"],
            "category": given["category"],
            "reason": given["reason"],
            "command_id": given["command_id"],
            "plan_item": given["plan_item"],
        }

    def take_mistakes(self, mistakes: Mapping[str, str]) -> None:
        """Put each mistake that the service found beside its field, or above the form when it has none."""
        for name, text in mistakes.items():
            self.add_error(name if name in self.fields else None, text)


def _role_field(role: RoleChoice) -> forms.TypedChoiceField:
    return forms.TypedChoiceField(
        choices=[("", "Choose a server"), *role.candidates],
        coerce=int,
        initial=role.chosen,
        label=role.title,
        help_text="" if role.candidates else f"No server here fits: {role.wanted} is needed.",
        error_messages={"required": f"Choose {role.wanted}."},
    )


def _parameter_field(parameter: ParameterChoice) -> forms.Field:
    common: dict[str, Any] = {
        "label": parameter.title,
        "required": parameter.needed,
        "initial": parameter.answer,
        "help_text": parameter.help,
    }
    if parameter.type is ParameterType.BOOLEAN:
        missing = {"required": "Choose yes or no."}
        return forms.ChoiceField(choices=YES_NO, widget=forms.RadioSelect, error_messages=missing, **common)
    missing = {"required": "An answer is needed here."}
    if parameter.type is ParameterType.DATE:
        widget = forms.TextInput(attrs={"type": "date"})
        return forms.CharField(widget=widget, max_length=10, error_messages=missing, **common)
    modes = {ParameterType.VERSION: "decimal", ParameterType.NUMBER: "numeric"}
    attrs = {"inputmode": modes[parameter.type]} if parameter.type in modes else {}
    return forms.CharField(
        max_length=LONGEST.get(parameter.type, SHORT),
        widget=forms.TextInput(attrs=attrs),
        error_messages=missing,
        **common,
    )


@require_http_methods(["GET", "HEAD", "POST"])
def start(request: HttpRequest, environment_id: int, procedure: str) -> HttpResponse:
    environment = environment_or_404(request, environment_id)
    version = _version(environment, procedure)
    if "operator" not in roles_in(person(request), environment):
        raise PermissionDenied(
            f"Starting a run takes the role operator in {environment.name}. "
            "An administrator of the environment can give it."
        )
    if request.method != "POST":
        initial = {"command_id": uuid4(), **_planned(environment, version, request.GET.get("plan-item", ""))}
        form = StartForm(_dialog(request, environment, version), initial=initial)
        return _page(request, environment, form)
    dialog = _dialog(request, environment, version, request.POST)
    if "look" in request.POST:
        return _page(request, environment, StartForm(dialog, initial=_typed(request.POST)))
    form = StartForm(dialog, request.POST)
    if any(len(values) > 1 for _, values in request.POST.lists()):
        form.add_error(None, TWICE)
    if not form.is_valid():
        return _page(request, environment, form, status=400)
    return _start(request, environment, version, form)


def _version(environment: Environment, procedure: str) -> ProcedureVersion:
    if environment.rehearsal_of_id is not None:
        raise Http404("Runs are started from the environment itself, not from a copy of it.")
    try:
        return newest(procedure)
    except ProcedureVersion.DoesNotExist:
        raise Http404("No procedure is published under this name.") from None


def _planned(environment: Environment, version: ProcedureVersion, item: str) -> dict[str, Any]:
    """What the dialog is filled with when it was opened from an item of the plan; empty for any other item."""
    if not (item.isascii() and item.isdigit()):
        return {}
    proposal = proposal_of(environment, int(item[:18]), procedure_of(version))
    if proposal is None:
        return {}
    roles = {f"role-{role}": application for role, application in proposal.bindings.items()}
    return {
        "plan_item": proposal.item,
        **roles,
        **{f"parameter-{n}": t for n, t in proposal.parameters.items()},
    }


def _dialog(
    request: HttpRequest,
    environment: Environment,
    version: ProcedureVersion,
    typed: QueryDict | None = None,
) -> StartDialog:
    text = procedure_of(version)
    if typed is None:
        return start_dialog(environment, text, person(request))
    chosen = {role.name: typed.get(f"role-{role.name}", "") for role in text.roles}
    return start_dialog(
        environment,
        text,
        person(request),
        bindings={
            role: int(value)
            for role, value in chosen.items()
            if value.isascii() and value.isdigit() and len(value) < 19
        },
        answers={item.name: typed.get(f"parameter-{item.name}", "") for item in text.parameters},
    )


def _typed(post: QueryDict) -> dict[str, str]:
    return {name: str(post[name]) for name in post if name != "csrfmiddlewaretoken"}


def _start(
    request: HttpRequest, environment: Environment, version: ProcedureVersion, form: StartForm
) -> HttpResponse:
    try:
        done = start_run(
            environment_id=environment.pk, procedure=version.procedure, by=person(request), **form.answers()
        )
    except NotAllowed as refusal:
        raise PermissionDenied(refusal.message) from refusal
    except BadAnswers as refusal:
        form.take_mistakes(refusal.mistakes)
        return _page(request, environment, form, status=400)
    except Refused as refusal:
        form.add_error(None, refusal.message)
        return _page(request, environment, form, status=status_of(refusal))
    messages.success(request, "The run has started. It does nothing on the servers by itself.")
    return HttpResponseRedirect(resolve_url("show-run", done.run), status=303)


def _page(request: HttpRequest, environment: Environment, form: StartForm, status: int = 200) -> HttpResponse:
    context = {"environment": environment, "form": form, "dialog": form.dialog}
    return render(request, "upgrades/start/show.html", context, status=status)
