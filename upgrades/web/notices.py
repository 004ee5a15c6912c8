"""Notices: what a person is told of, under “Your account”, and the endpoints that an environment tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import AbstractUser
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from upgrades.domain.notices import TITLES, Kind
from upgrades.domain.refusal import BadInput, Refused, Unavailable
from upgrades.models import Environment, NoticeDelivery
from upgrades.queries.access import roles_in
from upgrades.queries.notices import FORM_TITLES, choices_page, notices_page
from upgrades.services import calendar_feed, notice_endpoints
from upgrades.services.members import ADMINISTRATOR
from upgrades.services.notice_choices import choose, set_address
from upgrades.services.sign_in import ProofNeeded
from upgrades.web.answers import answer_refusal
from upgrades.web.environments import environment_or_404, person
from upgrades.web.forms import BROKEN, TWICE, Whole
from upgrades.web.sign_in import ask_again, proof_of

MINE = "upgrades/notices/mine.html"
HERE = "upgrades/notices/environment.html"
KINDS = [(str(kind), TITLES[kind]) for kind in Kind]
NO_MAIL = "django.core.mail.backends.console.EmailBackend"


# One's own.


@require_http_methods(["GET", "HEAD", "POST"])
def show_mine(request: HttpRequest) -> HttpResponse:
    """What this person is told of, and the address of the calendar; a POST names in `do` what is wanted."""
    user = cast(AbstractUser, request.user)
    if request.method != "POST":
        return _mine(request, user)
    if len(request.POST.getlist("do")) > 1:
        return _refuse_mine(request, user, BadInput(TWICE))
    match request.POST.get("do", ""):
        case "address":
            try:
                changed = set_address(user, request.POST.get("address", ""), proof_of(request))
            except ProofNeeded:
                return ask_again(request, what="Another mail address", page=reverse("account-notices"))
            except Refused as refusal:
                return _refuse_mine(request, user, refusal)
            messages.success(request, "Your mails go there from now on." if changed else "No change.")
        case "choose":
            choose(user, _wanted(request))
            messages.success(request, "Saved. It counts from the next notice on.")
        case "renew":
            # No redirect: the address is in this answer and nowhere else.
            return _mine(request, user, token=calendar_feed.make_feed(user))
        case "revoke":
            if calendar_feed.revoke_feed(user):
                messages.success(request, "The address of your calendar counts no longer.")
        case _:
            return _refuse_mine(request, user, BadInput(BROKEN))
    return HttpResponseRedirect(reverse("account-notices"), status=303)


def _refuse_mine(request: HttpRequest, user: AbstractUser, refusal: Refused) -> HttpResponse:
    return answer_refusal(refusal, lambda text, status: _mine(request, user, refusal=text, status=status))


def _wanted(request: HttpRequest) -> set[tuple[int, str]]:
    """The boxes that are checked, as `7:countdown`; what is none is passed over."""
    found = set()
    for box in request.POST.getlist("wanted"):
        environment, _, kind = box.partition(":")
        if environment.isascii() and environment.isdigit() and len(environment) < 19:
            found.add((int(environment), kind))
    return found


def _mine(
    request: HttpRequest, user: AbstractUser, *, token: str = "", refusal: str = "", status: int = 200
) -> HttpResponse:
    page = choices_page(user)
    address = f"{settings.BASE_URL}{reverse('calendar', args=[token])}" if token else ""
    context = {
        "page": page,
        "address": address,
        "refusal": refusal,
        "no_mail": settings.EMAIL_BACKEND == NO_MAIL,
    }
    return render(request, MINE, context, status=status)


# An environment's endpoints.


class AddForm(forms.Form):
    """A new endpoint. What the address may be is judged by the service."""

    name = forms.CharField(label="Name", max_length=80, help_text="As in “Change desk” or “Bridge 3”.")
    form = forms.ChoiceField(label="Form of its messages", choices=list(FORM_TITLES.items()))
    address = forms.CharField(
        label="Address",
        max_length=2000,
        help_text="https://… It is kept sealed, and shown to nobody again.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "inputmode": "url"}),
    )
    kinds = forms.MultipleChoiceField(
        label="What it is told of", choices=KINDS, widget=forms.CheckboxSelectMultiple
    )


class RowForm(forms.Form):
    """A button beside an endpoint."""

    row = Whole()


class KindsForm(RowForm):
    kinds = forms.MultipleChoiceField(choices=KINDS, required=False)


Done = tuple[str, str]  # what is told, and a secret that is shown once


def _add(environment: int, by: AbstractUser, form: forms.Form) -> Done:
    data = form.cleaned_data
    made = notice_endpoints.add_endpoint(
        environment_id=environment,
        name=data["name"],
        form=data["form"],
        address=data["address"],
        kinds=data["kinds"],
        by=by,
    )
    return f"{made.endpoint.name} is told from now on. Send it a test message.", made.secret


def _change(environment: int, by: AbstractUser, form: forms.Form) -> Done:
    data = form.cleaned_data
    notice_endpoints.change_endpoint(
        environment_id=environment, endpoint_id=data["row"], kinds=data["kinds"], by=by
    )
    return "Saved. It counts from the next notice on.", ""


def _test(environment: int, by: AbstractUser, form: forms.Form) -> Done:
    row = notice_endpoints.try_endpoint(
        environment_id=environment, endpoint_id=form.cleaned_data["row"], by=by
    )
    if row.state == NoticeDelivery.State.SENT:
        return f"The test message was taken. {row.outcome}", ""
    why = row.outcome or "A worker has it in hand: load the page again to see what came of it."
    raise Unavailable(f"The test message was not taken yet. {why}")


def _pause(environment: int, by: AbstractUser, form: forms.Form) -> Done:
    _set_paused(environment, by, form, paused=True)
    return "It is paused: what happens from now on is not told to it, later neither.", ""


def _resume(environment: int, by: AbstractUser, form: forms.Form) -> Done:
    _set_paused(environment, by, form, paused=False)
    return "It is told again from now on.", ""


def _set_paused(environment: int, by: AbstractUser, form: forms.Form, *, paused: bool) -> None:
    notice_endpoints.change_endpoint(
        environment_id=environment, endpoint_id=form.cleaned_data["row"], paused=paused, by=by
    )


def _renew(environment: int, by: AbstractUser, form: forms.Form) -> Done:
    made = notice_endpoints.renew_secret(
        environment_id=environment, endpoint_id=form.cleaned_data["row"], by=by
    )
    return f"{made.endpoint.name} has a new secret. The next message is signed with it.", made.secret


def _remove(environment: int, by: AbstractUser, form: forms.Form) -> Done:
    name = notice_endpoints.remove_endpoint(
        environment_id=environment, endpoint_id=form.cleaned_data["row"], by=by
    )
    return f"{name} is removed, with its messages.", ""


def _again(environment: int, by: AbstractUser, _: forms.Form) -> Done:
    count = notice_endpoints.send_again(environment_id=environment, by=by)
    return f"{count} message{'s are' if count != 1 else ' is'} sent again.", ""


ACTS: dict[str, tuple[type[forms.Form], Callable[[int, AbstractUser, forms.Form], Done]]] = {
    "add": (AddForm, _add),
    "change": (KindsForm, _change),
    "test": (RowForm, _test),
    "pause": (RowForm, _pause),
    "resume": (RowForm, _resume),
    "renew": (RowForm, _renew),
    "remove": (RowForm, _remove),
    "again": (forms.Form, _again),
}


@require_http_methods(["GET", "HEAD", "POST"])
def show_endpoints(request: HttpRequest, environment_id: int) -> HttpResponse:
    """What an environment tells, for its administrators; a POST names in `do` what one of them wants."""
    environment = environment_or_404(request, environment_id)
    if environment.rehearsal_of_id is not None:
        raise Http404("A rehearsal tells nobody of anything.")
    if ADMINISTRATOR not in roles_in(person(request), environment):
        raise PermissionDenied(
            f"The endpoints of {environment.name} are for its administrators. What you are told yourself is under “Your "
            "account”."
        )
    if request.method != "POST":
        return _here(request, environment)
    form: forms.Form | None = None
    try:
        form, act = _sent(request)
        _must_be_valid(form)
        told, secret = act(environment.pk, person(request), form)
    except Refused as refusal:
        typed = form if isinstance(form, AddForm) else None
        if isinstance(refusal, BadInput) and typed is not None and refusal.field in typed.fields:
            typed.add_error(refusal.field, refusal.message)
        return answer_refusal(
            refusal, lambda text, status: _here(request, environment, typed, refusal=text, status=status)
        )
    if secret:
        # No redirect: the secret is in this answer and nowhere else. Sent again, the form is refused by its name.
        return _here(request, environment, told=told, secret=secret)
    messages.success(request, told)
    return HttpResponseRedirect(reverse("notices", args=[environment.pk]), status=303)


def _sent(
    request: HttpRequest,
) -> tuple[forms.Form, Callable[[int, AbstractUser, forms.Form], Done]]:
    if any(len(values) > 1 for name, values in request.POST.lists() if name != "kinds"):
        raise BadInput(TWICE)
    if request.POST.get("do", "") not in ACTS:
        raise BadInput(BROKEN)
    kind, act = ACTS[request.POST["do"]]
    return kind(request.POST, auto_id=f"{request.POST['do']}-%s"), act


def _must_be_valid(form: forms.Form) -> None:
    if form.is_valid():
        return
    if not isinstance(form, AddForm):
        raise BadInput(BROKEN)
    told = " ".join(f"{form.fields[name].label}: {found[0]}" for name, found in form.errors.items())
    raise BadInput(f"Nothing was changed. {told}")


def _here(
    request: HttpRequest,
    environment: Environment,
    form: AddForm | None = None,
    *,
    refusal: str = "",
    told: str = "",
    secret: str = "",
    status: int = 200,
) -> HttpResponse:
    context: dict[str, Any] = {
        "environment": environment,
        "page": notices_page(environment),
        "kinds": KINDS,
        "add": form or AddForm(auto_id="add-%s", initial={"kinds": [str(Kind.DOUBT)]}),
        "typed": form is not None,
        "refusal": refusal,
        "told": told,
        "secret": secret,
        "no_mail": settings.EMAIL_BACKEND == NO_MAIL,
    }
    return render(request, HERE, context, status=status)
