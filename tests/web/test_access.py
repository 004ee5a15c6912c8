"""Who gets which answer from each address: people by role, here and elsewhere, and people who are not signed in.

The addresses come from the URL resolver. A new one without a line in `EXPECTED` fails; so does a line without an address.
"""

import re
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import get_resolver

from tests.factories import make_environment, make_user, publish, show_who, start
from upgrades.domain.run_events import AttemptRefused
from upgrades.models import RunEvent
from upgrades.web.forms import FORMS

pytestmark = pytest.mark.django_db
ROLES = ("operator", "approver", "author", "auditor", "administrator")
WHO = ("operator", "approver", "auditor", "stranger", "nobody")

# For each address and method the status for the five roles in their order, or one for all of them. Where an address names
# an environment or a run, members of another environment get 404 (405 where the method is none). Nobody gets 302.
CHANGES = (403, 403, 403, 403, 200)  # the pages on which administrators change an environment
CHANGED = (403, 403, 403, 403, 400)  # and their forms, sent empty
READS = (404, 404, 404, 200, 200)  # the auditors' pages; administrators look at their own environments'
EXPECTED = {
    "healthz": (200, 405),
    "readyz": (503, 405),  # no worker runs beside this test
    "metrics": (403, 405),
    "sign-in": (302, 302),
    "sign-out": (405, 302),
    "home": (200, 405),
    "environments": (200, 405),
    "new-environment": (CHANGES, (403, 403, 403, 403, 200)),
    "environment": (200, 405),
    "environment-board": (200, 405),
    "start-run": ((200, 403, 403, 403, 403), (400, 403, 403, 403, 403)),
    "plan": (200, 400),
    "policies": (200, 400),
    "planned-times": (200, (409, 403, 403, 403, 403)),
    "notices": (CHANGES, CHANGED),
    "calendar": (404, 405),
    "members": (200, (403, 403, 403, 403, 409)),
    "environment-tokens": ((403, 403, 403, 403, 200), (403, 403, 403, 403, 400)),
    "simulated": (405, 404),
    "edit-environment": (CHANGES, CHANGED),
    "new-record": (CHANGES, CHANGED),
    "edit-record": (CHANGES, CHANGED),
    "edit-agent": (CHANGES, CHANGED),
    "environment-changes": (200, 405),
    "export-environment": (200, 405),
    "import-environment": (CHANGES, CHANGED),
    "import-draft": ((403, 403, 403, 403, 404), (403, 403, 403, 403, 404)),
    "status": (200, 405),
    "status-board": (200, 405),
    "runs": (200, 405),
    "show-run": (200, 405),
    "run-board": (200, 405),
    "run-presence": (200, 405),
    "run-evidence": (404, 405),
    "run-record": (200, 405),
    "roll-back": (409, 409),
    "run-act": (405, 400),
    "audit": (READS, 405),
    "audit-searches": (405, (404, 404, 404, 302, 302)),
    "audit-run": (READS, 405),
    "audit-duties": (READS, 405),
    "audit-access": (READS, 405),
    "audit-reads": (READS, 405),
    "audit-record": (READS, 405),
    "audit-check": (405, READS),
    "approvals": (200, 405),
    "approvals-board": (200, 405),
    "approvals-count": (200, 405),
    "approval": (404, 404),  # the first step has none
    "procedures": (200, 405),
    "procedure": (200, 405),
    "account_login": (302, 302),
    "mfa_authenticate": (302, 302),
    "mfa_login_webauthn": (302, 302),
    "begin-provider": (405, 404),
    "socialaccount_login_cancelled": (200, 405),
    "openid_connect_callback": (404, 405),
    "account": (200, 405),
    "mfa_index": (200, 405),
    "mfa_list_webauthn": (200, 405),
    "account-notices": (200, 400),
    "tokens": (200, 400),
    "revoke-token": (405, 404),
    "end-sessions": (405, 303),
    "account_reauthenticate": (200, 200),
    "mfa_reauthenticate": (403, 403),
    "mfa_reauthenticate_webauthn": (403, 403),
    "account_change_password": (404, 404),
    "mfa_activate_totp": (302, 303),
    "mfa_deactivate_totp": (404, 404),
    "mfa_view_recovery_codes": (404, 405),
    "mfa_generate_recovery_codes": (200, 200),
    "mfa_add_webauthn": (302, 303),
    "mfa_remove_webauthn": (404, 404),
}
# What people see who are not signed in; everything else sends them to sign in.
OPEN = {
    "healthz": (200, 405),
    "readyz": (503, 405),
    "metrics": (403, 405),
    "calendar": (404, 405),
    "sign-in": (200, 200),
    "account_login": (200, 200),
    "begin-provider": (405, 404),
    "socialaccount_login_cancelled": (200, 405),
    "openid_connect_callback": (404, 405),
}
SENT = {"members": {"do": "take", "row": "0"}}


