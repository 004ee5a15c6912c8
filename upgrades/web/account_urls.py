"""The addresses of one's own account. Their names are allauth's, which leads from page to page by them.

Only what Runbook uses has an address: no sign-up, no mail addresses, no reset by mail.
"""

from allauth.decorators import rate_limit
from allauth.mfa.base.views import authenticate
from allauth.mfa.recovery_codes.views import generate_recovery_codes, view_recovery_codes
from allauth.mfa.totp.views import deactivate_totp
from allauth.mfa.webauthn.views import remove_webauthn
from django.urls import URLPattern, URLResolver, path

from upgrades.web import notices, sign_in, sign_in_provider, tokens

urlpatterns: list[URLPattern | URLResolver] = [
    path("sign-in/", sign_in.SignIn.as_view(), name="account_login"),
    path("sign-in/second-factor/", authenticate, name="mfa_authenticate"),
    path("sign-in/passkey/", sign_in.SignInByPasskey.as_view(), name="mfa_login_webauthn"),
    path("sign-in/provider/", sign_in_provider.begin, name="begin-provider"),
    path("sign-in/provider/cancelled/", sign_in_provider.cancelled, name="socialaccount_login_cancelled"),
    path(
        "sign-in/provider/<slug:provider_id>/callback/",
        sign_in_provider.callback,
        name="openid_connect_callback",
    ),
    path("account/", sign_in.account, name="account"),
    path("account/", sign_in.account, name="mfa_index"),
    path("account/", sign_in.account, name="mfa_list_webauthn"),
    path("account/notices/", notices.show_mine, name="account-notices"),
    path("account/tokens/", tokens.show_tokens, name="tokens"),
    path("account/tokens/<int:token_id>/revoke/", tokens.revoke_token, name="revoke-token"),
    path("account/sessions/end/", sign_in.end_sessions, name="end-sessions"),
    path("account/confirm/", sign_in.PasswordAgain.as_view(), name="account_reauthenticate"),
    path("account/confirm/code/", sign_in.CodeAgain.as_view(), name="mfa_reauthenticate"),
    path("account/confirm/passkey/", sign_in.PasskeyAgain.as_view(), name="mfa_reauthenticate_webauthn"),
    path(
        "account/password/",
        rate_limit(action="change_password")(sign_in.NewPassword.as_view()),
        name="account_change_password",
    ),
    path("account/authenticator/", sign_in.NewAuthenticator.as_view(), name="mfa_activate_totp"),
    path("account/authenticator/remove/", deactivate_totp, name="mfa_deactivate_totp"),
    path("account/recovery-codes/", view_recovery_codes, name="mfa_view_recovery_codes"),
    path("account/recovery-codes/new/", generate_recovery_codes, name="mfa_generate_recovery_codes"),
    path("account/passkeys/new/", sign_in.NewPasskey.as_view(), name="mfa_add_webauthn"),
    path("account/passkeys/<int:pk>/remove/", remove_webauthn, name="mfa_remove_webauthn"),
]
