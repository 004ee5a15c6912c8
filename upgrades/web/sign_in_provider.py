"""Sign-in at the organisation's OpenID Connect provider: code flow with PKCE, state and nonce.

A person is known by the provider's `sub`, never by a mail address or a name that the provider lets people choose.
Whoever comes for the first time gets an account without any role; groups become roles only through the table that
administrators keep here (services/members.py).
"""

from __future__ import annotations

import logging
import os
import re
import time
from typing import Any, cast

import jwt
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp
from allauth.socialaccount.providers.base.constants import AuthProcess
from allauth.socialaccount.providers.oauth2.client import OAuth2Client, OAuth2Error
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import AbstractUser
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from requests import RequestException, Response, Session

from upgrades.services.members import one_spelling

PROVIDER = "provider"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY = 30  # seconds by which clocks may differ
MOST_GROUPS = 500
MOST_BYTES, READ_AT_ONCE = 1024 * 1024, 64 * 1024  # of an answer of the provider

logger = logging.getLogger(__name__)


def nonce_of(state: str) -> str:
    """The nonce that belongs to a state: who has no part in the session cannot make either."""
    return salted_hmac("upgrades.web.sign_in_provider.nonce", state, algorithm="sha256").hexdigest()


class NonceClient(OAuth2Client):  # type: ignore[misc]  # allauth has no types
    """Adds the nonce to what is asked of the provider."""

    def get_redirect_url(self, authorization_url: str, scope: Any, extra_params: dict[str, Any]) -> str:
        extra_params = {**extra_params, "nonce": nonce_of(str(self.state))}
        return str(super().get_redirect_url(authorization_url, scope, extra_params))


class Adapter(OpenIDConnectOAuth2Adapter):  # type: ignore[misc]
    """Reads the id token with the provider's keys, always, and believes it only for the sign-in that was begun here."""

    client_class = NonceClient

    def _decode_id_token(self, app: SocialApp, id_token: str) -> dict[str, Any]:
        config = self.openid_config
        if config["issuer"].rstrip("/") != app.settings["server_url"].rstrip("/"):
            raise OAuth2Error("The provider names another issuer than OIDC_ISSUER.")
        keys = jwt.PyJWKSet.from_dict(self._keys(config["jwks_uri"]))
        kid = jwt.get_unverified_header(id_token).get("kid")
        key = next((one for one in keys.keys if kid is None or one.key_id == kid), None)
        if key is None:
            raise OAuth2Error("The id token is signed with a key that the provider does not publish.")
        claims: dict[str, Any] = jwt.decode(
            id_token,
            key=key,
            algorithms=[name for name in ALGORITHMS if name == key.algorithm_name],
            issuer=config["issuer"],
            audience=app.client_id,
            leeway=LEEWAY,
            options={"require": ["iss", "aud", "exp", "iat", "sub"]},
        )
        if claims.get("azp", app.client_id) != app.client_id:
            raise OAuth2Error("The id token was made for another application.")
        nonce = nonce_of(self.request.GET.get("state", ""))
        if not constant_time_compare(str(claims.get("nonce", "")), nonce):
            raise OAuth2Error("The id token belongs to another sign-in.")
        return claims

    def _keys(self, url: str) -> dict[str, Any]:
        with ProviderAdapter().get_requests_session() as session:
            answer = session.get(url)
            answer.raise_for_status()
            return cast(dict[str, Any], answer.json())

    def complete_login(self, request: HttpRequest, app: SocialApp, token: Any, **given: Any) -> Any:
        """As allauth's; without an id token nobody is signed in, and user info counts only for the same `sub`."""
        try:
            login = super().complete_login(request, app, token, **given)
        except (jwt.PyJWTError, KeyError, ValueError) as mistake:
            raise OAuth2Error(f"The provider's answer cannot be used: {mistake}") from mistake
        claims = login.account.extra_data.get("id_token")
        told = login.account.extra_data.get("userinfo", {})
        if not claims or told.get("sub", claims["sub"]) != claims["sub"]:
            raise OAuth2Error("The provider's answer does not say who signed in.")
        return login


class Provider(OpenIDConnectProvider):  # type: ignore[misc]
    oauth2_adapter_class = Adapter

    def extract_email_addresses(self, data: dict[str, Any]) -> list[Any]:  # noqa: ARG002
        return []  # a mail address says nothing about who somebody is here


class ProviderAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """Who may come in through the provider, and what is taken over from it."""

    def get_provider(self, request: HttpRequest, provider: str, client_id: str | None = None) -> Provider:
        return Provider(request, app=self.get_app(request, provider=provider, client_id=client_id))

    def get_requests_session(self) -> Session:
        """For all that is asked of the provider: it is asked itself, no proxy of the environment, and its answer bounded.

        What the environment says of trusted authorities counts all the same: many a provider has one of the site's own.
        """
        session: Session = super().get_requests_session()
        session.trust_env = False
        session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        session.hooks["response"].append(_taken)
        return session

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:  # noqa: ARG002
        return True  # without a role an account opens nothing

    def is_auto_signup_allowed(self, request: HttpRequest, sociallogin: Any) -> bool:  # noqa: ARG002
        return True

    def populate_user(self, request: HttpRequest, sociallogin: Any, data: dict[str, Any]) -> AbstractUser:
        """Names for people to read; two accounts never share one, whatever the provider says."""
        user = cast(AbstractUser, super().populate_user(request, sociallogin, {**data, "email": ""}))
        wished = re.sub(r"[^\w.+-]", "", one_spelling(str(data.get("username") or data.get("name") or "")))
        user.username = wished[:100] or "person"
        user.first_name, user.last_name = user.first_name[:150], user.last_name[:150]
        return user

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        """Refuse accounts that are shut, before anything begins."""
        if sociallogin.is_existing and not sociallogin.user.is_active:
            raise ImmediateHttpResponse(failed(request))


def _taken(answer: Response, **_: Any) -> None:
    """Reads the answer before requests does, up to a bound. A redirection is no answer."""
    if answer.is_redirect:
        raise _not_taken(
            answer, "a redirection, which is not followed: OIDC_ISSUER has to be the provider's own address"
        )
    body = bytearray()
    for piece in answer.iter_content(READ_AT_ONCE):
        body += piece
        if len(body) > MOST_BYTES:
            raise _not_taken(answer, f"longer than {MOST_BYTES} bytes")
    answer._content = bytes(body)  # where requests keeps what was read


def _not_taken(answer: Response, why: str) -> RequestException:
    """The page tells no details, so the log does."""
    logger.warning("Nobody signs in through the provider: what %s answers is %s.", answer.url, why)
    return RequestException(f"The provider's answer is {why}.")


def is_set_up() -> bool:
    """Whether the settings name a provider."""
    return bool(settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"])


def provider_name() -> str:
    """What people call the provider; empty without one."""
    apps = settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"]
    return str(apps[0]["name"]) if apps else ""


def groups_in(account: Any) -> list[str]:
    """The groups that the provider told at this sign-in."""
    for source in ("id_token", "userinfo"):
        groups = account.extra_data.get(source, {}).get(settings.OIDC_GROUPS_CLAIM)
        if isinstance(groups, list):
            return [group for group in groups[:MOST_GROUPS] if isinstance(group, str)]
    return []


def signed_in_at(account: Any) -> float:
    """When the provider last asked for a password or more, as it says; 0 where it does not say."""
    at = account.extra_data.get("id_token", {}).get("auth_time", 0)
    return float(at) if isinstance(at, int | float) and at <= time.time() + LEEWAY else 0.0


@login_not_required
@require_POST
@never_cache
def begin(request: HttpRequest) -> HttpResponse:
    """Sends the browser to the provider. Whoever is signed in already has to show there anew who they are.

    The answer is a page that leads on, not a redirect: `form-action 'self'` would stop a form that ends elsewhere.
    """
    if not is_set_up():
        raise Http404("No provider is set up.")
    wished = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(wished, {request.get_host()}, require_https=request.is_secure())
    again = {"prompt": "login", "max_age": "0"} if request.user.is_authenticated else {}
    provider = ProviderAdapter().get_provider(request, PROVIDER)
    try:
        answer = provider.redirect(
            request, AuthProcess.LOGIN, next_url=wished if safe else "/", auth_params=again
        )
    except (OAuth2Error, RequestException, KeyError, ValueError):
        return failed(request, status=503)
    if not isinstance(answer, HttpResponseRedirect):
        return cast(HttpResponse, answer)
    return render(
        request, "upgrades/sign_in/going_on.html", {"address": answer.url, "provider": provider.name}
    )


@login_not_required
@require_safe
@never_cache
def callback(request: HttpRequest, provider_id: str) -> HttpResponse:
    """Where the provider sends the browser back to."""
    if provider_id != PROVIDER or not is_set_up():
        raise Http404("No such provider is set up.")
    return cast(HttpResponse, OAuth2CallbackView.adapter_view(Adapter(request, provider_id))(request))


@login_not_required
@require_safe
@never_cache
def cancelled(request: HttpRequest) -> HttpResponse:
    """The person broke off at the provider."""
    return failed(request, status=200)


def failed(request: HttpRequest, status: int = 403) -> HttpResponse:
    """What went wrong at the provider, and what to do now; details are in the log only."""
    return render(
        request, "upgrades/sign_in/provider_failed.html", {"provider": provider_name()}, status=status
    )
