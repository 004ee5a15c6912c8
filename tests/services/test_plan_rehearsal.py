"""A plan that is carried out headless, looked at without workers: what is started, what is done by hand, what is stuck."""

import pytest

from upgrades.adapters import simulator_client
from upgrades.models import RegisterEntry, Run
from upgrades.services import plan_rehearsal, procedures

pytestmark = pytest.mark.django_db


@pytest.fixture
def course(simulator):
    procedures.publish_all()
    world = simulator_client.create_world({"world": "two-small-sites", "speed": 1000})
    plan = plan_rehearsal.prepare(world)
    plan.save()
    return plan_rehearsal.Course(plan)


def test_only_what_nothing_holds_is_started(course):
    lines = course.turn()
    assert [line for line in lines if "started" in line] == [
        f"run {Run.objects.get().pk} started: scs_a and scs_b (management-layer)"
    ]
    assert not course.is_over
    course.turn()
    assert Run.objects.count() == 1


def test_what_has_no_procedure_is_done_by_hand_and_its_new_version_entered(course):
    assert "done by hand, by its own guide: dbserver" in course.turn()
    versions = {
        server["name"]: server["version"] for server in simulator_client.state(course.plan.world)["servers"]
    }
    entered = course.plan.environment.applications.get(name="dbserver").version
    assert versions["dbserver"] == entered == "8.5.101"
    assert RegisterEntry.objects.filter(book=f"changes/{course.plan.environment.pk}").count() == 1


def test_the_start_waits_for_its_approval(course):
    course.turn()
    [rehearsal] = course.open.values()
    assert "approved-start: " in rehearsal.stands_at()
    rehearsal.turn()
    assert "approved-start: " not in rehearsal.stands_at()


def test_what_does_not_get_on_is_told_with_its_reason(course):
    for _ in range(5):
        course.turn()
    [run, *items] = course.stuck()
    assert run.startswith(f"Run {Run.objects.get().pk} stands at ")
    assert any("scs_a and scs_b belong to run" in item for item in items)


def test_a_plan_that_is_not_carried_out_names_what_is_left(course):
    complaints = course.plan.complaints()
    assert "confserv and confserv_b is still to do" in complaints
    assert course.plan.progress() == (0, 17)
