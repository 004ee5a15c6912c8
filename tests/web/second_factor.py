"""An authenticator app for tests: its secret in the account, its codes as a phone would show them."""

import time

from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, generate_totp_secret, hotp_value


def set_up_app(user):
    """Give the account an authenticator app; its secret."""
    secret = generate_totp_secret()
    TOTP.activate(user, secret)
    return secret


def codes_of(secret, *, at=None):
    """The codes of now, of the period before and of the one two periods before."""
    counter = int((at or time.time()) // 30)
    return [format_hotp_value(hotp_value(secret, counter - back)) for back in range(3)]
