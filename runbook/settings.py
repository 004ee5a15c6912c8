"""Django's settings. What differs between deployments is an environment variable, read strictly.

`.env.example` lists every variable. A missing or wrong one ends the start with sentences that say what to do.
"""

import os
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from csp.constants import NONCE, NONE, SELF
from kombu import Queue

from runbook.environment import Environment

BASE_DIR = Path(__file__).resolve().parent.parent
VAR = BASE_DIR / "var"
MEBIBYTE = 1024 * 1024
RELEASE = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())["project"]["version"]

_env = Environment(os.environ)

# --- what each deployment sets --------------------------------------------------------------------

SECRET_KEY = _env.required(
    "SECRET_KEY", "a random text of 50 characters or more, as `openssl rand -hex 32` prints", 50
)
# The key before this one, while what it signed and sealed is still about.
SECRET_KEY_FALLBACKS = [_env.text("SECRET_KEY_BEFORE")] if _env.text("SECRET_KEY_BEFORE") else []
DEBUG = _env.switch("DEBUG", default=False)
HTTPS = _env.switch("RUNBOOK_HTTPS", default=True)
_hosts = _env.names("RUNBOOK_HOSTS", "127.0.0.1,localhost")
# What agents reported is kept for so many days at least; an environment may keep it longer (docs/adr/0022-retention.md).
KEEP_DAYS = _env.number("RUNBOOK_KEEP_DAYS", 400, 90, 36_500)
TIME_ZONE = _env.time_zone("RUNBOOK_TIME_ZONE", "UTC")
EVIDENCE_MAX_BYTES = _env.number("EVIDENCE_MAX_BYTES", 50 * MEBIBYTE, 1024, 10 * 1024 * MEBIBYTE)
EVIDENCE_RUN_BYTES = _env.number("EVIDENCE_RUN_BYTES", 2048 * MEBIBYTE, 1024, 1024 * 1024 * MEBIBYTE)
EVIDENCE_FOLDER = _env.folder("EVIDENCE_FOLDER", VAR / "evidence")
STATIC_ROOT = _env.folder("STATIC_FOLDER", VAR / "static")
# Rehearsals and the panel of the simulated servers exist only where a simulator does.
SIMULATOR_URL = _env.http_url("SIMULATOR_URL")
WEB_THREADS = _env.number("RUNBOOK_WEB_THREADS", 10, 1, 200)
LOG_LEVEL = _env.one_of("RUNBOOK_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
LOG_FORMAT = _env.one_of("RUNBOOK_LOG", "json" if HTTPS else "text", ("json", "text"))
# The header in which the proxy in front says the id of a request; empty: each request gets an id here.
REQUEST_ID_HEADER = _env.header_name("RUNBOOK_REQUEST_ID_HEADER")
# Notices (docs/notifications.md): the address that stands in them, and where webhooks may go.
BASE_URL = _env.http_url("RUNBOOK_URL") or (
    f"https://{_hosts[0] if _hosts else 'localhost'}"
    if HTTPS
    else f"http://127.0.0.1:{_env.number('RUNBOOK_PORT', 8000, 1, 65535)}"
)
WEBHOOK_NETWORKS = _env.networks("WEBHOOK_NETWORKS", "public" if HTTPS else "public,127.0.0.0/8,::1")
# Worker, beat and the process that signs checkpoints touch this file as long as they work.
ALIVE_FILE = _env.folder("RUNBOOK_ALIVE_FILE", VAR) if _env.text("RUNBOOK_ALIVE_FILE") else None
# Who may see the figures and what is wrong (docs/observability.md): whoever shows the token, or asks from these networks.
METRICS_TOKEN = _env.long_secret("RUNBOOK_METRICS_TOKEN")
METRICS_NETWORKS = (
    _env.networks("RUNBOOK_METRICS_NETWORKS", "") if _env.text("RUNBOOK_METRICS_NETWORKS") else []
)
METRICS_FOLDER = (
    _env.folder("RUNBOOK_METRICS_FOLDER", Path()) if _env.text("RUNBOOK_METRICS_FOLDER") else None
)
REDIS_URL = _env.redis_url("REDIS_URL")
_database = _env.database("DATABASE_URL")
# Where agents may be (docs/environments.md). Those of a simulator are on this machine.
_PRIVATE = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"
AGENT_NETWORKS = _env.networks("AGENT_NETWORKS", _PRIVATE if HTTPS else f"{_PRIVATE},127.0.0.0/8,::1")
# The record's checkpoints (docs/record.md). Only `manage.py sign_checkpoints` reads the key.
CHECKPOINT_KEY_FILE = _env.folder("CHECKPOINT_KEY_FILE", VAR / "checkpoint.key")
CHECKPOINT_FILE = _env.folder("CHECKPOINT_FILE", VAR / "checkpoints.jsonl")
CHECKPOINT_MAIL_TO = _env.addresses("CHECKPOINT_MAIL_TO")
CHECKPOINT_ORIGIN = f"{_hosts[0]}/runbook" if _hosts else "runbook"
locals().update(_env.mail_server("MAIL_URL"))
# Sign-in (docs/sign-in.md).
PROOF_SECONDS = _env.number("RUNBOOK_PROOF_SECONDS", 300, 30, 900)
IDLE_MINUTES = _env.number("RUNBOOK_IDLE_MINUTES", 60, 5, 720)
SESSION_HOURS = _env.number("RUNBOOK_SESSION_HOURS", 10, 1, 24)
# Days after the end of an emergency within which an auditor looks into it.
REVIEW_DAYS = _env.number("RUNBOOK_REVIEW_DAYS", 7, 1, 90)
SECOND_FACTOR = _env.one_of(
    "RUNBOOK_SECOND_FACTOR", "required" if HTTPS else "offered", ("required", "offered")
)
ALLAUTH_TRUSTED_PROXY_COUNT = _env.number("RUNBOOK_PROXIES", 0, 0, 5)
PROXIES_ARE_COUNTED = bool(_env.text("RUNBOOK_PROXIES"))  # `manage.py preflight` wants it said
_oidc = {
    "provider_id": "provider",
    "name": _env.text("OIDC_NAME") or "your organisation",
    "client_id": _env.text("OIDC_CLIENT_ID"),
    "secret": _env.text("OIDC_CLIENT_SECRET"),
    "settings": {
        "server_url": _env.issuer("OIDC_ISSUER"),
        "oauth_pkce_enabled": True,
        "scope": _env.names("OIDC_SCOPES", "openid,profile"),
    },
}
OIDC_GROUPS_CLAIM = _env.one_name("OIDC_GROUPS_CLAIM", "groups")
# Calls that an API token may make in a minute (docs/api.md).
API_RATE = _env.number("RUNBOOK_API_RATE", 120, 10, 100_000)
DEFAULT_FROM_EMAIL = SERVER_EMAIL = (_env.addresses("MAIL_FROM") or ["runbook@localhost"])[0]

_LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}
if not HTTPS and not set(_hosts) <= _LOOPBACK:
    _env.mistakes.append(
        "RUNBOOK_HTTPS is off, but RUNBOOK_HOSTS names more than this machine. Plain HTTP is for 127.0.0.1 "
        "and localhost only: put a proxy with TLS in front and leave RUNBOOK_HTTPS on."
    )
