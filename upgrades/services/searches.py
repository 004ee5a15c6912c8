"""Saved searches: a choice of filters under a name, for the person who saved it alone."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser

from upgrades.domain.refusal import BadInput
from upgrades.domain.wording import checked
from upgrades.models import SavedSearch

MOST = 50


def save_search(by: AbstractUser, *, name: str, query: str) -> None:
    """Keep `query` under `name`; a search of that name is replaced. `BadInput` says what is wrong with the name."""
    name = checked(name, what="The name of the search", least=1, most=80)
    query = checked(query, what="The filters", most=1000)
    known = SavedSearch.objects.filter(user_id=by.pk)
    if not known.filter(name=name).exists() and known.count() >= MOST:
        raise BadInput(f"You have {MOST} saved searches. Delete one that you no longer need.", "name")
    SavedSearch.objects.update_or_create(user_id=by.pk, name=name, defaults={"query": query})


def delete_search(by: AbstractUser, search_id: int) -> None:
    """Forget a search of this person; one of somebody else is not there."""
    SavedSearch.objects.filter(user_id=by.pk, pk=search_id).delete()
