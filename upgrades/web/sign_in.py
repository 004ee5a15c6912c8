"""Signing in and out, staying signed in, showing who one is again, and one's own account.

django-allauth does the work (docs/adr/0006-sign-in.md); here stand our rules around it and the pages.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any, cast
from urllib.parse import urlencode
from uuid import uuid4

import qrcode
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.reauthentication import STATE_SESSION_KEY
from allauth.account.signals import password_changed
from allauth.account.signals import user_logged_in as came_in
from allauth.account.views import LoginView, PasswordChangeView, ReauthenticateView
from allauth.core import context
from allauth.core.internal.httpkit import get_client_ip
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.base.views import ReauthenticateView as CodeAgainView
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import generate_totp_secret
from allauth.mfa.totp.views import ActivateTOTPView
from allauth.mfa.webauthn.views import AddWebAuthnView, LoginWebAuthnView, ReauthenticateWebAuthnView
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import SESSION_KEY, logout
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.models import AbstractUser
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.dispatch import receiver
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import resolve, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from upgrades.services import members, sign_in
from upgrades.services.sign_in import Proof
from upgrades.web import sign_in_provider

logger = logging.getLogger(__name__)

WRONG = "Name and password do not fit together. Check both; capital and small letters of the password count."
TOO_MANY = "There were too many wrong attempts for this name or from this address. Wait 15 minutes, or sign in with a passkey."
SHUT = "This account is shut, so nobody is signed in. An administrator of Runbook can open it again."
BEGAN, USED, FACTOR, AUTH_TIME = "signed_in_at", "used_at", "second_factor", "provider_auth_time"
# Pages fetch these by themselves. An empty chair does not keep a session alive.
BY_THE_PAGE = frozenset(
    {
        "run-board",
        "run-presence",
        "environment-board",
        "approvals-board",
        "approvals-count",
        "status-board",
    }
)
# What a person without a second factor reaches while one is required: the way to one, and out.
ON_THE_WAY = frozenset(
    {
        "account",
        "account_reauthenticate",
        "account_change_password",
        "mfa_index",
        "mfa_activate_totp",
        "mfa_add_webauthn",
        "mfa_list_webauthn",
        "mfa_view_recovery_codes",
        "mfa_generate_recovery_codes",
        "sign-out",
    }
)


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth has no types
    """No sign-up; one answer to whatever was wrong; a second factor, where there is one, is what proves."""

    error_messages = DefaultAccountAdapter.error_messages | {
        "username_password_mismatch": WRONG,
        "too_many_login_attempts": TOO_MANY,
        "rate_limited": TOO_MANY,
        "incorrect_password": "This is not your password. Try again.",
        "enter_current_password": "This is not your present password.",
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False

    def authenticate(self, request: HttpRequest, **credentials: Any) -> AbstractUser | None:
        """An account that is shut is answered like one that is not there."""
        user = super().authenticate(request, **credentials)
        return cast(AbstractUser, user) if user is not None and user.is_active else None

    def is_safe_url(self, url: str) -> bool:
        """Within the site that is asked. allauth takes all of ALLOWED_HOSTS, and loopback always stands there."""
        request = context.request
        return url_has_allowed_host_and_scheme(url, {request.get_host()}, require_https=request.is_secure())

    def _get_login_attempts_cache_key(self, request: HttpRequest, **given: Any) -> str:  # noqa: ARG002
        """One count per name. allauth's is per host too, and whoever asks may write any port behind the host."""
        return str(given.get("username", "")).lower()

    def respond_user_inactive(self, request: HttpRequest, user: Any) -> HttpResponse:  # noqa: ARG002
        """Only a passkey comes this far, and whoever has it may know."""
        messages.error(request, SHUT)
        return HttpResponseRedirect(settings.LOGIN_URL)

    def get_reauthentication_methods(self, user: Any) -> list[dict[str, Any]]:
        methods: list[dict[str, Any]] = super().get_reauthentication_methods(user)
        factors = [method for method in methods if method["id"] != "reauthenticate"]
        # A passkey first: nobody can be talked into telling it.
        return sorted(factors, key=lambda method: method["id"] != "mfa_reauthenticate:webauthn") or methods

    def send_notification_mail(
        self, template_prefix: str, user: Any, context: dict[str, Any] | None = None, email: str | None = None
    ) -> None:
        """Tell a changed password or factor to the account's own address: allauth looks into a list of its own, which has
        none before somebody signed in with it, and an old one after a change. A mail server that is away stops no change.
        """
        address = email or user.email
        if not address:
            return
        try:
            super().send_notification_mail(template_prefix, user, context, address)
        except OSError as trouble:
            logger.warning("user:%s: %s could not be told by mail: %s", user.pk, template_prefix, trouble)

    def get_client_ip(self, request: HttpRequest) -> str:
        return get_client_ip(request) or "0.0.0.0"  # noqa: S104 - the sign of an address that is not known


class FactorAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Secrets of authenticator apps lie encrypted: the database alone is not enough to make codes."""

    error_messages = DefaultMFAAdapter.error_messages | {
        "incorrect_code": "That did not work. Try again, or take another way.",
        "cannot_delete_authenticator": "A second factor is required here. Set up another one first.",
    }

    def encrypt(self, text: str) -> str:
        return _factor_box(settings.SECRET_KEY).encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """The secret; where neither SECRET_KEY nor the one before opens it, one that nobody has, so that no code is right.

        Not an empty one: the codes of that could be reckoned by anybody.
        """
        boxes = [_factor_box(key) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)]
        try:
            return MultiFernet(boxes).decrypt(encrypted_text.encode()).decode()
        except InvalidToken:
            return str(generate_totp_secret())

    def can_delete_authenticator(self, authenticator: Authenticator) -> bool:
        if settings.SECOND_FACTOR != "required":
            return True
        kinds = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)
        others = Authenticator.objects.filter(user_id=authenticator.user_id, type__in=kinds)
        return bool(others.exclude(pk=authenticator.pk).exists())

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        return {**super().get_public_key_credential_rp_entity(), "name": "Runbook"}


@cache
def _factor_box(secret: str) -> Fernet:
    derived = HKDF(hashes.SHA256(), length=32, salt=None, info=b"runbook second factors").derive(
        secret.encode()
    )
    return Fernet(base64.urlsafe_b64encode(derived))


# Signing in and out.


class SignIn(LoginView):  # type: ignore[misc]
    """A page of its own for every wish to sign in; `next` is followed only within this site."""

    template_name = "upgrades/sign_in/show.html"

    def get_context_data(self, **more: Any) -> dict[str, Any]:
        context = super().get_context_data(**more)
        return {**context, "next": self.get_success_url() or "", "provider": sign_in_provider.provider_name()}


class SignInByPasskey(LoginWebAuthnView):  # type: ignore[misc]
    """Name and second factor in one. GET answers the challenge to a script only."""


@require_POST
@never_cache
def sign_out(request: HttpRequest) -> HttpResponse:
    """Ends the session, here and in the browser's stores."""
    logout(request)
    response = HttpResponseRedirect(settings.LOGOUT_REDIRECT_URL)
    response.headers["Clear-Site-Data"] = '"cache", "cookies", "storage"'
    return response


class SignInRequired(LoginRequiredMiddleware):
    """Sends pages to sign in and back. A fragment gets 401 instead: a sign-in page must never land inside a page."""

    def handle_no_permission(  # type: ignore[override]  # Django itself takes any response
        self, request: HttpRequest, view_func: Any
    ) -> HttpResponseBase:
        if request.headers.get("HX-Request") != "true":
            return super().handle_no_permission(request, view_func)
        return HttpResponse(status=401, headers={"HX-Redirect": _sign_in_for(request)})


def _page_of(request: HttpRequest) -> str:
    """The page that a fragment or an act belongs to: the address one level up."""
    return request.path.rstrip("/").rpartition("/")[0] + "/"


