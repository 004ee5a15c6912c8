"""The page from which a person rolls a run back."""

from uuid import uuid4

import pytest
from django.urls import reverse

from tests.factories import make_user
from tests.services.night import Night
from upgrades.models import Run

REASON = "The new server does not serve its clients."


@pytest.fixture
def night(db):
    return Night().go_to("stop-old")


@pytest.fixture
def page(client, night):
    client.force_login(night.operator)
    return reverse("roll-back", args=[night.run])


def form(**changes):
    answers = {
        "operational": "true",
        "procedure": "rollback-both-down",
        "reason": REASON,
        "command_id": str(uuid4()),
    }
    return answers | changes


def test_the_page_says_which_way_fits_and_why(client, page, django_assert_max_num_queries):
    client.get(page)
    with django_assert_max_num_queries(14):
        answer = client.get(page)
    text = answer.content.decode()
    assert answer.status_code == 200
    assert "Roll back a pair with both servers down" in text
    assert "older than 8.5" in text
    assert "CS-R2" in text
    assert "Shut down confserv_b" in text
    assert "Read-only" in text  # what is open goes over
    assert "go back before this master" in text


def test_the_run_page_leads_there_once_something_was_replaced(client, page, night):
    assert page in client.get(reverse("show-run", args=[night.run])).content.decode()
    other = Night(place="Another")
    client.force_login(other.operator)
    assert "roll-back" not in client.get(reverse("show-run", args=[other.run])).content.decode()


def test_starting_it_ends_the_run_and_shows_the_rollback(client, page, night):
    answer = client.post(page, form())
    new = Run.objects.exclude(pk=night.run).get()
    assert (answer.status_code, answer.url) == (303, reverse("show-run", args=[new.pk]))
    assert night.row.ending == "rolled back"
    shown = client.get(answer.url).content.decode()
    assert f"Takes back run {night.run}" in shown
    assert (
        f"run {new.pk} (rollback-both-down)"
        in client.get(reverse("show-run", args=[night.run])).content.decode()
    )


def test_looking_again_starts_nothing_and_keeps_what_was_typed(client, page):
    answer = client.post(page, form(look="1", operational="false"))
    assert answer.status_code == 200
    assert REASON in answer.content.decode()
    assert "once the master works again" in answer.content.decode()
    assert Run.objects.count() == 1


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        pytest.param({"reason": "no"}, 400, id="short reason"),
        pytest.param({"reason": ""}, 400, id="no reason"),
        pytest.param({"operational": "perhaps"}, 400, id="no answer"),
        pytest.param({"command_id": "x"}, 400, id="broken form"),
        pytest.param({"procedure": "rollback-operational"}, 409, id="another way was read about"),
    ],
)
def test_what_cannot_be_started_comes_back_with_the_typed_text(client, page, changes, status):
    answer = client.post(page, form(**changes))
    assert answer.status_code == status
    assert form(**changes)["reason"] in answer.content.decode()
    assert Run.objects.count() == 1


def test_the_same_form_sent_twice_starts_one_rollback(client, page):
    sent = form()
    first, second = client.post(page, sent), client.post(page, sent)
    assert (first.status_code, second.status_code) == (303, 303)
    assert first.url == second.url
    assert client.post(page, form()).status_code == 409  # another one: the run is over
    assert Run.objects.count() == 2


def test_who_may_look_may_not_all_start(client, night, page):
    client.force_login(night.approver)
    assert "takes the role operator" in client.get(page).content.decode()
    assert client.post(page, form()).status_code == 403
    client.force_login(make_user())
    assert client.get(page).status_code == 404
    assert client.post(page, form()).status_code == 404


def test_a_run_with_nothing_to_take_back_says_so(client, db):
    night = Night()
    client.force_login(night.operator)
    answer = client.get(reverse("roll-back", args=[night.run]))
    assert answer.status_code == 409
    assert "nothing to take back" in answer.content.decode()