if DEBUG and not set(_hosts) <= _LOOPBACK:
    _env.mistakes.append("DEBUG is on, but RUNBOOK_HOSTS names more than this machine. Turn DEBUG off.")
if HTTPS and os.environ.get("RUNBOOK_CRASH_AT"):
    _env.mistakes.append(
        "RUNBOOK_CRASH_AT is set: it kills programs on purpose and belongs to the fault harness alone. Leave it out."
    )
if len({bool(_env.text(name)) for name in ("OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET")}) == 2:
    _env.mistakes.append(
        "Of OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET some are set. Set all three, or none."
    )
_env.finish()
if METRICS_FOLDER is not None:  # the client library reads it when it is first imported
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(METRICS_FOLDER)

# --- the application ------------------------------------------------------------------------------

ALLOWED_HOSTS = sorted({*_hosts, *_LOOPBACK})  # loopback always: health checks come from there
ROOT_URLCONF = "runbook.urls"
WSGI_APPLICATION = "runbook.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
LANGUAGE_CODE = "en"

INSTALLED_APPS = [
    "upgrades",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "django_htmx",
    "template_partials",
    "csp",
]

MIDDLEWARE = [
    "upgrades.web.request_log.RequestLog",
    "upgrades.web.metrics.Measured",
    # Before whatever may refuse a request: a refusal has these headers too.
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "runbook.middleware.security_headers",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "csp.middleware.CSPMiddleware",
    "runbook.middleware.known_methods",
    "runbook.middleware.body_limit",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "upgrades.web.sign_in.SessionRules",
    # A view is closed unless it says `login_not_required`: a forgotten check opens nothing.
    "upgrades.web.sign_in.SignInRequired",
    "upgrades.web.request_log.WhoAndWhere",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
                "upgrades.web.context.nav",
            ],
            "builtins": ["upgrades.templatetags.moments"],
        },
    },
]