def _sign_in_for(request: HttpRequest) -> str:
    return f"{settings.LOGIN_URL}?{urlencode({'next': _page_of(request)})}"


# Sessions.


class SessionRules:
    """Ends a session that is too old or was not used, and sends on to a second factor where one is required."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self,
        request: HttpRequest,
        _view: Any,
        _arguments: Any,
        _named: Any,
    ) -> HttpResponse | None:
        if settings.SESSION_COOKIE_NAME not in request.COOKIES or SESSION_KEY not in request.session:
            return None
        now = time.time()
        if _is_over(request.session, now):
            logout(request)
            return None
        match = request.resolver_match
        name = match.url_name if match else ""
        if name not in BY_THE_PAGE and now - request.session[USED] > sign_in.SEEN_EVERY.total_seconds():
            request.session[USED] = now
            sign_in.session_used(request.session.session_key or "")
        if settings.SECOND_FACTOR == "required" and name not in ON_THE_WAY and not _has_factor(request):
            return _send_to(request, reverse("account"))
        return None


def _is_over(session: Any, now: float) -> bool:
    """A session of an earlier release has no times; it is over too."""
    began, used = session.get(BEGAN, 0.0), session.get(USED, 0.0)
    return bool(now - began > settings.SESSION_COOKIE_AGE or now - used > settings.IDLE_MINUTES * 60)


def _has_factor(request: HttpRequest) -> bool:
    """Looked up until there is one; whoever comes from the provider has theirs there."""
    if not request.session.get(FACTOR):
        user = cast(AbstractUser, request.user)
        records = get_authentication_records(request, user)
        outside = any(record["method"] == "socialaccount" for record in records)
        if not (outside or sign_in.has_second_factor(user)):
            return False
        request.session[FACTOR] = True
    return True


def _send_to(request: HttpRequest, address: str) -> HttpResponse:
    if request.headers.get("HX-Request") == "true":
        return HttpResponse(status=401, headers={"HX-Redirect": address})
    return HttpResponseRedirect(address, status=303 if request.method == "POST" else 302)


@receiver(user_logged_in)
def _session_began(request: HttpRequest, user: AbstractUser, **_: Any) -> None:
    request.session[BEGAN] = request.session[USED] = time.time()
    request.session.pop(FACTOR, None)
    _list_session(request, user)


def _list_session(request: HttpRequest, user: AbstractUser) -> None:
    if not request.session.session_key:
        request.session.save()
    sign_in.session_began(
        user,
        str(request.session.session_key),
        address=AccountAdapter(request).get_client_ip(request),
        browser=request.META.get("HTTP_USER_AGENT", ""),
    )


@receiver(user_logged_out)
def _session_ended(request: HttpRequest, user: AbstractUser | None, **_: Any) -> None:
    sign_in.session_ended(user, request.session.session_key)


@receiver(password_changed)
def _password_changed(request: HttpRequest, user: AbstractUser, **_: Any) -> None:
    """Whoever knew the old password is out, wherever they are; this session goes on under a new key."""
    sign_in.end_sessions(user, but=request.session.session_key or "")
    _list_session(request, user)


@receiver(came_in)
def _came_in(request: HttpRequest, user: AbstractUser, **more: Any) -> None:
    """What only a sign-in at the provider brings: groups, and when the provider last asked who it is."""
    login = more.get("sociallogin")
    if login is not None:
        request.session[AUTH_TIME] = sign_in_provider.signed_in_at(login.account)
        members.follow_groups(user, sign_in_provider.groups_in(login.account))


# Showing who one is, once more.

_KIND = {"totp": "code", "recovery_codes": "code", "webauthn": "passkey"}


def proof_of(request: HttpRequest) -> Proof | None:
    """The newest proof of this session that its person is there; of two made at once, the stronger one."""
    user = cast(AbstractUser, request.user)
    for record in reversed(get_authentication_records(request, user)):
        at, kind = record["at"], _KIND.get(record.get("type", ""), "password")
        if record["method"] == "socialaccount":
            at, kind = request.session.get(AUTH_TIME, 0.0), "provider"
        return Proof(kind, user.pk, datetime.fromtimestamp(at, UTC))
    return None


def ask_again(request: HttpRequest, *, what: str, page: str) -> HttpResponse:
    """Keeps the act of this request, asks who it is, and then carries the act out; `page` is where it came from.

    The act is bound to the one address that the answer leads to: showing who one is for something else drops it.
    """
    mark = f"{page}?{urlencode({'asked': uuid4().hex})}"
    kept = {"path": request.path, "fields": request.POST.urlencode()}
    request.session[STATE_SESSION_KEY] = {
        "state": {**kept, "mark": mark, "what": what, "page": page},
        "callback": "upgrades.web.sign_in.go_on",
    }
    methods = AccountAdapter(request).get_reauthentication_methods(request.user)
    address = methods[0]["url"] if methods else reverse("account_reauthenticate")
    return _send_to(request, f"{address}?{urlencode({'next': mark})}")


def go_on(request: HttpRequest, state: dict[str, Any]) -> HttpResponse:
    """The kept act, if this is what was asked for. allauth calls it once its person has shown who they are."""
    wished = request.POST.get("next") or request.GET.get("next") or ""
    if wished != state["mark"]:
        return HttpResponseRedirect(reverse("account"), status=303)
    request.POST = QueryDict(state["fields"])  # what its person had sent
    request.GET = QueryDict()
    request.path = request.path_info = state["path"]
    match = request.resolver_match = resolve(state["path"])
    return cast(HttpResponse, match.func(request, *match.args, **match.kwargs))


def _waiting(request: HttpRequest) -> dict[str, Any]:
    """Where the answer leads to, and what waits for it there."""
    state = request.session.get(STATE_SESSION_KEY, {}).get("state", {})
    wished = request.POST.get("next") or request.GET.get("next") or ""
    asked = state if state.get("mark") == wished else {}
    return {
        "next": wished,
        "asked": asked.get("what", ""),
        "back": asked.get("page", ""),
        "provider": sign_in_provider.provider_name(),
    }


class _Asked:
    """Says on the page what waits for the answer."""

    request: HttpRequest

    def get_context_data(self, **more: Any) -> dict[str, Any]:
        return {**super().get_context_data(**more), **_waiting(self.request)}  # type: ignore[misc]


class PasswordAgain(_Asked, ReauthenticateView):  # type: ignore[misc]
    template_name = "upgrades/sign_in/password_again.html"

    def dispatch(self, request: HttpRequest, *arguments: Any, **named: Any) -> HttpResponse:
        """Who has no password here is led to the provider, which asks."""
        if cast(AbstractUser, request.user).has_usable_password():
            return cast(HttpResponse, super().dispatch(request, *arguments, **named))
        return render(request, "upgrades/sign_in/provider_again.html", _waiting(request))


class CodeAgain(_Asked, CodeAgainView):  # type: ignore[misc]
    template_name = "upgrades/sign_in/code_again.html"


class PasskeyAgain(_Asked, ReauthenticateWebAuthnView):  # type: ignore[misc]
    template_name = "upgrades/sign_in/passkey_again.html"

    def form_invalid(self, form: Any) -> HttpResponse:
        return cast(HttpResponse, self.render_to_response(self.get_context_data(form=form)))


# The account.


@require_safe
def account(request: HttpRequest) -> HttpResponse:
    """How this person signs in, and where they are signed in now."""
    user = cast(AbstractUser, request.user)
    factors = list(Authenticator.objects.filter(user_id=user.pk).order_by("created_at"))
    context = {
        "passkeys": [factor for factor in factors if factor.type == Authenticator.Type.WEBAUTHN],
        "totp": next((factor for factor in factors if factor.type == Authenticator.Type.TOTP), None),
        "codes": next((f.wrap() for f in factors if f.type == Authenticator.Type.RECOVERY_CODES), None),
        "has_password": user.has_usable_password(),
        "wants_factor": settings.SECOND_FACTOR == "required" and not _has_factor(request),
        "provider": sign_in_provider.provider_name(),
        "sessions": sign_in.sessions_of(user),
        "this_session": request.session.session_key,
        "memberships": user.memberships.select_related("environment").order_by("environment__name", "role"),  # type: ignore[attr-defined]
    }
    return render(request, "upgrades/sign_in/account.html", context)


@require_http_methods(["POST"])
def end_sessions(request: HttpRequest) -> HttpResponse:
    """End one session of one's own, or all but this one."""
    user, here = cast(AbstractUser, request.user), request.session.session_key or ""
    wished = request.POST.get("session", "")
    only = int(wished) if wished.isascii() and wished.isdigit() and len(wished) < 19 else None
    if wished and only is None:
        return HttpResponseRedirect(reverse("account"), status=303)
    ended = sign_in.end_sessions(user, only=only, but=here)
    text = (
        f"Signed out in {ended} other place{'s' if ended != 1 else ''}."
        if ended
        else "That session was over already."
    )
    messages.success(request, text)
    return HttpResponseRedirect(reverse("account"), status=303)


