"""Signing in and out, and what those get who are not signed in."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.contrib.auth import views
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

LONGEST_PASSWORD = 128  # a longer one would only keep the hasher busy


class SignInForm(AuthenticationForm):
    """Says one and the same thing whatever was wrong, so that nobody learns which names there are."""

    password = forms.CharField(
        label="Password",
        strip=False,
        max_length=LONGEST_PASSWORD,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    error_messages = {  # noqa: RUF012 - Django's own form
        "invalid_login": "Name and password do not fit together. Check both; capital and small letters count.",
        "inactive": "Name and password do not fit together. Check both; capital and small letters count.",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].label = "Name"


class SignIn(views.LoginView):
    """A page of its own for every wish to sign in; `next` is followed only within this site."""

    authentication_form = SignInForm
    template_name = "upgrades/sign_in/show.html"
    redirect_authenticated_user = True


sign_out = views.LogoutView.as_view()


class SignInRequired(LoginRequiredMiddleware):
    """Sends pages to sign in and back. A fragment gets 401 instead: a sign-in page must never land inside a page."""

    def handle_no_permission(  # type: ignore[override]  # Django itself takes any response
        self, request: HttpRequest, view_func: Any
    ) -> HttpResponseBase:
        if request.headers.get("HX-Request") != "true":
            return super().handle_no_permission(request, view_func)
        return HttpResponse(status=401, headers={"HX-Redirect": _sign_in_for(request)})


def _sign_in_for(request: HttpRequest) -> str:
    """The sign-in that leads back to the page that a fragment or an act belongs to: the address one level up."""
    page = request.path.rstrip("/").rpartition("/")[0] + "/"
    return f"{settings.LOGIN_URL}?{urlencode({'next': page})}"
