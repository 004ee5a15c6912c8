"""API tokens: one's own, made and revoked under “Your account”; and those of everybody, for administrators."""

from __future__ import annotations

from typing import Any, cast
from uuid import uuid4

from django import forms
from django.contrib import messages
from django.contrib.auth.models import AbstractUser
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from upgrades.domain.api_scopes import LONGEST, READ, SCOPES
from upgrades.domain.refusal import BadInput, Refused
from upgrades.models import Environment
from upgrades.queries.access import roles_in
from upgrades.queries.tokens import environments_for_tokens, tokens_in, tokens_of
from upgrades.services import tokens
from upgrades.services.members import ADMINISTRATOR
from upgrades.services.sign_in import ProofNeeded
from upgrades.web.answers import answer_refusal, status_of
from upgrades.web.environments import environment_or_404
from upgrades.web.forms import BROKEN, Whole
from upgrades.web.sign_in import ask_again, proof_of

PAGE = "upgrades/tokens/show.html"
HERE = "upgrades/tokens/environment.html"
FIELD_OF = {"The purpose": "purpose"}


class TokenForm(forms.Form):
    """What a new token is for, where, and how long."""

    command_id = forms.UUIDField(
        widget=forms.HiddenInput, error_messages={"invalid": BROKEN, "required": BROKEN}
    )
    purpose = forms.CharField(
        max_length=100,
        label="Purpose",
        help_text="What uses it, so that it can be told from others: “change calendar”, “night dashboard”.",
        error_messages={"required": "Say what it is for."},
    )
    scopes = forms.MultipleChoiceField(
        choices=[(scope, f"{scope}: {text}") for scope, text in SCOPES.items()],
        widget=forms.CheckboxSelectMultiple,
        label="What it may do",
        help_text="Never more than you may do yourself at that moment. No token signs, rejects or overrides.",
        error_messages={"required": "Choose at least one thing that the token is for."},
    )
    environment = forms.ModelChoiceField(
        Environment.objects.none(), required=False, empty_label="All in which I have a role", label="Where"
    )
    days = forms.IntegerField(
        min_value=1,
        max_value=LONGEST.days,
        label="Days until it ends",
        help_text=f"At most {LONGEST.days}. The shorter, the better.",
        error_messages={"required": "Say for how many days.", "invalid": "Write a whole number of days."},
    )

    def __init__(self, user: AbstractUser, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        field = self.fields["environment"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = environments_for_tokens(user)


def _user(request: HttpRequest) -> AbstractUser:
    return cast(AbstractUser, request.user)


@require_http_methods(["GET", "HEAD", "POST"])
def show_tokens(request: HttpRequest) -> HttpResponse:
    """One's own tokens; a POST makes another one, once its person has shown who they are."""
    user = _user(request)
    if request.method != "POST":
        form = TokenForm(user, initial={"command_id": uuid4(), "scopes": [READ], "days": 90})
        return _page(request, form)
    form = TokenForm(user, request.POST)
    if not form.is_valid():
        return _page(request, form, status=400)
    try:
        return _made(request, form)
    except ProofNeeded:
        return ask_again(request, what="A new API token", page=reverse("tokens"))
    except Refused as refusal:
        field = FIELD_OF.get(refusal.field, refusal.field) if isinstance(refusal, BadInput) else ""
        form.add_error(field if field in form.fields else None, refusal.message)
        return _page(request, form, status=status_of(refusal))


def _made(request: HttpRequest, form: TokenForm) -> HttpResponse:
    given = form.cleaned_data
    user = _user(request)
    made = tokens.make_token(
        by=user,
        purpose=given["purpose"],
        scopes=given["scopes"],
        environment_id=given["environment"].pk if given["environment"] else None,
        days=given["days"],
        proof=proof_of(request),
        command_id=given["command_id"],
    )
    fresh = TokenForm(user, initial={"command_id": uuid4(), "scopes": [READ], "days": 90})
    # No redirect: the token is in this answer and nowhere else. Sent again, the form makes and shows none.
    return _page(request, fresh, made=made)


def _page(
    request: HttpRequest, form: TokenForm, *, status: int = 200, made: tokens.Made | None = None
) -> HttpResponse:
    context = {"form": form, "rows": tokens_of(_user(request)), "made": made}
    return render(request, PAGE, context, status=status)


@require_POST
def revoke_token(request: HttpRequest, token_id: int) -> HttpResponse:
    """Revoke one of one's own."""
    try:
        row = tokens.revoke_own(token_id=token_id, by=_user(request))
    except Refused as refusal:
        raise Http404(refusal.message) from None
    messages.success(request, f"The token {row.public_id} is revoked. It counts no longer.")
    return HttpResponseRedirect(resolve_url("tokens"), status=303)


class RevokeForm(forms.Form):
    token = Whole()


@require_http_methods(["GET", "HEAD", "POST"])
def show_tokens_here(request: HttpRequest, environment_id: int) -> HttpResponse:
    """Every token that reaches an environment; a POST revokes one."""
    environment = environment_or_404(request, environment_id)
    if environment.rehearsal_of_id is not None:
        raise Http404(
            "The copy of a rehearsal has no tokens of its own. Look at the environment that it copies."
        )
    if ADMINISTRATOR not in roles_in(_user(request), environment):
        raise PermissionDenied(
            f"The tokens of others are for administrators of {environment.name}. Your own are under “Your account”."
        )
    if request.method != "POST":
        return _here(request, environment)
    form = RevokeForm(request.POST)
    try:
        if not form.is_valid():
            raise BadInput(BROKEN)
        row = tokens.revoke_here(
            environment_id=environment.pk, token_id=form.cleaned_data["token"], by=_user(request)
        )
    except Refused as refusal:
        return answer_refusal(
            refusal, lambda text, status: _here(request, environment, refusal=text, status=status)
        )
    messages.success(request, f"The token {row.public_id} is revoked. It counts no longer.")
    return HttpResponseRedirect(resolve_url("environment-tokens", environment.pk), status=303)


def _here(
    request: HttpRequest, environment: Environment, *, refusal: str = "", status: int = 200
) -> HttpResponse:
    rows = tokens_in(environment).order_by("user__username", "-created_at")
    context = {"environment": environment, "rows": rows, "refusal": refusal}
    return render(request, HERE, context, status=status)
