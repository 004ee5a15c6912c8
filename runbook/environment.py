"""Strict reading of environment variables: every mistake is told at once, in sentences that say what to do.

Standard library only, so that the launcher and the tests can use it before Django is there.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from zoneinfo import ZoneInfo

SWITCHES = {
    "on": True,
    "true": True,
    "yes": True,
    "1": True,
    "off": False,
    "false": False,
    "no": False,
    "0": False,
}
# What a DATABASE_URL may carry behind its question mark; handed to libpq as it is.
LIBPQ_OPTIONS = frozenset(
    {"sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "application_name"}
)


def _without(whole: str, parts: Iterable[str]) -> list[IPv4Network | IPv6Network]:
    """The network without its `parts`, as few networks as make it up."""
    found: list[Any] = [ip_network(whole)]
    for part in map(ip_network, parts):
        found = [
            piece
            for network in found
            for piece in (network.address_exclude(part) if part.subnet_of(network) else (network,))
        ]
    return found


# What the registries of special-purpose addresses leave (RFC 6890 and those that follow it).
_PUBLIC = [
    *_without(
        "0.0.0.0/0",
        ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
         "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
         "224.0.0.0/3"),
    ),
    *_without("2000::/3", ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")),
]  # fmt: skip


class SettingMistakes(SystemExit):
    """Ends the start with the list of mistakes on stderr and exit code 1, without a traceback."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__(
            "Runbook cannot start with these settings:\n" + "\n".join(f"  - {m}" for m in mistakes)
        )


class Environment:
    """Typed readers over one mapping. A wrong value is noted and replaced; `finish` raises what was noted."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.mistakes: list[str] = []

    def _get(self, name: str) -> str:
        return self._values.get(name, "").strip()

    def required(self, name: str, what: str, shortest: int = 1) -> str:
        """A text that must be there and have at least `shortest` characters; `what` says what to set."""
        value = self._get(name)
        if not value:
            self.mistakes.append(f"{name} is missing. Set it to {what}.")
        elif len(value) < shortest:
            self.mistakes.append(
                f"{name} has {len(value)} characters, fewer than {shortest}. Set it to {what}."
            )
        return value

    def one_of(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """One of `choices`."""
        value = self._get(name) or default
        if value not in choices:
            self.mistakes.append(f"{name} is {value!r}. Set it to one of: {', '.join(choices)}.")
            return default
        return value

    def switch(self, name: str, *, default: bool) -> bool:
        """A switch: on or off (also true/false, yes/no, 1/0)."""
        value = self._get(name).lower()
        if value and value not in SWITCHES:
            self.mistakes.append(f"{name} is {value!r}. Set it to on or off.")
        return SWITCHES.get(value, default)

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value = self._get(name)
        if not value:
            return default
        if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
            self.mistakes.append(f"{name} is {value!r}. Set it to a whole number from {low} to {high}.")
            return default
        return int(value)

    def names(self, name: str, default: str) -> list[str]:
        """Names separated by commas; at least one."""
        found = [part.strip() for part in (self._get(name) or default).split(",") if part.strip()]
        if not found:
            self.mistakes.append(
                f"{name} holds no name. Set it to one or more names, with commas between them."
            )
        return found

    def addresses(self, name: str) -> list[str]:
        """Mail addresses separated by commas; none where it is not set."""
        found = [part.strip() for part in self._get(name).split(",") if part.strip()]
        if any(part.count("@") != 1 or part != part.strip("@") for part in found):
            self.mistakes.append(
                f"{name} holds no mail address. Set it as audit@example.org, with commas between several."
            )
            return []
        return found

    def networks(self, name: str, default: str) -> list[IPv4Network | IPv6Network]:
        """Networks separated by commas, as 10.1.0.0/16; a single address is a network of one.

        The word `public` stands for all addresses of the public internet.
        """
        found: list[IPv4Network | IPv6Network] = []
        for part in self.names(name, default):
            if part == "public":
                found += _PUBLIC
                continue
            try:
                found.append(ip_network(part))
            except ValueError:
                self.mistakes.append(
                    f"{name} holds {part!r}, which is no network. Set it as 10.1.0.0/16,fd12::/48: an address, a "
                    "slash and the bits that count; those behind them are 0."
                )
        return found

    def mail_server(self, name: str) -> dict[str, Any]:
        """smtp://, smtp+starttls:// or smtps:// as Django's EMAIL_ settings; mails go to the log where it is not set."""
        value = self._get(name)
        parts = _split(value)
        kinds = {
            "smtp": (25, {}),
            "smtp+starttls": (587, {"EMAIL_USE_TLS": True}),
            "smtps": (465, {"EMAIL_USE_SSL": True}),
        }
        if not value or parts is None or parts.scheme not in kinds or not parts.hostname:
            if value:
                self.mistakes.append(
                    f"{name} is no mail server (its value is not shown: it may hold a password). "
                    "Set it as smtps://user:password@mail.example.org, smtp+starttls://… or smtp://…, or leave it out."
                )
            return {"EMAIL_BACKEND": "django.core.mail.backends.console.EmailBackend"}
        port, security = kinds[parts.scheme]
        return {
            "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "EMAIL_HOST": parts.hostname,
            "EMAIL_PORT": parts.port or port,
            "EMAIL_HOST_USER": unquote(parts.username or ""),
            "EMAIL_HOST_PASSWORD": unquote(parts.password or ""),
            "EMAIL_TIMEOUT": 10,
            **security,
        }

    def folder(self, name: str, default: Path) -> Path:
        """An absolute path; whether the folder is there is looked at where it is used."""
        value = self._get(name)
        if value and not Path(value).is_absolute():
            self.mistakes.append(f"{name} is {value!r}. Set it to an absolute path.")
            return default
        return Path(value) if value else default

    def time_zone(self, name: str, default: str) -> str:
        """A name of the IANA time zone list, as Europe/Berlin."""
        value = self._get(name) or default
        try:
            ZoneInfo(value)
        except (
            KeyError,
            ValueError,
            OSError,
        ):  # not listed, no possible name, or the name of a folder of the list
            self.mistakes.append(
                f"{name} is {value!r}, no known time zone. Set it to a name as Europe/Berlin or UTC."
            )
        return value

    def http_url(self, name: str) -> str | None:
        """An http or https address without a trailing slash, or None where it is not set."""
        value = self._get(name).rstrip("/")
        if not value:
            return None
        parts = _split(value)
        if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
            self.mistakes.append(
                f"{name} is {value!r}. Set it to an address as http://127.0.0.1:8010, or leave it out."
            )
            return None
        return value

    def one_name(self, name: str, default: str) -> str:
        """A name without blanks."""
        value = self._get(name) or default
        if len(value.split()) != 1:
            self.mistakes.append(f"{name} is {value!r}. Set it to one name without blanks, as {default}.")
            return default
        return value

    def header_name(self, name: str) -> str:
        """The name of an HTTP header, as X-Request-Id; empty where it is not set."""
        value = self._get(name)
        if value and not (value.isascii() and value.replace("-", "").isalnum()):
            self.mistakes.append(
                f"{name} is {value!r}. Set it to the name of a header, as X-Request-Id, or leave it out."
            )
        return value

    def long_secret(self, name: str, shortest: int = 32) -> str:
        """A secret of at least `shortest` characters; empty where it is not set."""
        value = self._get(name)
        if value and (len(value) < shortest or not value.isascii() or not value.isprintable()):
            self.mistakes.append(
                f"{name} is shorter than {shortest} characters or holds others than ASCII. Set it to a random text, "
                "as `openssl rand -hex 32` prints, or leave it out."
            )
        return value

    def text(self, name: str) -> str:
        """A text as it is; empty where it is not set."""
        return self._get(name)

    def issuer(self, name: str) -> str | None:
        """The https address of an OpenID Connect provider, or None. Plain http is for this machine only."""
        value = self.http_url(name)
        parts = _split(value or "")
        if value and parts.scheme != "https" and parts.hostname not in {"127.0.0.1", "localhost", "::1"}:
            self.mistakes.append(f"{name} begins with http://. Set it to the provider's https:// address.")
        return value

    def redis_url(self, name: str) -> str:
        """A redis:// or rediss:// address."""
        value = self.required(name, "the address of a Redis server, as redis://:password@127.0.0.1:6379/0")
        parts = _split(value)
        if value and (parts is None or parts.scheme not in {"redis", "rediss"} or not parts.hostname):
            self.mistakes.append(
                f"{name} is no Redis address (its value is not shown: it may hold a password). "
                "Set it as redis://:password@127.0.0.1:6379/0, or rediss:// for TLS."
            )
        return value

    def database(self, name: str) -> dict[str, Any]:
        """A PostgreSQL address as the values that Django wants: NAME, USER, PASSWORD, HOST, PORT, OPTIONS."""
        value = self.required(
            name, "the address of a PostgreSQL database, as postgresql://user:password@host:5432/name"
        )
        if not value:
            return {}
        try:
            return parse_database_url(value)
        except ValueError as mistake:
            self.mistakes.append(
                f"{name} cannot be used: {mistake} Set it as postgresql://user:password@host:5432/name."
            )
            return {}

    def finish(self) -> None:
        """Raises SettingMistakes when anything was noted."""
        if self.mistakes:
            raise SettingMistakes(self.mistakes)


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it is what checks it
    except ValueError:
        return None
    return parts


