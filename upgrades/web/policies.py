"""The policies of an environment: what holds, a change that is proposed, and its second person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from upgrades.domain.policy import DEVIATION, START, Result, people_in, policies_in, policy_in
from upgrades.domain.policy_text import (
    read_deputies,
    read_groups,
    read_needs,
    write_deputies,
    write_groups,
    write_needs,
)
from upgrades.domain.refusal import BadInput, Refused
from upgrades.models import Environment
from upgrades.queries.access import roles_in
from upgrades.queries.policies import policies_page, usernames
from upgrades.services import policies
from upgrades.services.people import actor_id
from upgrades.services.sign_in import ProofNeeded
from upgrades.web.answers import answer_refusal
from upgrades.web.environments import environment_or_404, person
from upgrades.web.forms import BROKEN, Whole, reason_field, text_field
from upgrades.web.sign_in import ask_again, proof_of

PAGE = "upgrades/environments/policies.html"
POINT_OF_NO_RETURN = "point-of-no-return"
RESULTS = (
    (Result.LAPSE.value, "what was signed lapses"),
    (Result.REJECT.value, "it is rejected"),
    (Result.HOLD.value, "the run is put on hold"),
)


def _area(label: str, help_text: str, rows: int = 2) -> forms.CharField:
    area = text_field(label, help_text, rows=rows)
    area.required = False
    return area


class ProposeForm(forms.Form):
    """All policies of the environment as lines; what it would come to is judged by the core."""

    groups = _area("Groups", "A line each, with names of sign-in: database: nina, oskar", rows=3)
    deputies = _area("Deputies", "A line each: anna by bob from 2026-12-01 to 2026-12-14", rows=2)
    holder = forms.ChoiceField(
        label="Who acts on a step",
        choices=(("shown", "any operator; the page says who holds it"), ("only", "only who holds it")),
        widget=forms.RadioSelect,
    )
    reason = reason_field("Why it changes. A second person reads this and confirms, or not.")

    def __init__(
        self, document: Mapping[str, Any], names: Mapping[str, str], *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.names = names
        self.stated = list(
            dict.fromkeys(
                [START, POINT_OF_NO_RETURN, DEVIATION, *(policy.name for policy in policies_in(document))]
            )
        )
        for name in self.stated:
            self._add(name)

    def _add(self, name: str) -> None:
        fields = self.fields
        fields[f"{name}-stated"] = forms.BooleanField(
            label="Asks for signatures as follows" if name == START else "Stated", required=False
        )
        fields[f"{name}-needs"] = _area(
            "Who signs", "A line each: 2 role approver, 1 group database. No line: nobody."
        )
        fields[f"{name}-minutes"] = forms.IntegerField(
            label="Decided within (minutes)", required=False, min_value=5, max_value=43200
        )
        fields[f"{name}-result"] = forms.ChoiceField(
            label="If not", choices=RESULTS, required=False, help_text="Time never approves anything."
        )
        if name != DEVIATION:
            fields[f"{name}-ahead"] = forms.BooleanField(
                label="May be signed ahead of its turn", required=False
            )
            fields[f"{name}-override"] = forms.BooleanField(
                label="Emergency override by two people", required=False
            )
        else:
            fields[f"{name}-never"] = _area("Gates that are never waived", "Ids, a line each.")

    def parts(self) -> list[tuple[str, list[forms.BoundField]]]:
        """The fields by policy, for the page."""
        return [
            (
                name.replace("-", " ").capitalize(),
                [self[field] for field in self.fields if field.startswith(f"{name}-")],
            )
            for name in self.stated
        ]

    def document(self) -> dict[str, Any]:
        data = self.cleaned_data
        document: dict[str, Any] = {
            name: self._policy(name) for name in self.stated if data[f"{name}-stated"]
        }
        groups, deputies = (
            read_groups(data["groups"], self.names),
            read_deputies(data["deputies"], self.names),
        )
        if groups or deputies:
            document["people"] = {"groups": groups, "deputies": deputies}
        if data["holder"] == "only":
            document["steps"] = {"holder": "only"}
        return document

    def _policy(self, name: str) -> dict[str, Any]:
        data = self.cleaned_data
        policy: dict[str, Any] = {"needs": read_needs(data[f"{name}-needs"], f"{name}-needs")}
        if data[f"{name}-minutes"]:
            policy["expires"] = {"after": data[f"{name}-minutes"] * 60, "result": data[f"{name}-result"]}
        policy |= {key: True for key in ("ahead", "override") if data.get(f"{name}-{key}")}
        never = data.get(f"{name}-never", "").split()
        return policy | ({"never": never} if never else {})


def initial(document: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The form's fields as the document has them. `names`: name of sign-in -> id."""
    known, people = {person: name for name, person in names.items()}, people_in(document)
    values: dict[str, Any] = {
        "groups": write_groups(people, known),
        "deputies": write_deputies(people.deputies, known),
        "holder": document.get("steps", {}).get("holder", "shown"),
    }
    for name in (START, POINT_OF_NO_RETURN, DEVIATION, *(item.name for item in policies_in(document))):
        policy = policy_in(document, name)
        values |= {
            f"{name}-stated": name in document,
            f"{name}-needs": write_needs(policy),
            f"{name}-minutes": policy.expiry.after // 60 if policy.expiry else None,
            f"{name}-result": str(policy.expiry.result) if policy.expiry else Result.LAPSE.value,
            f"{name}-ahead": policy.ahead,
            f"{name}-override": policy.override,
            f"{name}-never": "\n".join(sorted(policy.never)),
        }
    return values