class NewPassword(PasswordChangeView):  # type: ignore[misc]
    """A new password, by whoever knows the present one."""

    template_name = "upgrades/sign_in/new_password.html"

    def dispatch(self, request: HttpRequest, *arguments: Any, **named: Any) -> HttpResponse:
        if not cast(AbstractUser, request.user).has_usable_password():
            raise Http404("This account has no password.")
        return cast(HttpResponse, super().dispatch(request, *arguments, **named))

    def get_default_success_url(self) -> str:
        return reverse("account")


class _JustSignedIn:
    """For whoever has nothing here that could be asked for: a factor is added soon after they have signed in.

    allauth asks the others for what they have, and lets these pass. Who finds a session of this morning would add
    a passkey of their own to it, and prove with that.
    """

    def dispatch(self, request: HttpRequest, *arguments: Any, **named: Any) -> HttpResponse:
        asked_for = AccountAdapter(request).get_reauthentication_methods(request.user)
        if not asked_for and time.time() - _signed_in_at(request) > settings.PROOF_SECONDS:
            address = reverse("account_reauthenticate")
            return _send_to(request, f"{address}?{urlencode({'next': request.path})}")
        return cast(HttpResponse, super().dispatch(request, *arguments, **named))  # type: ignore[misc]


def _signed_in_at(request: HttpRequest) -> float:
    """When this session's person signed in last: as the provider says, else when they came from there."""
    records = get_authentication_records(request, cast(AbstractUser, request.user))
    if not records:
        return 0.0
    told = request.session.get(AUTH_TIME) if records[-1]["method"] == "socialaccount" else None
    return float(told or records[-1]["at"])


class NewPasskey(_JustSignedIn, AddWebAuthnView):  # type: ignore[misc]
    """A passkey, made by the browser."""


class NewAuthenticator(_JustSignedIn, ActivateTOTPView):  # type: ignore[misc]
    """An authenticator app: its secret as a picture and as text, then the first code."""

    template_name = "upgrades/sign_in/new_authenticator.html"

    def get_context_data(self, **more: Any) -> dict[str, Any]:
        context = super().get_context_data(**more)
        path, size = _qr(context["totp_url"])
        return {**context, "qr_path": path, "qr_size": size, "secret": context["form"].secret}


def _qr(text: str) -> tuple[str, int]:
    """A QR code as an SVG path of unit squares, and its width with the quiet border."""
    code = qrcode.QRCode(border=4)
    code.add_data(text)
    rows = code.get_matrix()
    squares = (f"M{x} {y}h1v1h-1z" for y, row in enumerate(rows) for x, dark in enumerate(row) if dark)
    return "".join(squares), len(rows)
