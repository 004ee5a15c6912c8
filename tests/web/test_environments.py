"""The list of environments, and the page of one."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from tests.factories import TARGETS, frankfurt, give, make_environment, make_user, publish, server, start
from upgrades.models import Agent, Environment, Run, RunBurden
from upgrades.queries.environments import environment_list
from upgrades.queries.topology import draw, topology
from upgrades.services.people import actor_id

pytestmark = pytest.mark.django_db


@pytest.fixture
def environment():
    return make_environment()


@pytest.fixture
def operator(environment, client):
    user = make_user("operator", environment=environment)
    client.force_login(user)
    return user


def show(client, environment):
    return client.get(f"/environments/{environment.pk}/")


def burden(run, title="Read-only", *, kind="exposure", owner=None):
    return RunBurden.objects.create(
        run_id=run,
        environment=Run.objects.get(pk=run).environment,
        burden=f"{kind}:read-only",
        title=title,
        opened_at=timezone.now(),
        owner_id=actor_id(owner) if owner else "",
        owner_name=owner.get_full_name() or owner.username if owner else "",
    )


# The list.


def test_nobody_without_a_role_is_left_without_a_word(client):
    client.force_login(make_user())

    assert "No environment is yours yet" in client.get("/").text


def test_a_card_tells_what_is_open_left_to_do_and_in_trouble(client, environment, operator):
    burden(start(environment, operator))
    Agent.objects.filter(host__name="fra-cfg-01").update(
        trouble="connection refused", trouble_since=timezone.now()
    )

    card = environment_list(operator, timezone.now()).environments[0]

    assert [run.status for run in card.open_runs] == ["running"]
    assert card.exposures == ("Read-only",)
    assert [(line.component, line.versions[0].reached) for line in card.components] == [
        ("ConfigurationServer", False),
        ("LCA", True),
        ("SCS", True),
    ]
    assert [(trouble.host, trouble.agent.text) for trouble in card.troubles] == [("fra-cfg-01", "no answer")]


def test_a_copy_stands_apart_and_only_while_something_is_open_on_it(client, environment, operator):
    copy = make_environment("copy")
    Environment.objects.filter(pk=copy.pk).update(rehearsal_of=environment, world="frankfurt-1")
    assert environment_list(operator, timezone.now()).rehearsals == ()

    give(operator, copy, "operator")
    run = start(copy, operator)
    Run.objects.filter(pk=run).update(rehearsal=True)

    listed = environment_list(operator, timezone.now())
    assert [card.name for card in listed.rehearsals] == ["copy"]
    assert [card.name for card in listed.environments] == ["Production · Frankfurt"]


def test_more_environments_ask_no_more_questions(
    client, environment, operator, django_assert_max_num_queries
):
    for number in range(5):
        give(operator, make_environment(f"Lab {number}"), "operator")

    with django_assert_max_num_queries(12):
        assert client.get("/").status_code == 200


# One environment.


def test_the_page_shows_servers_versions_and_people(client, environment, operator):
    text = show(client, environment).text

    for wanted in (
        "confserv_b",
        "8.1.3 → 8.5.101",
        "SCS",
        "Frankfurt",
        operator.username,
        "Point of no return",
    ):
        assert wanted in text


def test_an_environment_without_anything_says_what_to_do(client):
    environment = Environment.objects.create(name="Empty")
    client.force_login(make_user("auditor", environment=environment))

    text = show(client, environment).text

    for wanted in (
        "No servers yet",
        "No procedure is published",
        "No run has ended here",
        "No target version",
    ):
        assert wanted in text


def test_a_procedure_is_offered_with_its_servers_or_with_the_reason_why_not(client, environment, operator):
    publish()
    assert "With confserv_b and confserv" in show(client, environment).text

    environment.applications.filter(name="confserv_b").update(standing="standalone")
    assert "No server here can be “Backup, replaced first”" in show(client, environment).text


def test_only_operators_are_offered_the_start(client, environment, operator):
    publish()
    assert "/start/config-server-ha/" in show(client, environment).text

    client.force_login(make_user("auditor", environment=environment))
    text = show(client, environment).text
    assert "/start/config-server-ha/" not in text
    assert "Runs are started by somebody with the role operator." in text


def test_a_burden_is_closed_by_its_owner_from_here_and_by_nobody_else(client, environment, operator):
    other = make_user("approver", environment=environment)
    run = start(environment, operator)
    burden(run, owner=other)

    assert "close-burden" not in show(client, environment).text
    client.force_login(other)
    text = show(client, environment).text
    assert f'action="/runs/{run}/close-burden/"' in text
    assert f"taken over by {other.username}" in text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"trouble": "connection refused", "trouble_since": timezone.now()},
            "its agent gives no answer since",
        ),
        ({"seen_at": None}, "its agent has not been heard yet"),
        ({"seen_at": timezone.now() - timedelta(minutes=5)}, "no news from its agent since"),
    ],
    ids=["trouble", "never heard", "not asked"],
)
def test_an_agent_that_is_not_heard_is_told_with_what_to_do(client, environment, operator, change, says):
    Agent.objects.filter(host__name="fra-cfg-01").update(**change)

    assert says in show(client, environment).text


def test_a_host_without_an_agent_is_told(client, environment, operator):
    Agent.objects.filter(host__name="fra-cfg-01").delete()

    assert "no agent is registered" in show(client, environment).text


def test_hosts_with_the_same_trouble_share_one_banner(client, environment, operator):
    Agent.objects.all().delete()
    for number in range(1, 5):
        environment.hosts.create(name=f"ham-app-{number:02}", site="Hamburg")
    other = environment.hosts.get(name="ham-app-04")
    Agent.objects.create(
        environment=environment, host=other, agent_id="ham-app-04", url="https://ham-app-04:7101"
    )

    banners = re.findall(r'<div class="banner warn"><div>(.*?)</div></div>', show(client, environment).text)
    said = [" ".join(re.sub(r"<[^>]*>", "", banner).split()) for banner in banners]

    assert any("and 2 more hosts: no agent is registered. Without one, their logs" in text for text in said)
    assert any(text.startswith("ham-app-04: its agent has not been heard yet. It is") for text in said)


def test_foreign_text_is_shown_as_text(client, operator):
    world = frankfurt()
    world["servers"].append(server("<img src=x>", "SCS", "fra-scs-01"))
    environment = make_environment("<script>alert(1)</script>", world=world)
    give(operator, environment, "operator")
    Agent.objects.filter(environment=environment).update(
        trouble="\x1b]8;;http://evil\x07 <b hx-get=/>", trouble_since=timezone.now()
    )

    text = show(client, environment).text

    assert "<script>alert" not in text
    assert "<img src=x>" not in text
    assert "<b hx-get" not in text


def test_the_board_is_not_sent_again_while_nothing_has_changed(client, environment, operator):
    address = f"/environments/{environment.pk}/board/"
    etag = client.get(address).headers["ETag"]
    assert client.get(address, headers={"If-None-Match": etag}).status_code == 304

    environment.applications.filter(name="confserv_b").update(mode="down")
    changed = client.get(address, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag


def test_the_page_asks_a_bounded_number_of_questions(
    client, environment, operator, django_assert_max_num_queries
):
    publish()
    burden(start(environment, operator))

    with django_assert_max_num_queries(24):
        show(client, environment)


# The picture.


def hosts_of(*servers):
    return {"world": "", "agents": [], "servers": list(servers)}


def test_pairs_stand_side_by_side_and_are_joined_once():
    world = hosts_of(
        server("a", "ConfigurationServer", "host-1", peer="b"),
        server("x", "SCS", "host-2"),
        server("b", "ConfigurationServer", "host-3", role="backup", peer="a"),
    )
    picture = topology(make_environment("E", world=world, targets=TARGETS), timezone.now()).wide

    assert [box.host.name for box in picture.hosts] == ["host-1", "host-3", "host-2"]
    assert [link.text for link in picture.links] == ["a and b are a pair"]


def test_a_pair_is_not_torn_apart_and_a_site_begins_a_row():
    world = hosts_of(
        *(server(f"single-{n}", "SCS", f"host-{n}") for n in range(3)),
        server("a", "ConfigurationServer", "host-3", peer="b"),
        server("b", "ConfigurationServer", "host-4", role="backup", peer="a"),
        server("c", "SCS", "other-1"),
    )
    environment = make_environment("E", world=world)
    environment.hosts.update(site="Frankfurt")
    environment.hosts.filter(name="other-1").update(site="Hamburg")
    rows = {}
    for box in topology(environment, timezone.now()).wide.hosts:
        rows.setdefault(box.y, []).append(box.name)
    assert list(rows.values()) == [["host-0", "host-1", "host-2"], ["host-3", "host-4"], ["other-1"]]


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_no_boxes_overlap_and_all_lie_within_the_picture(columns):
    world = hosts_of(*(server(f"server-{n}", "SCS", f"host-{n // 3}") for n in range(20)))
    hosts = topology(make_environment("E", world=world), timezone.now()).hosts

    picture = draw(hosts, columns)

    boxes = [(box.x, box.y, box.x + picture.host_width, box.y + box.height) for box in picture.hosts]
    assert all(right <= picture.width and bottom <= picture.height for _, _, right, bottom in boxes)
    for place, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[place + 1 :]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
    for box in picture.hosts:
        for inner in box.servers:
            assert box.y < inner.y
            assert inner.y + 78 <= box.y + box.height


def test_a_name_that_is_too_long_for_its_box_is_cut_with_a_mark():
    world = hosts_of(server("a-server-with-a-very-long-name", "SCS", "host-1"))
    picture = topology(make_environment("E", world=world), timezone.now()).wide

    assert picture.hosts[0].servers[0].name == "a-server-with-a-ver…"
