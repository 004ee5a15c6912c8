"""API tokens: made and revoked by people, shown once, looked up at each call, and asked not too often.

Only the SHA-256 of a token is stored. Making and revoking stand in the register of every environment that the token
reaches (book `access/<environment>`). What a token may do is decided anew at each call, by its owner's present rights.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.db import connection, transaction
from django.utils import timezone

from upgrades.adapters import register
from upgrades.domain.api_scopes import LONGEST, PREFIX, known_scopes
from upgrades.domain.refusal import BadInput, NotAllowed, OutOfTurn
from upgrades.domain.run_events import Actor
from upgrades.domain.wording import checked
from upgrades.models import ApiToken, CommandReceipt, Environment, Membership, StoredAnswer
from upgrades.queries.people import name_of, through
from upgrades.queries.tokens import tokens_in, usable
from upgrades.services.people import actor_for, actor_id
from upgrades.services.runs import NoSuchRun
from upgrades.services.sign_in import Proof, shown

logger = logging.getLogger(__name__)

MADE, REVOKED = "token.created", "token.revoked"
MOST = 20  # tokens of one person that count at the same time
ANSWERS_KEPT = timedelta(hours=48)
_FORM = re.compile(rf"{PREFIX}_([0-9a-f]{{8}})_[A-Za-z0-9_-]{{43}}")
IN_AN_ADDRESS = "Runbook: it stood in an address"
ACCOUNT_RESET = "Runbook: the account was reset"


@dataclass(frozen=True, slots=True)
class Made:
    """A new token. `text` is the token itself, for this once; empty when the same form was sent before."""

    row: ApiToken
    text: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, through which token."""

    user: AbstractUser
    token: ApiToken


# Making and revoking.


@transaction.atomic
def make_token(
    *,
    by: AbstractUser,
    purpose: str,
    scopes: Iterable[str],
    environment_id: int | None,
    days: int,
    proof: Proof | None,
    command_id: UUID,
) -> Made:
    """A token for the person `by`. ProofNeeded without a fresh proof that this person is there."""
    before = CommandReceipt.objects.filter(pk=command_id).first()
    if before is not None:
        return _made_before(before, by)
    purpose = checked(purpose, what="The purpose", least=3, most=100)
    chosen = known_scopes(scopes)
    if not chosen:
        raise BadInput("Choose at least one thing that the token is for.", "scopes")
    if not 1 <= days <= LONGEST.days:
        raise BadInput(f"A token lasts 1 to {LONGEST.days} days.", "days")
    reached = _reached(by, environment_id)
    shown(proof, by)
    get_user_model().objects.select_for_update().get(pk=by.pk)  # two forms at once must not pass the limit
    if usable(by).count() >= MOST:
        raise OutOfTurn(f"You have {MOST} tokens that count. Revoke one that is not needed any more.")
    public_id = secrets.token_hex(4)
    text = f"{PREFIX}_{public_id}_{secrets.token_urlsafe(32)}"
    row = ApiToken.objects.create(
        user_id=by.pk,
        public_id=public_id,
        sha256=_digest(text),
        purpose=purpose,
        scopes=list(chosen),
        environment_id=environment_id,
        told_to=[environment.pk for environment in reached],
        expires_at=timezone.now() + timedelta(days=days),
        level=settings.API_RATE,
    )
    _tell(row, MADE, reached, by)
    CommandReceipt.objects.create(
        command_id=command_id,
        actor_id=actor_id(by),
        act="MakeToken",
        seq=0,
        answer=public_id,
        at=timezone.now(),
    )
    return Made(row, text)


def _made_before(receipt: CommandReceipt, by: AbstractUser) -> Made:
    row = ApiToken.objects.filter(public_id=receipt.answer, user_id=by.pk).first()
    if row is None or (receipt.actor_id, receipt.act) != (actor_id(by), "MakeToken"):
        raise BadInput(
            "This form was used for something else before. Load the page again and repeat your act."
        )
    return Made(row, "")


def _reached(by: AbstractUser, environment_id: int | None) -> list[Environment]:
    mine = Membership.objects.filter(user_id=by.pk).values("environment_id")
    reached = Environment.objects.filter(pk__in=mine, rehearsal_of=None).order_by("pk")
    if environment_id is not None:
        reached = reached.filter(pk=environment_id)
    found = list(reached)
    if not found:
        raise BadInput(
            "A token does what you may do, and you have no role there. An administrator of an environment gives roles.",
            "environment",
        )
    return found


def _tell(row: ApiToken, kind: str, environments: Iterable[Environment], by: AbstractUser | None) -> None:
    """Enter it in the register of each environment, in the order of their numbers: two at once never wait in a ring."""
    body = {
        "token": row.public_id,
        "user": actor_id(row.user),
        "name": name_of(row.user),
        "username": row.user.get_username(),
        "purpose": row.purpose,
        "scopes": list(row.scopes),
        "only_here": row.environment_id is not None,
        "expires": row.expires_at.isoformat(),
    }
    for environment in environments:
        actor: Actor = register.SYSTEM if by is None else actor_for(by, environment)
        register.enter(register.access_book(environment.pk), kind, by=actor, body=body)