def addresses(resolver=None, before=""):
    """(name, pattern) of every route, included ones too."""
    for entry in (resolver or get_resolver()).url_patterns:
        pattern = before + str(entry.pattern)
        if hasattr(entry, "url_patterns"):
            yield from addresses(entry, pattern)
        elif not (entry.name or "").startswith("api-"):  # tests/api/test_access.py
            yield entry.name, pattern


@pytest.fixture
def place():
    environment = make_environment()
    publish()
    people = {role: make_user(role, environment=environment) for role in ROLES}
    elsewhere = make_environment("Lab · Berlin")
    people |= {f"{role} elsewhere": make_user(role, environment=elsewhere) for role in ROLES}
    people["stranger"] = people["operator elsewhere"]
    return environment, start(environment, people["operator"]), people


def filled(pattern, environment, run):
    host = environment.hosts.first().pk
    ids = {"environment_id": environment.pk, "run_id": run, "procedure": "config-server-ha", "version": 1}
    ids |= {"kind": "host", "record_id": host, "host_id": host, "form": "yaml", "draft_id": uuid4(), "pk": 1}
    ids |= {"token": "x" * 43, "token_id": 1, "evidence_id": 1, "verb": "note", "provider_id": "provider"}
    ids |= {"step": "prerequisites", "gate": "approval"}
    return "/" + re.sub(r"<(?:\w+:)?(\w+)>", lambda match: str(ids[match[1]]), pattern)


def wanted(name, pattern, method, who):
    """The status that this person must get."""
    place = ("get", "post").index(method)
    if who == "nobody":
        return OPEN.get(name, (302, 302))[place]
    row = EXPECTED[name][place]
    role, _, elsewhere = who.partition(" ")
    status = row if isinstance(row, int) else row[ROLES.index(role)]
    bound = "<int:environment_id>" in pattern or "<int:run_id>" in pattern
    return 404 if elsewhere and bound and status != 405 else status


def test_every_address_has_its_expectation_and_every_expectation_its_address():
    assert {name for name, _ in addresses()} == set(EXPECTED)


@pytest.mark.parametrize("method", ["get", "post"])
def test_each_address_answers_each_role_here_and_elsewhere_as_it_must(client, place, method):
    environment, run, people = place
    wrong = []
    for name, pattern in addresses():
        url = filled(pattern, environment, run)
        for who in (*ROLES, *(f"{role} elsewhere" for role in ROLES), "nobody"):
            cache.clear()  # the counters of sign-in: each of them is here for the first time
            client.logout()
            if who != "nobody":
                client.force_login(people[who])
            answer = getattr(client, method)(url, SENT.get(name, {}) if method == "post" else {})
            for (
                close
            ) in answer._resource_closers:  # not answer.close(): that ends the connection of the test, too
                close()
            if answer.status_code != wanted(name, pattern, method, who):
                wrong.append((method, url, who, wanted(name, pattern, method, who), answer.status_code))
    assert wrong == []


# Every act in a run: what is sent is complete, so that only the right decides.

