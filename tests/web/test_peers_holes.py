"""Holes that others of this kind had, tried here (docs/security.md, “Holes of others”). Most have tests elsewhere."""

from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model

from tests.factories import make_environment, make_user, publish, show_who, start
from tests.web.run_scene import Stage, no_agents
from upgrades.models import Environment, Evidence, Membership, RunEvent

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_agents(monkeypatch):
    no_agents(monkeypatch)


def test_p2_rights_are_looked_at_for_what_is_acted_on_and_not_only_for_the_address(client):
    """A file, a burden, a deviation of another run under the address of one's own."""
    ours, theirs = Stage(), Stage()
    from django.utils import timezone

    file = Evidence.objects.create(
        run_id=theirs.run_id, name="x", size=1, sha256="0" * 64, uploaded_by="x", uploaded_at=timezone.now()
    )
    client.force_login(ours.operator)
    show_who(client, ours.operator)
    before = RunEvent.objects.filter(run=theirs.run_id).count()

    assert client.get(f"/runs/{ours.run_id}/evidence/{file.pk}/").status_code == 404
    sent = {"command_id": uuid4(), "run": theirs.run_id, "run_id": theirs.run_id, "text": "A note."}
    assert client.post(f"/runs/{ours.run_id}/note/", sent).status_code == 303
    assert RunEvent.objects.filter(run=theirs.run_id).count() == before


@pytest.mark.parametrize(
    "name", ["all", "*", "admin", "administrator", "None", "0", "Production · Frankfurt ", "%"]
)
def test_p5_a_name_gives_no_right(client, name):
    """Rights hang on numbers: an environment that is called like a role or a wildcard is one like any other."""
    there = make_environment("Production · Frankfurt")
    owner = make_user("administrator", environment=there)
    client.force_login(owner)
    client.post("/environments/new/", {"command_id": uuid4(), "name": name})
    client.force_login(
        make_user("administrator", environment=Environment.objects.exclude(pk=there.pk).first())
        if (Environment.objects.exclude(pk=there.pk).exists())
        else make_user()
    )

    assert client.get(f"/environments/{there.pk}/").status_code == 404
    assert client.get(f"/environments/{there.pk}/members/").status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "scope=all",
        "user=1",
        "all=1",
        "as=administrator",
        "environment={id}",
        "owner=*",
        "role=auditor",
        "sudo=1",
    ],
)
def test_p23_no_parameter_widens_what_is_seen(client, query):
    there = make_environment("Production · Frankfurt")
    publish()
    start(there, make_user("operator", environment=there))
    client.force_login(make_user("operator", environment=make_environment("Lab · Berlin")))
    for page in ("/environments/", "/runs/", "/approvals/", "/"):
        answer = client.get(
            f"{page}?{query.format(id=there.pk)}", headers={"X-User": "1", "X-Forwarded-User": "admin"}
        )
        assert "Production · Frankfurt" not in answer.content.decode(), page


@pytest.mark.parametrize(
    "path",
    ["setup/", "install/", "first-run/", "admin/", "sign-up/", "accounts/signup/", "init/"],
)
def test_p25_an_installation_without_administrators_offers_nothing(client, path):
    """The first account is made by a command of the machine; nothing opens when the last administrator is gone."""
    Membership.objects.all().delete()
    get_user_model().objects.all().delete()

    assert client.get(f"/{path}").status_code in (302, 404)
    html = client.get("/sign-in/").content.decode()
    for word in ("set up", "first administrator", "create an account", "sign up"):
        assert word not in html.lower()
    client.force_login(make_user())
    assert client.get(f"/{path}").status_code == 404
