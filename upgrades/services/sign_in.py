"""Who is there: proofs that a person is at the keyboard now, and the sessions in which people are signed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.contrib.sessions.models import Session
from django.db import transaction
from django.utils import timezone

from upgrades.adapters import event_store
from upgrades.domain.refusal import NotAllowed, Refused
from upgrades.models import Environment, SignedIn

STRONG = frozenset({"code", "passkey"})
KINDS = {
    "password": "password",
    "code": "code of a second factor",
    "passkey": "passkey",
    "provider": "sign-in at the organisation's provider",
    "rehearsal": "rehearsal crew",
}
AHEAD = timedelta(seconds=5)  # by which the clock of a provider may be before ours
AT_ONCE = 10_000  # sessions that one tick removes
SEEN_EVERY = timedelta(minutes=1)  # how exactly the list of sessions knows when each was used


@dataclass(frozen=True, slots=True)
class Proof:
    """That `person` (the user's key) showed who they are, how (`KINDS`), and when.

    `rehearsal` is the word of the crew of headless rehearsals; it counts on simulated servers only.
    """

    kind: str
    person: int
    at: datetime


class ProofNeeded(Refused):
    """A signature needs a fresh proof of who gives it; nothing was signed."""

    code = "proof-needed"


def proven(proof: Proof | None, by: AbstractUser, environment: Environment) -> str:
    """The kind of a proof that counts for a signature by this person here and now; else ProofNeeded or NotAllowed."""
    if proof is None:
        raise ProofNeeded(
            "A signature needs a fresh proof of who gives it. Nothing was signed. Sign once more."
        )
    if proof.kind not in KINDS or proof.person != by.pk:
        raise NotAllowed("This proof is not one of the person who signs. Nothing was signed.")
    if proof.kind == "rehearsal":
        if not environment.is_simulated:
            raise NotAllowed(
                "The crew of rehearsals signs on simulated servers only. A person has to sign here."
            )
        return proof.kind
    return shown(proof, by)


def shown(proof: Proof | None, by: AbstractUser) -> str:
    """The kind of a proof that this person is there now, by the strongest means that they have; else ProofNeeded."""
    if proof is None or proof.person != by.pk or proof.kind not in KINDS or proof.kind == "rehearsal":
        raise ProofNeeded("This needs a fresh proof of who you are. Nothing was done. Try it once more.")
    now = timezone.now()
    if not now - timedelta(seconds=settings.PROOF_SECONDS) <= proof.at <= now + AHEAD:
        raise ProofNeeded(
            f"You last showed who you are more than {settings.PROOF_SECONDS // 60} minutes ago. Nothing was done. "
            "Show it once more, and what you asked for follows."
        )
    if proof.kind not in STRONG and has_second_factor(by):
        raise ProofNeeded("You have a second factor, so this needs it. Nothing was done.")
    return proof.kind


def has_second_factor(person: AbstractUser) -> bool:
    """Whether the person has an authenticator or a passkey. Recovery codes alone are none."""
    kinds = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)
    return bool(Authenticator.objects.filter(user_id=person.pk, type__in=kinds).exists())


@transaction.atomic
def forget_factors(person: AbstractUser) -> tuple[int, int]:
    """Take all second factors away and end all sessions; gives how many of each."""
    factors, _ = Authenticator.objects.filter(user_id=person.pk).delete()
    return factors, end_sessions(person)


# Sessions.


def session_began(person: AbstractUser, session_key: str, *, address: str, browser: str) -> None:
    """Put the session on the person's list, and take those off it that are over."""
    alive = Session.objects.filter(expire_date__gt=timezone.now()).values("session_key")
    SignedIn.objects.filter(user_id=person.pk).exclude(session_key__in=alive).delete()
    SignedIn.objects.update_or_create(
        session_key=session_key,
        defaults={
            "user_id": person.pk,
            "address": address,
            "browser": browser[:200],
            "began_at": timezone.now(),
            "used_at": timezone.now(),
        },
    )


def session_used(session_key: str) -> None:
    """Note that the session is in use. Called once a minute at most."""
    SignedIn.objects.filter(session_key=session_key).update(used_at=timezone.now())


def session_renamed(before: str, after: str) -> None:
    """The session goes on under another key, as after a change of password."""
    SignedIn.objects.filter(session_key=before).update(session_key=after)


def sessions_of(person: AbstractUser) -> list[SignedIn]:
    """Where the person is signed in now, used last first."""
    alive = Session.objects.filter(expire_date__gt=timezone.now()).values("session_key")
    return list(SignedIn.objects.filter(user_id=person.pk, session_key__in=alive))


@transaction.atomic
def end_sessions(person: AbstractUser, *, only: int | None = None, but: str = "") -> int:
    """End the person's sessions: one of them, all, or all `but` the one with that key. Gives how many ended.

    Their pages learn of it at once: open streams end with the transaction.
    """
    chosen = SignedIn.objects.filter(user_id=person.pk).exclude(session_key=but)
    if only is not None:
        chosen = chosen.filter(pk=only)
    keys = list(chosen.values_list("session_key", flat=True))
    Session.objects.filter(session_key__in=keys).delete()
    SignedIn.objects.filter(session_key__in=keys).delete()
    if keys:
        announce_person(person.pk)
    return len(keys)


def forget_sessions(now: datetime) -> None:
    """Remove sessions that are over; what one tick leaves, the next one takes."""
    over = list(Session.objects.filter(expire_date__lt=now).values_list("pk", flat=True)[:AT_ONCE])
    Session.objects.filter(pk__in=over, expire_date__lt=now).delete()


def session_ended(person: Any, session_key: str | None) -> None:
    """A session is over: it leaves the list, and the person's open streams end."""
    SignedIn.objects.filter(session_key=session_key or "").delete()
    if person is not None and person.pk is not None:
        announce_person(person.pk)


def announce_person(person_id: int) -> None:
    """End all open streams of the person when the transaction commits; their pages ask anew, by present rights."""
    event_store.announce("runbook", f"user:{person_id}:0")
