"""What a person wants to be told of, and at which address.

Choices are kept only where they differ from what the person's roles bring.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.core.validators import validate_email
from django.db import transaction

from upgrades.domain.refusal import BadInput
from upgrades.models import NoticeChoice
from upgrades.queries.notices import defaults_of
from upgrades.services.runs import NoSuchRun
from upgrades.services.sign_in import Proof, shown

logger = logging.getLogger(__name__)

MAIL = NoticeChoice.Channel.MAIL
LONGEST = 254


@transaction.atomic
def choose(user: AbstractUser, wanted: Collection[tuple[int, str]]) -> None:
    """Have the person told of just these kinds, named with the environment; of others, of nothing.

    What is not among the person's environments is passed over: there is nothing to be told of it.
    """
    rows = []
    for environment, _, defaults in defaults_of(user):
        for kind, by_role in defaults.items():
            wish = (environment.pk, str(kind)) in wanted
            if wish != by_role:
                rows.append(
                    NoticeChoice(
                        user_id=user.pk, environment=environment, kind=kind, channel=MAIL, wanted=wish
                    )
                )
    NoticeChoice.objects.filter(user_id=user.pk, channel=MAIL).delete()
    NoticeChoice.objects.bulk_create(rows, ignore_conflicts=True)


@transaction.atomic
def choose_here(user: AbstractUser, environment_id: int, wishes: Mapping[str, bool]) -> None:
    """Have the person told, or not, of the kinds that `wishes` names in one environment; the others stay as they are."""
    known = {environment.pk: defaults for environment, _, defaults in defaults_of(user)}
    if environment_id not in known:
        raise NoSuchRun("There is no such environment, or you have no role in it.")
    by_role = {str(kind): wanted for kind, wanted in known[environment_id].items()}
    for kind, wish in wishes.items():
        if kind not in by_role:
            raise BadInput("There is no such kind of notice.", "wanted")
        key = {"user_id": user.pk, "environment_id": environment_id, "kind": kind, "channel": MAIL}
        if wish == by_role[kind]:
            NoticeChoice.objects.filter(**key).delete()
        else:
            NoticeChoice.objects.update_or_create(**key, defaults={"wanted": wish})


def set_address(user: AbstractUser, address: str, proof: Proof | None) -> bool:
    """Where the person's mails go; empty: nowhere. ProofNeeded without a fresh proof; False when it was so already.

    The address signs nobody in. But what happens to an account is told to it, so the one before hears of the change.
    """
    address = address.strip()
    if address:
        try:
            validate_email(address)
        except ValidationError:
            raise BadInput("This is no mail address. Write it as olga@example.org.", "address") from None
        if len(address) > LONGEST:
            raise BadInput(f"A mail address has {LONGEST} characters at most.", "address")
    if address == user.email:
        return False
    shown(proof, user)
    before = user.email
    get_user_model().objects.filter(pk=user.pk).update(email=address)
    user.email = address
    if before:
        transaction.on_commit(lambda: _tell(before, user.get_username()))
    return True


def _tell(address: str, name: str) -> None:
    try:
        EmailMessage(
            subject="Your mail address in Runbook was changed",
            body=(
                f"Mails of the account {' '.join(name.split())} do not come to this address any more. If that was not "
                "you, tell whoever runs Runbook.\n"
            ),
            to=[address],
            headers={"Auto-Submitted": "auto-generated"},
        ).send()
    except OSError as trouble:  # a mail server's refusal is one, too
        logger.warning("the address before could not be told of its change: %s", trouble)
