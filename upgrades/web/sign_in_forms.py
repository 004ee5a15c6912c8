"""The forms of sign-in: what is asked, and what is refused before anything is looked up or hashed."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from allauth.account.forms import ChangePasswordForm, LoginForm, ReauthenticateForm
from allauth.mfa.base.forms import AuthenticateForm
from allauth.mfa.base.forms import ReauthenticateForm as FactorAgainForm
from allauth.mfa.totp.forms import ActivateTOTPForm
from django import forms
from django.contrib.auth.models import AbstractUser
from django.contrib.auth.password_validation import validate_password
from django.core.cache import cache
from django.core.exceptions import ValidationError

from upgrades.services.members import one_spelling

LONGEST_PASSWORD = 128  # a longer one would only keep the hasher busy
WRONG_CODE = "This code is not right, or was used before. Wait for the next one and enter that."
CODE_REMEMBERED = 120  # seconds: longer than the three periods in which a code could be right


def _password(label: str, autocomplete: str, help_text: str = "") -> forms.CharField:
    return forms.CharField(
        label=label,
        help_text=help_text,
        strip=False,
        max_length=LONGEST_PASSWORD,
        widget=forms.PasswordInput(attrs={"autocomplete": autocomplete}),
    )


class SignInForm(LoginForm):  # type: ignore[misc]  # allauth has no types
    """Name and password. Whatever was wrong, the answer is one and the same."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        widget = forms.TextInput(attrs={"autocomplete": "username webauthn", "autocapitalize": "none"})
        self.fields["login"] = forms.CharField(label="Name", max_length=150, widget=widget)
        self.fields["password"] = _password("Password", "current-password")

    def add_prefix(self, field_name: str) -> str:
        """The page calls the field `username`, as browsers and password stores expect."""
        return "username" if field_name == "login" else str(super().add_prefix(field_name))

    def clean_login(self) -> str:
        return one_spelling(self.cleaned_data["login"])


class PasswordAgainForm(ReauthenticateForm):  # type: ignore[misc]
    """The password of whoever is signed in."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fields["password"] = _password("Password", "current-password")


class NewPasswordForm(ChangePasswordForm):  # type: ignore[misc]
    """The present password once, the new one twice."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        help_text = "15 characters or more. Four words that do not belong together are easy to keep in mind."
        self.fields["oldpassword"] = _password("Present password", "current-password")
        self.fields["password1"] = _password("New password", "new-password", help_text)
        self.fields["password2"] = _password("New password once more", "new-password")

    def clean_password1(self) -> str:
        password = str(self.cleaned_data["password1"])
        validate_password(password, self.user)
        return password


class _Code(forms.Form):
    """A code of an authenticator app, or a recovery code: ASCII digits, good once."""

    user: Any

    def clean_code(self) -> str:
        code = re.sub(r"[ -]", "", self.cleaned_data["code"])
        if not re.fullmatch(r"[0-9]{6,8}", code, re.ASCII):
            raise ValidationError(WRONG_CODE)
        # A code stays right for the time of three periods, and is taken once in it, whoever tries it when.
        if not cache.add(f"code:{self.user.pk}:{code}", True, CODE_REMEMBERED):
            raise ValidationError(WRONG_CODE)
        self.cleaned_data["code"] = code
        try:
            return str(super().clean_code())  # type: ignore[misc]
        except ValidationError as refusal:
            raise ValidationError(
                WRONG_CODE if refusal.code == "incorrect_code" else refusal.messages
            ) from None


def _code_field(help_text: str) -> forms.CharField:
    attributes = {"autocomplete": "one-time-code", "inputmode": "numeric", "autofocus": True}
    return forms.CharField(
        label="Code", max_length=20, help_text=help_text, widget=forms.TextInput(attrs=attributes)
    )


class CodeForm(_Code, AuthenticateForm):  # type: ignore[misc]
    code = _code_field("Six digits of your authenticator app, or one of your recovery codes.")


class CodeAgainForm(_Code, FactorAgainForm):  # type: ignore[misc]
    code = _code_field("Six digits of your authenticator app, or one of your recovery codes.")


class FirstCodeForm(_Code, ActivateTOTPForm):  # type: ignore[misc]
    code = _code_field("The six digits that your app shows for Runbook now.")


# What stands on every list of tried passwords for a product like this one, beside Django's list of common ones.
_CONTEXT = ("runbook", "genesys", "framework", "configserver", "upgrade", "password", "operator", "approver")


class NoEasyPattern:
    """Refuses long passwords that are short ones in truth: repeated, counted through, or words of this place."""

    def validate(self, password: str, user: AbstractUser | None = None) -> None:  # noqa: ARG002 - Django's signature
        text = password.casefold()
        if len(set(text)) < 6 or _repeats(text) or _counts(text):
            raise ValidationError("This password is a pattern. Take four words that do not belong together.")
        for word in _CONTEXT:
            text = text.replace(word, "")
        if len(text) < 8:
            raise ValidationError(
                "This password is made of words that everybody tries here first. Take others."
            )

    def get_help_text(self) -> str:
        return "No pattern, and not made of the words of this place."


def _repeats(text: str) -> bool:
    """Whether a piece of up to a third of the text, said again and again, is the text."""
    return any((text[:size] * len(text))[: len(text)] == text for size in range(1, len(text) // 3 + 1))


def _counts(text: str) -> bool:
    """Whether most neighbours follow each other, as in 123456 or abcdef, forwards or backwards."""
    steps = [ord(after) - ord(before) for before, after in pairwise(text)]
    return max(steps.count(1), steps.count(-1)) > len(text) // 2