FORM_RENDERER = "upgrades.web.form_renderer.FormRenderer"

# --- stores ---------------------------------------------------------------------------------------

DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        **_database,
        # Each thread of the web server keeps its connection; one that died is noticed before it is used.
        "CONN_MAX_AGE": 300,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "connect_timeout": 5,
            "application_name": "runbook",
            # A forgotten lock or transaction must not stop everybody else.
            "options": "-c lock_timeout=10s -c idle_in_transaction_session_timeout=60s",
            **_database.get("OPTIONS", {}),
        },
    }
}
# Only sign-in's counters live here: shared by all processes, and there while Redis is not (docs/adr/0006-sign-in.md).
CACHES = {"default": {"BACKEND": "upgrades.adapters.shared_cache.SharedCache"}}

# --- sign-in, sessions, cookies -------------------------------------------------------------------

AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
ACCOUNT_ADAPTER = "upgrades.web.sign_in.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_EMAIL_NOTIFICATIONS = (
    True  # a changed password or factor is told to its owner, where there is an address
)
ACCOUNT_SESSION_REMEMBER = False
ACCOUNT_REAUTHENTICATION_TIMEOUT = PROOF_SECONDS
ACCOUNT_FORMS = {
    "login": "upgrades.web.sign_in_forms.SignInForm",
    "reauthenticate": "upgrades.web.sign_in_forms.PasswordAgainForm",
    "change_password": "upgrades.web.sign_in_forms.NewPasswordForm",
}
# Failures count per address and per name; the name last, so that an address over its limit shuts nobody else out.
ACCOUNT_RATE_LIMITS = {"login": "", "login_failed": "200/15m/ip,10/15m/key", "reauthenticate": "20/15m/user"}
MFA_ADAPTER = "upgrades.web.sign_in.FactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_WEBAUTHN_USER_VERIFICATION = "required"
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = False
MFA_ALLOW_UNVERIFIED_EMAIL = True  # mail is for notices only and proves nothing here
MFA_TOTP_ISSUER = "Runbook"
MFA_TOTP_TOLERANCE = 1
MFA_RECOVERY_CODES_SHOW_ONCE = True
MFA_FORMS = {
    "authenticate": "upgrades.web.sign_in_forms.CodeForm",
    "reauthenticate": "upgrades.web.sign_in_forms.CodeAgainForm",
    "activate_totp": "upgrades.web.sign_in_forms.FirstCodeForm",
}
SOCIALACCOUNT_ADAPTER = "upgrades.web.sign_in_provider.ProviderAdapter"
SOCIALACCOUNT_STORE_TOKENS = False
SOCIALACCOUNT_EMAIL_AUTHENTICATION = False  # a mail address is no key: the provider's `sub` is
SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = False
SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"APPS": [_oidc] if _oidc["client_id"] else []}}

LOGIN_URL = "/sign-in/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = LOGIN_URL
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS: list[dict[str, Any]] = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 15}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "upgrades.web.sign_in_forms.NoEasyPattern"},
]

SESSION_ENGINE = "upgrades.adapters.sessions"
SESSION_COOKIE_AGE = (
    SESSION_HOURS * 60 * 60
)  # a change night; signing in again in the middle of a step helps nobody
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"  # Strict would sign people out who follow a link from a mail
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_HTTPONLY = True  # the token comes in the page
CSRF_COOKIE_SAMESITE = "Strict"
CSRF_COOKIE_SECURE = HTTPS
# Browsers take a __Host- cookie over HTTPS only, from this host only and for the whole of it.
SESSION_COOKIE_NAME = "__Host-session" if HTTPS else "session"
CSRF_COOKIE_NAME = "__Host-csrf" if HTTPS else "csrf"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

# --- page security (the rest of the headers: runbook/middleware.py) -------------------------------

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        # Scripts make no HTML of strings but through htmx, whose swaps carry what this server rendered.
        "require-trusted-types-for": ["'script'"],
        "trusted-types": ["htmx"],
    }
}
SECURE_SSL_REDIRECT = False  # the proxy in front does this; redirecting here would break its health checks
SILENCED_SYSTEM_CHECKS = [
    "security.W008",  # SECURE_SSL_REDIRECT: see above
    "security.W021",  # SECURE_HSTS_PRELOAD binds a whole domain for years, which is for its owner to decide
]
SECURE_HSTS_SECONDS = 63_072_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

