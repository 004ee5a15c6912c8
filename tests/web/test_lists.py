"""Lists: runs, approvals, procedures."""

from datetime import timedelta

import pytest
from django.utils import timezone

from tests.factories import frankfurt, give, make_environment, make_user, publish, start
from upgrades.models import Environment, ProcedureVersion, Run, RunRequest
from upgrades.services.people import actor_id

pytestmark = pytest.mark.django_db


@pytest.fixture
def environment():
    return make_environment()


@pytest.fixture
def operator(environment, client):
    user = make_user("operator", environment=environment, first_name="Nina", last_name="Adler")
    client.force_login(user)
    return user


def runs(environment, operator, count):
    """That many runs, newest last, of which only the last is real: the others are rows like it."""
    first = Run.objects.get(pk=start(environment, operator))
    Run.objects.bulk_create(
        Run(
            environment=environment,
            procedure=first.procedure,
            title=f"Upgrade {number}",
            rehearsal=False,
            status="ended",
            ending="completed",
            starter_id="user:0",
            starter_name="Somebody",
            started_at=first.started_at - timedelta(days=number),
            ended_at=first.started_at,
        )
        for number in range(1, count)
    )
    return first


def listed(client, query=""):
    return [line.id for line in client.get(f"/runs/{query}").context["shown"].lines]


def test_no_runs_lead_to_where_one_is_started(client, operator):
    assert "No runs yet" in client.get("/runs/").text


def test_all_runs_are_listed_newest_first_aborted_ones_too(client, environment, operator):
    first = runs(environment, operator, 3)
    Run.objects.filter(title="Upgrade 1").update(status="aborted", ending="aborted")

    assert listed(client)[0] == first.pk
    assert len(listed(client)) == 3
    assert [len(listed(client, f"?status={status}")) for status in ("open", "ended", "aborted", "held")] == [
        1,
        1,
        1,
        0,
    ]


def test_the_list_is_narrowed_by_environment_with_its_copies(client, environment, operator):
    start(environment, operator)
    lab = make_environment("Lab")
    give(operator, lab, "operator")
    copy = make_environment("copy", world=frankfurt("frankfurt-1"))
    give(operator, copy, "operator")
    rehearsal = start(copy, operator)
    Environment.objects.filter(pk=copy.pk).update(rehearsal_of=environment)
    Run.objects.filter(pk=rehearsal).update(rehearsal=True)

    assert len(listed(client, f"?environment={environment.pk}")) == 2
    assert listed(client, f"?environment={lab.pk}") == []
    assert listed(client, "?kind=rehearsal") == [rehearsal]
    assert "Rehearsal" in client.get("/runs/?kind=rehearsal").text


@pytest.mark.parametrize(
    "query",
    [
        "?status=secret",
        "?environment=0",
        "?environment=1;2",
        "?kind=all",
        "?page=-1",
        "?page=x",
        "?page=999",
        "?order=starter_id",
    ],
)
@pytest.mark.bad_input("FM13")
def test_a_wish_that_makes_no_sense_breaks_nothing(client, environment, operator, query):
    start(environment, operator)

    answer = client.get(f"/runs/{query}")

    assert answer.status_code == 200
    assert len(answer.context["shown"].lines) == 1


def test_an_environment_of_others_cannot_be_asked_for(client, environment, operator):
    elsewhere = make_environment("Secret")

    form = client.get(f"/runs/?environment={elsewhere.pk}").context["form"]

    assert "environment" in form.errors
    assert "Secret" not in str(form)


def test_many_runs_are_turned_page_by_page_and_keep_the_filter(
    client, environment, operator, django_assert_max_num_queries
):
    runs(environment, operator, 31)

    with django_assert_max_num_queries(9):
        answer = client.get("/runs/?status=ended&page=2")

    assert len(answer.context["shown"].lines) == 5
    assert "status=ended&amp;page=1" in answer.text


# Approvals.


def request_for(run, role="approver", barred=(), **fields):
    run = Run.objects.get(pk=run)
    return RunRequest.objects.create(
        run=run,
        environment=run.environment,
        kind="approval",
        step="stop-old",
        gate="approval",
        title="Shut down confserv",
        role=role,
        since=timezone.now(),
        barred=[run.starter_id, *barred],
        **fields,
    )


def test_what_waits_for_me_stands_first_and_in_the_number_of_the_navigation(client, environment, operator):
    request_for(start(environment, operator))
    approver = make_user("approver", environment=environment)
    client.force_login(approver)

    answer = client.get("/approvals/")

    assert [request.title for request in answer.context["inbox"].mine] == ["Shut down confserv"]
    assert '1<span class="unseen"> waiting</span>' in answer.text


@pytest.mark.parametrize(
    ("who", "why"),
    [
        ("starter", "You started this run, so somebody else signs."),
        ("executor", "You carried out a part of this run or wrote its procedure"),
        ("auditor", "It takes the role approver; your role here is auditor."),
    ],
)
def test_who_may_not_sign_is_told_why(client, environment, operator, who, why):
    give(operator, environment, "approver")
    executor = make_user("operator", "approver", environment=environment)
    request_for(start(environment, operator), barred=[actor_id(executor)])
    people = {
        "starter": operator,
        "executor": executor,
        "auditor": make_user("auditor", environment=environment),
    }
    client.force_login(people[who])

    answer = client.get("/approvals/")

    assert answer.context["inbox"].mine == ()
    assert why in answer.text
    assert "waiting</span>" not in answer.text


def test_a_rehearsal_is_signed_by_those_of_its_original(client, environment, operator):
    copy = make_environment("copy")
    give(operator, copy, "operator")
    request_for(start(copy, operator))
    copy.memberships.all().delete()
    Environment.objects.filter(pk=copy.pk).update(rehearsal_of=environment)
    client.force_login(make_user("approver", environment=environment))

    answer = client.get("/approvals/")

    assert len(answer.context["inbox"].mine) == 1
    assert '1<span class="unseen"> waiting</span>' in answer.text


def test_an_empty_inbox_says_so(client, operator, django_assert_max_num_queries):
    with django_assert_max_num_queries(6):
        assert "Nothing waits for you" in client.get("/approvals/").text


# Procedures.


def test_no_procedures_tell_how_to_publish_them(client, operator):
    assert "manage.py publish_procedures" in client.get("/procedures/").text


def test_the_text_of_a_procedure_is_readable_with_its_sources(
    client, operator, django_assert_max_num_queries
):
    version = publish()

    with django_assert_max_num_queries(6):
        answer = client.get("/procedures/config-server-ha/1/")

    for wanted in (version.text_hash, 'id="step-launch-new"', 'id="CSH-6a"', "21-22170", "Read-only"):
        assert wanted in answer.text
    assert "{new" not in answer.text


def test_an_older_version_points_to_the_newest(client, operator):
    version = publish()
    ProcedureVersion.objects.create(
        procedure=version.procedure,
        version=2,
        title=version.title,
        component=version.component,
        text=version.text.replace("version: 1", "version: 2", 1),
        text_hash="0" * 64,
        published_at=timezone.now(),
    )

    assert "There is a newer version" in client.get("/procedures/config-server-ha/1/").text
    assert "There is a newer version" not in client.get("/procedures/config-server-ha/2/").text
    assert "version 2 of 2" in client.get("/procedures/").text
