"""What a person wants to be told of: kept only where it differs from what the person's roles bring."""

from __future__ import annotations

from collections.abc import Collection

from django.contrib.auth.models import AbstractUser
from django.db import transaction

from upgrades.models import NoticeChoice
from upgrades.queries.notices import defaults_of

MAIL = NoticeChoice.Channel.MAIL


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