def parse_database_url(url: str) -> dict[str, Any]:
    """`postgresql://user:password@host:port/name?sslmode=…` (or `?host=/socket/folder`) as Django's keys.

    ValueError with a sentence that never repeats the URL, which may hold a password.
    """
    parts = _split(url)
    if parts is None or parts.scheme not in {"postgres", "postgresql"}:
        raise ValueError("it does not begin with postgresql:// or has no valid port.")
    name = unquote(parts.path.removeprefix("/"))
    if not name or "/" in name:
        raise ValueError("it names no database after the host.")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    socket = query.pop("host", "")
    unknown = sorted(set(query) - LIBPQ_OPTIONS)
    if unknown:
        raise ValueError(f"it has unknown options ({', '.join(unknown)}).")
    return {
        "NAME": name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or socket,
        "PORT": str(parts.port or ""),
        "OPTIONS": query,
    }


def given_stores(values: Mapping[str, str]) -> bool:
    """True: DATABASE_URL and REDIS_URL are both set and those servers are used. False: neither is.

    SettingMistakes for one alone: half of a foreign set-up would mix two worlds without anybody noticing.
    """
    given = [name for name in ("DATABASE_URL", "REDIS_URL") if values.get(name, "").strip()]
    if len(given) == 1:
        other = {"DATABASE_URL": "REDIS_URL", "REDIS_URL": "DATABASE_URL"}[given[0]]
        how = "Set both to use your own servers, or neither to have them started."
        raise SettingMistakes([f"{given[0]} is set, but {other} is not. {how}"])
    return len(given) == 2