FIELDS = {
    "step": "prerequisites",
    "visit": "1",
    "gate": "packages-delivered",
    "answer": "pass",
    "digest": "0" * 64,
    "reason": "It is needed now, and everybody agrees.",
    "text": "Seen by two of us.",
    "about": "skip",
    "number": "1",
    "burden": "read-only",
    "name": "target",
    "value": "8.5.102",
    "comment": "",
    "to": "user:1",
}


# They speak of an approval, a deviation or a burden that this run does not have: that is said first, to whoever sees it.
ABOUT_WHAT_IS_NOT_THERE = {
    "sign",
    "reject",
    "sign-deviation",
    "reject-deviation",
    "review-override",
    "take-over",
    "close-burden",
}


@pytest.mark.parametrize("verb", sorted(FORMS))
def test_no_act_in_a_run_is_open_to_readers_or_strangers(client, place, verb):
    _, run, people = place
    refused = {400, 403, 409} if verb in ABOUT_WHAT_IS_NOT_THERE else {403}
    for who, allowed in (("auditor", refused), ("author", refused | {303}), ("operator elsewhere", {404})):
        before = list(RunEvent.objects.filter(run=run).exclude(kind=AttemptRefused.kind))
        client.force_login(people[who])
        show_who(client, people[who])
        fields = {name: FIELDS[name] for name in FORMS[verb].base_fields if name in FIELDS}
        answer = client.post(f"/runs/{run}/{verb}/", {**fields, "command_id": uuid4()})
        assert answer.status_code in allowed, (who, verb, answer.status_code)
        if answer.status_code != 303:
            assert list(RunEvent.objects.filter(run=run).exclude(kind=AttemptRefused.kind)) == before


@pytest.mark.parametrize("fragment", [False, True], ids=["page", "as htmx"])
@pytest.mark.parametrize(
    ("address", "statuses"),
    [
        ("/environments/0/", (404, 404, 404, 404, 302)),
        ("/environments/9223372036854775808/", (404, 404, 404, 404, 302)),
        ("/environments/{environment}/", (200, 200, 200, 404, 302)),
        ("/environments/{environment}/start/config-server-ha/", (200, 403, 403, 404, 302)),
        ("/environments/{environment}/start/no-such/", (404, 404, 404, 404, 302)),
        ("/procedures/config-server-ha/9/", (404, 404, 404, 404, 302)),
        ("/runs/{run}/", (200, 200, 200, 404, 302)),
    ],
)
@pytest.mark.bad_input("FM05", "FM09")
def test_the_right_decides_and_not_a_header_or_an_odd_number(client, place, fragment, address, statuses):
    environment, run, people = place
    url = address.format(environment=environment.pk, run=run)
    for who, status in zip(WHO, statuses, strict=True):
        client.logout()
        if who != "nobody":
            client.force_login(people[who])
        headers = {"HX-Request": "true"} if fragment else {}
        assert client.get(url, headers=headers).status_code == (401 if fragment and status == 302 else status)


def test_a_fragment_for_nobody_sends_the_page_to_sign_in_and_back(client, place):
    environment, run, _ = place
    for fragment, page in (
        (f"/environments/{environment.pk}/board/", f"/environments/{environment.pk}/"),
        (f"/runs/{run}/board/", f"/runs/{run}/"),
    ):
        answer = client.get(fragment, headers={"HX-Request": "true"})
        assert (answer.status_code, answer.content) == (401, b"")
        assert answer.headers["HX-Redirect"] == f"/sign-in/?next={page.replace('/', '%2F')}"


@pytest.mark.bad_input("FM05")
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


@pytest.mark.bad_input("FM08")
def test_a_form_without_its_token_is_explained(place):
    environment, _, people = place
    client = Client(enforce_csrf_checks=True)
    client.force_login(people["operator"])

    answer = client.post(f"/environments/{environment.pk}/start/config-server-ha/", {"command_id": uuid4()})

    assert answer.status_code == 403
    assert "out of date" in answer.text
