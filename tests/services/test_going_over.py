"""A run that goes over to another text: its rows follow, its evidence stays, and it can be made anew from its events."""

import pytest
from django.utils import timezone

from tests.services.conftest import a_night
from upgrades.adapters import event_store
from upgrades.domain.run_events import GAPS
from upgrades.models import Environment, LogFile, LogLine, ProcedureVersion
from upgrades.services import procedures, projections
from upgrades.services.procedures import publish

OVER = ["21-22911", "21-22902"]


@pytest.fixture
def launching(db, monkeypatch):
    """A run of the shorter procedure that watches its new server start."""
    monkeypatch.setattr(
        "upgrades.services.runs.take_watermarks",
        lambda _environment, names: {
            name: {f"log of {name}": 100 * LogLine.objects.count(), GAPS: 0} for name in names
        },
    )
    make = Environment.save

    def with_schema(self, *args, **kwargs):
        self.schema_version = "8.1.1"
        if kwargs.get("update_fields"):
            kwargs["update_fields"] = [*kwargs["update_fields"], "schema_version"]
        make(self, *args, **kwargs)

    monkeypatch.setattr(Environment, "save", with_schema)
    for night in a_night(procedure="config-server-ha-same-schema", parameters={"target": "8.5.101"}):
        monkeypatch.setattr(Environment, "save", make)
        night.go_to("launch-new")
        night.advance()
        yield night


def logs(night, *events):
    server = night.server("new")
    file = LogFile.objects.get_or_create(application=server, identity=f"log of {server.name}")[0]
    for number, event in enumerate(events, LogLine.objects.count()):
        LogLine.objects.create(
            file=file,
            offset=number * 100,
            length=40,
            kind=LogLine.Kind.EVENT,
            event=event,
            level="Std",
            text=f"(synthetic text of {event})",
            raw=event.encode(),
            read_at=timezone.now(),
        )
    night.advance()


@pytest.mark.requirement("CSM-4b")
def test_the_run_follows_the_other_text_and_keeps_what_is_done(launching):
    logs(launching, *OVER)
    row = launching.row
    assert (row.procedure.procedure, row.current_step) == ("config-server-ha", "read-only")
    assert row.steps.get(step="backup-database").status == "done"
    assert launching.verdict("backup-database", "database-copy").is_met
    assert launching.kinds.count("run.gone-over") == 1


def test_the_run_goes_on_to_forcing_upgrade_mode_and_the_second_launch(launching):
    logs(launching, *OVER)
    launching.go_to("force-upgrade-mode")
    launching.go_to("launch-new")
    assert launching.visit("launch-new") == 2
    assert "replace-folder" in [row.step for row in launching.row.steps.all() if row.status == "done"]


def test_the_rows_made_anew_from_the_events_name_the_text_that_the_run_follows(launching):
    logs(launching, *OVER)
    run = launching.row
    run.procedure = ProcedureVersion.objects.get(procedure="config-server-ha-same-schema")
    run.save(update_fields=["procedure"])
    projections.rebuild(launching.run)
    assert launching.row.procedure.procedure == "config-server-ha"
    assert list(event_store.broken_links(launching.run)) == []


def test_with_the_announcement_it_stays_with_its_own_text(launching):
    logs(launching, "21-22911", "21-25303", "21-22172")
    assert launching.row.procedure.procedure == "config-server-ha-same-schema"
    assert launching.state.current == "stop-old"


def test_publishing_a_text_publishes_the_one_that_runs_go_over_to(db):
    publish(procedures.FOLDER / "config-server-ha-same-schema" / "1.yaml")
    assert set(ProcedureVersion.objects.values_list("procedure", flat=True)) == {
        "config-server-ha",
        "config-server-ha-same-schema",
    }


@pytest.mark.requirement("PRX-0")
def test_what_is_published_of_a_text_that_extends_another_one_stands_for_itself(db):
    publish(procedures.FOLDER / "config-server-proxy" / "1.yaml")
    version = ProcedureVersion.objects.get()
    assert "extends:" not in version.text
    assert "stop-server" in version.text
    assert publish(procedures.FOLDER / "config-server-proxy" / "1.yaml").is_new is False