DATA_UPLOAD_MAX_MEMORY_SIZE = MEBIBYTE  # what is not a file
DATA_UPLOAD_MAX_NUMBER_FIELDS = 500
DATA_UPLOAD_MAX_NUMBER_FILES = 20
FILE_UPLOAD_MAX_MEMORY_SIZE = MEBIBYTE  # a larger file goes to disk while it arrives
FILE_UPLOAD_PERMISSIONS = 0o600
# A body may begin late or stop for so long all in all, and has one second more for each so many bytes (runbook/arrival.py).
BODY_SECONDS = 20.0
BODY_RATE = 32 * 1024

# --- static files ---------------------------------------------------------------------------------

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Collected: names with a hash, compressed, cached for ever. Not collected (tests): found where they lie.
_collected = (STATIC_ROOT / "staticfiles.json").exists() or sys.argv[1:2] == ["collectstatic"]
WHITENOISE_USE_FINDERS = not _collected
WHITENOISE_ALLOW_ALL_ORIGINS = False  # no page of others reads anything here
STORAGES = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": EVIDENCE_FOLDER},
    },
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if _collected
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}

# --- Celery: PostgreSQL decides, Redis only rings the bell ----------------------------------------

# An unfinished task is handed out again after this long. It stays above the hard time limit, or a slow task
# would run twice at once; it stands in three places, because the shortest of them wins.
_VISIBILITY_TIMEOUT = 120
_transport = {
    "visibility_timeout": _VISIBILITY_TIMEOUT,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_keepalive": True,
    # A Redis that takes connections and answers nothing must not hold up the person whose act rings its bell.
    "socket_connect_timeout": 1,
    "socket_timeout": 2,
    "max_retries": 0,
    "interval_start": 0,
    "interval_step": 0,
    "health_check_interval": 25,
    "global_keyprefix": "runbook:",
}
CELERY_BROKER_URL = REDIS_URL
CELERY_BROKER_TRANSPORT_OPTIONS = _transport
CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS = _transport
CELERY_VISIBILITY_TIMEOUT = _VISIBILITY_TIMEOUT
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
# A loop that follows agents hands over to the next one; that one must not queue behind the bells of runs.
CELERY_TASK_QUEUES = (Queue("celery"), Queue("polling", routing_key="polling"))
CELERY_TASK_DEFAULT_QUEUE = "celery"
CELERY_TASK_ROUTES = {"upgrades.tasks.poll_agents": {"queue": "polling"}}
CELERY_TASK_PUBLISH_RETRY = False  # whatever a lost message would have done is found in the database
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_IGNORE_RESULT = True
# No soft limit beside it: while Redis is away a worker cannot hear that its tasks are done. When Redis is back, the soft limit
# would interrupt processes that work on nothing, in the middle of what they tell the worker, which cannot read on then.
CELERY_TASK_TIME_LIMIT = 60
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 20
CELERY_WORKER_MAX_TASKS_PER_CHILD = 1000
CELERY_WORKER_MAX_MEMORY_PER_CHILD = 400_000  # KiB
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULER = "runbook.celery:Clock"
# The one beat: what is due stands in the database; a tick that nobody took within 10 s is not worth taking.
CELERY_BEAT_SCHEDULE = {
    "agents": {"task": "upgrades.tasks.look_after_agents", "schedule": 2.0, "options": {"expires": 10}},
    "tick": {"task": "upgrades.tasks.tick", "schedule": 5.0, "options": {"expires": 10}},
}

# --- logging: one event, one line on stderr -------------------------------------------------------

_formatter: dict[str, Any] = {
    "json": {"()": "runbook.log_lines.JsonLine"},
    "text": {
        "()": "runbook.log_lines.OneLine",
        "fmt": "{asctime} {levelname} {name} [{process}] {message}",
        "style": "{",
    },
}[LOG_FORMAT]
# Whatever is logged, by whomever: these values never are.
_formatter["secrets"] = [
    SECRET_KEY,
    *SECRET_KEY_FALLBACKS,
    METRICS_TOKEN,
    _database.get("PASSWORD", ""),
    unquote(urlsplit(REDIS_URL).password or ""),
    _oidc["secret"],
    str(locals().get("EMAIL_HOST_PASSWORD", "")),
]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": _formatter},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        # Two lines for every tick would hide all others.
        "celery.beat": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        # The web server brings handlers of its own, which know nothing of all this.
        "uvicorn": {"handlers": [], "propagate": True},
        "uvicorn.error": {"handlers": [], "propagate": True, "level": LOG_LEVEL},
        "uvicorn.access": {"handlers": [], "propagate": True, "level": "WARNING"},
        # A request that failed is one line of ours (upgrades/web/request_log.py) and the traceback.
        "django.request": {"level": "ERROR"},
    },
}
