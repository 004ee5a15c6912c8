"""The members of an environment: every member sees who has which role; administrators give, confirm and take roles."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import messages
from django.contrib.auth.models import AbstractUser
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from upgrades.domain.refusal import BadInput, Refused
from upgrades.models import Environment, Membership
from upgrades.queries.access import roles_in, visible_environments
from upgrades.services import members
from upgrades.services.people import actor_id
from upgrades.web import sign_in_provider
from upgrades.web.answers import answer_refusal
from upgrades.web.forms import BROKEN, TWICE, Whole

PAGE = "upgrades/environments/members.html"


class GiveForm(forms.Form):
    """A role for a person, by the name that they sign in with."""

    username = forms.CharField(
        label="Name", max_length=150, help_text="The one that the person signs in with."
    )
    role = forms.ChoiceField(label="Role", choices=Membership.Role.choices)

    def carry_out(self, environment_id: int, by: AbstractUser) -> str:
        data = self.cleaned_data
        given = members.give_role(
            environment_id=environment_id, username=data["username"], role=data["role"], by=by
        )
        return f"{given.user.get_full_name() or given.user.get_username()} has the role {given.role} now."


class GiveGroupForm(forms.Form):
    """A role for a group of the provider."""

    group = forms.CharField(label="Group", max_length=200, help_text="As the provider sends it.")
    role = forms.ChoiceField(label="Role", choices=Membership.Role.choices)

    def carry_out(self, environment_id: int, by: AbstractUser) -> str:
        data = self.cleaned_data
        members.give_group(environment_id=environment_id, group=data["group"], role=data["role"], by=by)
        return "The group has the role now; it reaches each of its members at their next sign-in."


class RowForm(forms.Form):
    """A button beside a row of the page."""

    row = Whole()


class TakeForm(RowForm):
    def carry_out(self, environment_id: int, by: AbstractUser) -> str:
        members.take_role(environment_id=environment_id, membership_id=self.cleaned_data["row"], by=by)
        return "The role is taken. It counts from this moment on."


class ConfirmForm(RowForm):
    def carry_out(self, environment_id: int, by: AbstractUser) -> str:
        members.confirm_role(environment_id=environment_id, membership_id=self.cleaned_data["row"], by=by)
        return "The role is confirmed and signs in runs under way, too."


class TakeGroupForm(RowForm):
    def carry_out(self, environment_id: int, by: AbstractUser) -> str:
        members.take_group(environment_id=environment_id, group_role_id=self.cleaned_data["row"], by=by)
        return "The group has the role no longer, nor has anybody by it."


AnyForm = GiveForm | GiveGroupForm | TakeForm | ConfirmForm | TakeGroupForm
FORMS: dict[str, type[AnyForm]] = {
    "give": GiveForm,
    "give-group": GiveGroupForm,
    "take": TakeForm,
    "confirm": ConfirmForm,
    "take-group": TakeGroupForm,
}


@require_http_methods(["GET", "HEAD", "POST"])
def show_members(request: HttpRequest, environment_id: int) -> HttpResponse:
    """Who has which role; a POST names in `do` what its administrator wants."""
    user = cast(AbstractUser, request.user)
    environment = visible_environments(user).filter(pk=environment_id, rehearsal_of=None).first()
    if environment is None:
        raise Http404("There is no such environment, or you have no role in it.")
    if request.method != "POST":
        return _show(request, environment)
    form: AnyForm | None = None
    try:
        form = _sent(request)
        done = form.carry_out(environment.pk, user)
    except Refused as refusal:
        if isinstance(refusal, BadInput) and form is not None and refusal.field in form.fields:
            form.add_error(refusal.field, refusal.message)
        return answer_refusal(
            refusal, lambda text, status: _show(request, environment, form, refusal=text, status=status)
        )
    messages.success(request, done)
    return HttpResponseRedirect(reverse("members", args=[environment.pk]), status=303)


def _sent(request: HttpRequest) -> AnyForm:
    if any(len(values) > 1 for _name, values in request.POST.lists()):
        raise BadInput(TWICE)
    kind = FORMS.get(request.POST.get("do", ""))
    if kind is None:
        raise BadInput(BROKEN)
    form = kind(request.POST, auto_id=f"{request.POST['do']}-%s")
    if not form.is_valid():
        raise BadInput(
            f"Nothing was changed. {' '.join(str(mistake[0]) for mistake in form.errors.values())}"
        )
    return form


def _show(
    request: HttpRequest,
    environment: Environment,
    form: AnyForm | None = None,
    *,
    refusal: str = "",
    status: int = 200,
) -> HttpResponse:
    user = cast(AbstractUser, request.user)
    context: dict[str, Any] = {
        "environment": environment,
        "may": members.ADMINISTRATOR in roles_in(user, environment),
        "rows": environment.memberships.select_related("user").order_by("user__username", "role"),
        "groups": environment.group_roles.all(),
        "me": actor_id(user),
        "provider": sign_in_provider.provider_name(),
        "give": form if isinstance(form, GiveForm) else GiveForm(auto_id="give-%s"),
        "give_group": form if isinstance(form, GiveGroupForm) else GiveGroupForm(auto_id="give-group-%s"),
        "refusal": refusal,
    }
    return render(request, PAGE, context, status=status)
