"""Who gets which answer from each address: strangers, members by role, and people who are not signed in."""

import re
from uuid import uuid4

import pytest
from django.test import Client

from tests.factories import make_environment, make_user, publish, start

pytestmark = pytest.mark.django_db
WHO = ("operator", "approver", "auditor", "stranger", "nobody")

# address, method, and the status for: operator, approver, auditor, stranger, nobody
MATRIX = [
    ("/", "get", (200, 200, 200, 200, 302)),
    ("/environments/", "get", (200, 200, 200, 200, 302)),
    ("/environments/{environment}/", "get", (200, 200, 200, 404, 302)),
    ("/environments/{environment}/board/", "get", (200, 200, 200, 404, 302)),
    ("/environments/{environment}/start/config-server-ha/", "get", (200, 403, 403, 404, 302)),
    ("/environments/{environment}/start/config-server-ha/", "post", (400, 403, 403, 404, 302)),
    ("/environments/{environment}/simulated/", "post", (404, 404, 404, 404, 302)),
    ("/environments/{environment}/simulated/", "get", (405, 405, 405, 405, 302)),
    ("/runs/", "get", (200, 200, 200, 200, 302)),
    ("/runs/{run}/", "get", (200, 200, 200, 404, 302)),
    ("/runs/{run}/board/", "get", (200, 200, 200, 404, 302)),
    ("/approvals/", "get", (200, 200, 200, 200, 302)),
    ("/approvals/", "post", (405, 405, 405, 405, 302)),
    ("/procedures/", "get", (200, 200, 200, 200, 302)),
    ("/procedures/config-server-ha/1/", "get", (200, 200, 200, 200, 302)),
    ("/procedures/config-server-ha/9/", "get", (404, 404, 404, 404, 302)),
    ("/environments/{environment}/start/no-such/", "get", (404, 404, 404, 404, 302)),
    ("/environments/0/", "get", (404, 404, 404, 404, 302)),
    ("/environments/9223372036854775808/", "get", (404, 404, 404, 404, 302)),
    ("/sign-out/", "get", (405, 405, 405, 405, 302)),
]


@pytest.fixture
def place():
    environment = make_environment()
    publish()
    people = {role: make_user(role, environment=environment) for role in WHO[:3]}
    people["stranger"] = make_user("operator", environment=make_environment("Lab · Berlin"))
    return environment, start(environment, people["operator"]), people


@pytest.mark.parametrize("fragment", [False, True], ids=["page", "as htmx"])
def test_each_address_answers_by_right_and_not_by_header(client, place, fragment):
    environment, run, people = place
    wrong = []
    for address, method, statuses in MATRIX:
        url = address.format(environment=environment.pk, run=run)
        for who, wanted in zip(WHO, statuses, strict=True):
            client.logout()
            if who != "nobody":
                client.force_login(people[who])
            headers = {"HX-Request": "true"} if fragment else {}
            got = getattr(client, method)(url, headers=headers).status_code
            wanted = 401 if fragment and wanted == 302 else wanted
            if got != wanted:
                wrong.append((method, url, who, wanted, got))
    assert wrong == []


def test_a_fragment_for_nobody_sends_the_page_to_sign_in_and_back(client, place):
    environment, run, _ = place
    for fragment, page in (
        (f"/environments/{environment.pk}/board/", f"/environments/{environment.pk}/"),
        (f"/runs/{run}/board/", f"/runs/{run}/"),
    ):
        answer = client.get(fragment, headers={"HX-Request": "true"})
        assert (answer.status_code, answer.content) == (401, b"")
        assert answer.headers["HX-Redirect"] == f"/sign-in/?next={page.replace('/', '%2F')}"


def test_what_is_not_yours_looks_like_what_is_not_there(client, place):
    environment, _, people = place
    client.force_login(people["stranger"])

    theirs = client.get(f"/environments/{environment.pk}/").content
    missing = client.get("/environments/987654/").content

    assert _without_tokens(theirs) == _without_tokens(missing)


def _without_tokens(page):
    return re.sub(
        rb'nonce="[^"]*"|Token": "[^"]*"|Token\\?" value="[^"]*"|data-now="[^"]*"|value="\w{64}"', b"", page
    )


def test_a_stranger_sees_nothing_of_the_environment_in_any_list(client, place):
    _, _, people = place
    client.force_login(people["stranger"])
    for address in ("/", "/runs/", "/approvals/"):
        assert "Frankfurt" not in client.get(address).text


def test_a_role_that_is_taken_away_ends_all_rights_at_once(client, place):
    environment, _, people = place
    client.force_login(people["operator"])
    environment.memberships.filter(user=people["operator"]).delete()

    assert client.get(f"/environments/{environment.pk}/").status_code == 404


def test_starting_from_a_copy_for_a_rehearsal_is_not_offered(client, place):
    environment, _, people = place
    copy = make_environment("copy")
    type(copy).objects.filter(pk=copy.pk).update(rehearsal_of=environment)
    client.force_login(people["operator"])

    assert client.get(f"/environments/{copy.pk}/").status_code == 200
    assert client.get(f"/environments/{copy.pk}/start/config-server-ha/").status_code == 404


def test_a_simulated_servers_button_of_a_run_elsewhere_finds_nothing(client, place):
    _, run, people = place
    elsewhere = people["stranger"].memberships.get().environment
    client.force_login(people["stranger"])

    answer = client.post(f"/environments/{elsewhere.pk}/simulated/", {"do": "step", "run": run})

    assert answer.status_code == 404


def test_a_form_without_its_token_is_explained(place):
    environment, _, people = place
    client = Client(enforce_csrf_checks=True)
    client.force_login(people["operator"])

    answer = client.post(f"/environments/{environment.pk}/start/config-server-ha/", {"command_id": uuid4()})

    assert answer.status_code == 403
    assert "out of date" in answer.text