@transaction.atomic
def revoke_own(*, token_id: int, by: AbstractUser) -> ApiToken:
    """Revoke one of one's own tokens; it ends with this transaction."""
    row = ApiToken.objects.select_for_update(of=("self",)).filter(pk=token_id, user_id=by.pk).first()
    if row is None:
        raise NoSuchRun("You have no such token.")
    return _revoke(row, by)


@transaction.atomic
def revoke_here(*, environment_id: int, token_id: int, by: AbstractUser) -> ApiToken:
    """Revoke a token that reaches an environment, as its administrator."""
    environment = Environment.objects.filter(pk=environment_id, rehearsal_of=None).first()
    roles = actor_for(by, environment).roles if environment is not None else ()
    if environment is None or not roles:
        raise NoSuchRun("There is no such environment, or you have no role in it.")
    if Membership.Role.ADMINISTRATOR not in roles:
        raise NotAllowed(
            f"Revoking tokens of others takes the role administrator in {environment.name}. One of its "
            "administrators can do it."
        )
    there = tokens_in(environment).filter(pk=token_id).values("pk")
    row = ApiToken.objects.select_for_update(of=("self",)).filter(pk__in=there).first()
    if row is None:
        raise NoSuchRun("No such token reaches this environment.")
    return _revoke(row, by)


def revoke_all(person: AbstractUser) -> int:
    """Revoke every token of a person whose account is reset; gives how many.

    Each in a transaction of its own: several at once would lock the registers of their environments in any order.
    """
    keys = list(usable(person).order_by("pk").values_list("pk", flat=True))
    for key in keys:
        with transaction.atomic():
            _revoke(ApiToken.objects.select_for_update(of=("self",)).get(pk=key), None, ACCOUNT_RESET)
    return len(keys)


def _revoke(row: ApiToken, by: AbstractUser | None, why: str = "") -> ApiToken:
    """`why` stands where the name of a person stands else."""
    if row.revoked_at is None:
        row.revoked_at = timezone.now()
        row.revoked_by = name_of(by) if by is not None else why
        row.save(update_fields=["revoked_at", "revoked_by"])
        told = Membership.objects.filter(user_id=row.user_id).values_list("environment_id", flat=True)
        reached = {*row.told_to, *(told if row.environment_id is None else ())}
        _tell(row, REVOKED, Environment.objects.filter(pk__in=reached).order_by("pk"), by)
    return row


# Calling.


def caller_of(text: str) -> Caller | None:
    """Who calls with this token; None when it is none, is over, or its owner's account is shut."""
    row = _row_of(text)
    if row is None or row.revoked_at is not None or row.expires_at <= timezone.now():
        return None
    if not row.user.is_active:
        return None
    through(row.user, row.public_id)
    return Caller(row.user, row)


def _row_of(text: str) -> ApiToken | None:
    form = _FORM.fullmatch(text)
    if form is None:
        return None
    row = ApiToken.objects.select_related("user", "environment").filter(public_id=form[1]).first()
    return row if row is not None and hmac.compare_digest(row.sha256, _digest(text)) else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def revoke_told(address: str) -> bool:
    """Revoke every token that stands in an address: it is in logs and histories by now. True when one stood there."""
    told = [(match[1], _digest(match[0])) for match in _FORM.finditer(address)]
    # One question for all of them: whoever asks need not be signed in, and an address has room for a thousand.
    rows = ApiToken.objects.filter(public_id__in={public_id for public_id, _ in told}) if told else ()
    for row in rows:
        if not any(
            hmac.compare_digest(row.sha256, digest) for known, digest in told if known == row.public_id
        ):
            continue
        with transaction.atomic():
            _revoke(ApiToken.objects.select_for_update(of=("self",)).get(pk=row.pk), None, IN_AN_ADDRESS)
        logger.warning("API token %s stood in an address and is revoked", row.public_id)
    return bool(told)


def take(token: ApiToken) -> int:
    """Take one call out of the token's bucket and note that it was used: 0, or the seconds to wait.

    The bucket holds the calls of a minute and fills evenly; its clock is the database's, one for all servers.
    """
    rate = settings.API_RATE / 60
    there = "least(%(most)s, level + %(rate)s * extract(epoch FROM clock_timestamp() - filled_at))"
    values = {"most": float(settings.API_RATE), "rate": rate, "id": token.pk}
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE upgrades_apitoken SET level = {there} - 1, filled_at = clock_timestamp(), "  # noqa: S608 - no value in it
            f"last_used_at = clock_timestamp() WHERE id = %(id)s AND {there} >= 1",
            values,
        )
        if cursor.rowcount:
            return 0
        cursor.execute(f"SELECT {there} FROM upgrades_apitoken WHERE id = %(id)s", values)  # noqa: S608
        row = cursor.fetchone()
    level = float(row[0]) if row is not None else 0.0
    return max(1, math.ceil((1 - level) / rate))


# Answers that are kept.


def forget_answers(now: datetime | None = None) -> None:
    """Let go of answers that are older than two days; a key counts for a day at least."""
    StoredAnswer.objects.filter(at__lt=(now or timezone.now()) - ANSWERS_KEPT).delete()