class DecideForm(forms.Form):
    change = Whole()
    comment = _area("Comment", "Needed to reject it (20 characters).")


@require_http_methods(["GET", "HEAD", "POST"])
def show_policies(request: HttpRequest, environment_id: int) -> HttpResponse:
    """What holds, what is proposed and what was decided; an administrator proposes, a second person decides."""
    environment = environment_or_404(request, environment_id)
    if environment.rehearsal_of_id is not None:
        raise Http404("A rehearsal has the policies of the environment that it copies.")
    if request.method != "POST":
        return _show(request, environment)
    propose, decide = _propose_form(environment, request), DecideForm(request.POST)
    do = request.POST.get("do", "")
    try:
        told = _carry_out(request, environment, do, propose, decide)
    except ProofNeeded:
        return ask_again(
            request, what=f"Confirm a change of policies of {environment.name}", page=_address(environment)
        )
    except Refused as refusal:
        if isinstance(refusal, BadInput) and do == "propose" and refusal.field in propose.fields:
            propose.add_error(refusal.field, refusal.message)
        again = propose if do == "propose" else None
        return answer_refusal(
            refusal,
            lambda text, status: _show(request, environment, again, refusal=text, status=status),
        )
    messages.success(request, told)
    return HttpResponseRedirect(_address(environment), status=303)


def _carry_out(
    request: HttpRequest, environment: Environment, do: str, propose: ProposeForm, decide: DecideForm
) -> str:
    by = person(request)
    if do == "propose":
        if not propose.is_valid():
            raise BadInput("Nothing was proposed. Look at the fields that are marked.")
        reason = propose.cleaned_data["reason"]
        policies.propose(environment_id=environment.pk, document=propose.document(), reason=reason, by=by)
        return "The change is proposed. It counts once a second person confirms it."
    if do not in ("confirm", "reject") or not decide.is_valid():
        raise BadInput(BROKEN)
    change = policies.decide(
        environment_id=environment.pk,
        change_id=decide.cleaned_data["change"],
        confirm=do == "confirm",
        comment=decide.cleaned_data["comment"],
        by=by,
        proof=proof_of(request),
    )
    return f"The change is {change.status}. It stands in the register."


def _address(environment: Environment) -> str:
    return reverse("policies", args=[environment.pk])


def _propose_form(environment: Environment, request: HttpRequest | None = None) -> ProposeForm:
    names = usernames(environment)
    if request is not None:
        return ProposeForm(environment.policies, names, request.POST)
    return ProposeForm(environment.policies, names, initial=initial(environment.policies, names))


def _show(
    request: HttpRequest,
    environment: Environment,
    propose: ProposeForm | None = None,
    *,
    refusal: str = "",
    status: int = 200,
) -> HttpResponse:
    user = person(request)
    roles = roles_in(user, environment)
    page = policies_page(environment)
    own = page.open is not None and page.open.change.asked_by_id == actor_id(user)
    context = {
        "environment": environment,
        "page": page,
        "refusal": refusal,
        "may_propose": "administrator" in roles and page.open is None,
        "may_confirm": page.open is not None and not own and bool(roles & set(policies.DECIDERS)),
        "own": own,
        "propose": propose or _propose_form(environment),
        "typed": propose is not None,
        "decide": DecideForm(initial={"change": page.open.change.pk}) if page.open else None,
    }
    return render(request, PAGE, context, status=status)
