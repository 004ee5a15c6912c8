"""What people do on the page of a run: every act as a plain form, with htmx, repeated, late, wrong and forbidden."""

import re
from pathlib import Path
from urllib.parse import unquote
from uuid import uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, transaction

from tests.factories import show_who
from tests.web.run_scene import REASON, Stage, closing, no_agents
from upgrades.adapters import event_store
from upgrades.domain import run as core
from upgrades.domain import run_events as e
from upgrades.domain.run_state import StepStatus
from upgrades.models import Evidence, RunEvent
from upgrades.web.forms import FORMS

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_agents(monkeypatch):
    no_agents(monkeypatch)


@pytest.fixture
def send(client):
    """Sends an act as one of the stage's people; `htmx` asks for the fragment."""

    def post(stage, verb, who=None, htmx=False, **data):
        client.force_login(who or stage.operator)
        show_who(client, who or stage.operator)
        headers = {"HX-Request": "true"} if htmx else {}
        fields = {"command_id": str(uuid4()), **data}
        return client.post(f"/runs/{stage.run_id}/{verb}/", fields, headers=headers)

    return post


def kinds(stage):
    return list(RunEvent.objects.filter(run=stage.run_id).order_by("seq").values_list("kind", flat=True))


def waiting():
    """A run whose first step waits for two confirmations."""
    stage = Stage()
    stage.advance()
    return stage


# Acting.


FULL = """
CREATE FUNCTION disk_is_full() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER disk_is_full BEFORE INSERT ON upgrades_runevent FOR EACH ROW EXECUTE FUNCTION disk_is_full();
"""


def failing(state):
    return FULL.replace("53100", state)


@pytest.mark.parametrize(
    ("what", "says", "now"),
    [
        (FULL, "its disk is full", "Runs can still be read"),
        ("SET LOCAL transaction_read_only = on", "it is read-only", "Runs can still be read"),
        (failing("55P03"), "Something else is at work in the same place", "Send it again in a few seconds"),
        (failing("40P01"), "Something else is at work in the same place", "Send it again in a few seconds"),
    ],
)
def test_a_database_that_does_not_do_it_says_so_and_can_be_read(client, what, says, now):
    """F19: the act is not done, and whoever sent it learns what is wrong; the run can still be looked at."""
    stage = waiting()
    client.force_login(stage.operator)
    show_who(client, stage.operator)
    before = kinds(stage)
    client.raise_request_exception = False
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(what)
        fields = {"command_id": str(uuid4()), "text": "The dump is on tape 7."}
        answer = client.post(f"/runs/{stage.run_id}/note/", fields)
        assert (answer.status_code, answer["Retry-After"]) == (503, "5")
        assert says in answer.text
        assert now in answer.text
        assert says in unquote(answer["X-Refusal"])  # what the script of the page shows above what was typed
        assert kinds(stage) == before
        assert client.get(f"/runs/{stage.run_id}/").status_code == 200
        transaction.set_rollback(True)


def test_a_plain_form_acts_and_leads_back_to_the_page(send):
    stage = waiting()
    answer = send(stage, "note", text="The dump is on tape 7.")
    assert (answer.status_code, answer["Location"]) == (303, f"/runs/{stage.run_id}/")
    assert kinds(stage)[-1] == "note.added"


def test_with_htmx_the_board_comes_back(send):
    stage = waiting()
    answer = send(stage, "note", htmx=True, text="The dump is on tape 7.")
    html = answer.content.decode()
    assert answer.status_code == 200
    assert html.lstrip().startswith('<div class="board" id="board"')
    assert "The dump is on tape 7." in html


def test_a_confirmation_with_its_text_stands_in_the_record(send):
    stage = waiting()
    send(
        stage,
        "confirm",
        **stage.seen,
        gate="packages-delivered",
        answer="pass",
        text="Both hosts, md5 compared",
    )
    assert (
        stage.state.gate("prerequisites", "packages-delivered").confirmations[-1].event.text
        == "Both hosts, md5 compared"
    )


def test_a_step_is_completed_and_the_next_one_comes(send):
    stage = waiting()
    stage.fulfil(stage.step.gates)
    answer = send(stage, "complete", **stage.seen)
    assert answer.status_code == 303
    assert stage.state.current == "backup-database"


def test_evidence_can_be_a_text(send):
    stage = Stage().reach("backup-database")
    stage.advance()
    send(stage, "attach", **stage.seen, gate="database-copy", text="/backup/cfg.dmp, sha256 9f2c")
    assert stage.state.gate("backup-database", "database-copy").evidence


def test_approval_beginning_and_what_follows(send):
    stage = Stage().reach("stop-old")
    gate = stage.step.gate("approval")
    signed = send(stage, "sign", stage.approver, **stage.seen, gate="approval", digest=stage.digest(gate))
    assert signed.status_code == 303
    assert send(stage, "begin", **stage.seen).status_code == 303
    assert stage.state.steps["stop-old"].status is StepStatus.BEGUN


def test_a_rejection_needs_its_reason_and_shuts_the_gate(send):
    stage = Stage().reach("stop-old")
    digest = stage.digest(stage.step.gate("approval"))
    answer = send(stage, "reject", stage.approver, **stage.seen, gate="approval", digest=digest, reason="no")
    assert answer.status_code == 400
    send(stage, "reject", stage.approver, **stage.seen, gate="approval", digest=digest, reason=REASON)
    assert kinds(stage)[-1] == "approval.rejected"


def test_hold_and_resume(send):
    stage = waiting()
    send(stage, "hold", reason="The phones ring.")
    assert stage.state.status == "held"
    send(stage, "resume", reason="It was a drill.")
    assert stage.state.status == "running"


def test_a_step_is_begun_again(send):
    stage = Stage().reach("read-only")
    stage.advance()
    send(stage, "restart", **stage.seen, reason=REASON)
    stage.advance()
    assert stage.seen == {"step": "read-only", "visit": 2}


@pytest.mark.parametrize(
    ("about", "what", "gate"), [("skip", "skip", ""), ("override:switched-on", "override", "switched-on")]
)
def test_a_deviation_is_asked_for_and_signed_by_another(send, about, what, gate):
    stage = Stage().reach("read-only")
    stage.advance()
    send(stage, "ask-deviation", **stage.seen, about=about, reason=REASON)
    asked = stage.state.deviations[1]
    assert (asked.what, asked.gate) == (what, gate)
    assert send(stage, "sign-deviation", number=1).status_code == 403
    assert send(stage, "sign-deviation", stage.approver, number=1).status_code == 303
    assert stage.state.deviations[1].signed


def test_a_deviation_is_rejected(send):
    stage = Stage().reach("read-only")
    stage.advance()
    send(stage, "ask-deviation", **stage.seen, about="skip", reason=REASON)
    send(stage, "reject-deviation", stage.approver, number=1, reason="The mode must be seen.")
    assert not stage.state.deviations[1].signed
    assert not stage.state.deviations[1].is_open


def test_a_doubt_is_asked_to_be_set_aside(send):
    stage = Stage().reach("launch-new")
    stage.advance()
    stage.log("confserv_b", "00-05060", "21-22911")
    stage.gap("confserv_b")
    seq = next(item.seq for item in event_store.load(stage.run_id) if isinstance(item.event, e.LogDoubtful))
    send(stage, "ask-deviation", **stage.seen, doubt=seq, reason=REASON)
    assert (stage.state.deviations[1].what, stage.state.deviations[1].doubt) == ("doubt", seq)


def test_what_is_left_open_is_taken_over_and_later_reported_done(send):
    stage = closing()
    burden = next(iter(stage.state.burdens))
    assert send(stage, "take-over", burden=burden, reason=REASON).status_code == 403
    for burden in list(stage.state.burdens):
        send(stage, "take-over", stage.approver, burden=burden, reason=REASON)
    stage.advance()
    assert stage.state.status == "ended"
    answer = send(stage, "close-burden", stage.approver, burden=burden, text="Run 12 upgraded it.")
    assert answer.status_code == 303
    assert burden not in stage.state.burdens


def test_a_run_is_aborted_with_a_reason(send):
    stage = waiting()
    send(stage, "abort", reason="The window was withdrawn.")
    assert stage.state.status == "aborted"


# Twice, late, out of turn.


def test_the_same_click_twice_acts_once(send):
    stage = waiting()
    once = str(uuid4())
    for _ in range(2):
        assert send(stage, "note", text="once", command_id=once).status_code == 303
    assert kinds(stage).count("note.added") == 1


@pytest.mark.bad_input("D06")
def test_an_id_that_was_used_for_something_else_is_refused(send):
    stage = waiting()
    once = str(uuid4())
    send(stage, "note", text="once", command_id=once)
    assert send(stage, "hold", reason="again", command_id=once).status_code == 400
    assert stage.state.status == "running"


@pytest.mark.bad_input("FM06")
def test_a_late_click_hits_nothing_and_shows_where_the_run_stands(send):
    stage = waiting()
    seen = stage.seen
    stage.reach("read-only")
    answer = send(stage, "confirm", **seen, gate="packages-delivered", answer="fail", text="Too late.")
    html = answer.content.decode()
    assert answer.status_code == 409
    assert "is not the current step any more" in html
    assert "3 · Switch the environment to read-only" in html
    assert stage.state.current == "read-only"


@pytest.mark.bad_input("FM06")
def test_a_step_whose_gates_are_shut_is_not_completed(send):
    stage = waiting()
    answer = send(stage, "complete", **stage.seen)
    assert answer.status_code == 409
    assert "Nobody has confirmed it yet." in answer.content.decode()
    assert "step.completed" not in kinds(stage)


@pytest.mark.bad_input("FM06", "D07")
def test_nothing_is_added_to_a_run_that_is_over(send):
    stage = waiting()
    stage.act(core.Abort(reason=REASON))
    before = kinds(stage)
    for verb, fields in [
        ("note", {"text": "late"}),
        ("resume", {"reason": REASON}),
        ("abort", {"reason": REASON}),
    ]:
        assert send(stage, verb, **fields).status_code == 409
    assert kinds(stage) == before


@pytest.mark.bad_input("D05")
def test_a_signature_over_something_that_changed_is_refused_and_shows_the_new_content(send):
    stage = Stage().reach("stop-old")
    gate = stage.step.gate("approval")
    old = stage.digest(gate)
    stage.act(core.Attach(**stage.seen, text="A newer dump was made."))
    answer = send(
        stage, "sign", stage.approver, **stage.seen, gate="approval", digest=old, comment="I agree."
    )
    html = answer.content.decode()
    assert answer.status_code == 409
    assert "has changed since you opened it" in html
    assert f'name="digest" value="{stage.digest(gate)}"' in html
    assert ">I agree.</textarea>" in html.replace("\n", "")
    assert "approval.signed" not in kinds(stage)


# Refusals keep what was typed.


def test_a_refused_text_stays_in_its_form_with_the_mistake_beside_it(send):
    stage = Stage().reach("read-only")
    stage.advance()
    answer = send(stage, "restart", **stage.seen, reason="too short")
    html = answer.content.decode()
    assert answer.status_code == 400
    assert ">too short</textarea>" in html.replace("\n", "")
    assert "is too short (9 characters)" in html
    assert 'aria-invalid="true"' in html


def test_a_refused_form_keeps_the_id_of_its_command(send):
    stage = waiting()
    sent = str(uuid4())
    html = send(stage, "hold", reason="x", command_id=sent).content.decode()
    form = re.search(r'<form[^>]*id="hold".*?</form>', html, re.DOTALL)[0]
    assert f'name="command_id" value="{sent}"' in form


def test_htmx_gets_the_reason_in_a_header_as_well(send):
    stage = waiting()
    answer = send(stage, "hold", stage.approver, htmx=True, reason="I want to.")
    assert answer.status_code == 403
    assert "Tomas Lindqvist may not put the run on hold" in unquote(answer["X-Refusal"])
    assert answer.content.decode().lstrip().startswith('<div class="board" id="board"')


def test_a_refused_right_goes_on_the_record(send):
    stage = waiting()
    send(stage, "hold", stage.auditor, reason="I want to.")
    assert kinds(stage)[-1] == "attempt.refused"


@pytest.mark.parametrize("verb", sorted(FORMS))
def test_an_auditor_may_do_nothing(send, verb):
    stage = waiting()
    fields = {
        **stage.seen,
        "gate": "packages-delivered",
        "answer": "pass",
        "text": REASON,
        "reason": REASON,
        "digest": "0" * 64,
        "about": "skip",
        "number": 1,
        "burden": "exposure:read-only",
    }
    status = stage.state.seq
    answer = send(stage, verb, stage.auditor, **fields)
    assert answer.status_code in (400, 403, 409)
    assert set(kinds(stage)[status:]) <= {"attempt.refused"}


# Bad input.


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"answer": "approved"}, id="an answer that is not offered"),
        pytest.param({"answer": "pass", "visit": "٣"}, id="digits of another script"),
        pytest.param({"answer": "pass", "visit": "-1"}, id="a negative visit"),
        pytest.param({"answer": "pass", "visit": "1" * 400}, id="a number without end"),
        pytest.param({"answer": "pass", "gate": "lca-current"}, id="a gate that nobody confirms"),
        pytest.param({"answer": "pass", "gate": "<script>"}, id="a gate that is no name"),
        pytest.param({"answer": "pass", "text": "nul \x00 byte"}, id="a NUL"),
        pytest.param({"answer": "pass", "text": "x" * 2001}, id="a text that is too long"),
        pytest.param({"answer": "pass", "command_id": "not-an-id"}, id="no id of a command"),
        pytest.param({"answer": ["pass", "fail"]}, id="the same field twice"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(send, fields):
    stage = waiting()
    before = kinds(stage)
    wanted = {**stage.seen, "gate": "packages-delivered", **fields}
    assert send(stage, "confirm", **wanted).status_code == 400
    assert kinds(stage) == before


def test_fields_that_nobody_asked_for_change_nothing(send):
    stage = waiting()
    send(stage, "note", text="hello", is_staff="1", status="ended", by="user:1")
    assert stage.state.status == "running"


def test_only_post_acts(client):
    stage = waiting()
    client.force_login(stage.operator)
    for method in (client.get, client.head, client.put, client.delete, client.patch):
        assert method(f"/runs/{stage.run_id}/hold/").status_code == 405
    assert client.post(f"/runs/{stage.run_id}/explode/").status_code == 404


# Evidence files.


@pytest.fixture
def attached(send):
    """A stage with a file attached under a name that tries something."""
    stage = Stage().reach("backup-database")
    stage.advance()
    upload = SimpleUploadedFile("../é\u202egpj.html", b"<script>alert(1)</script>", content_type="text/html")
    answer = send(stage, "attach", **stage.seen, gate="database-copy", file=upload)
    assert answer.status_code == 303
    return stage, Evidence.objects.get(run=stage.run_id)


def test_a_file_is_only_ever_a_download(client, attached):
    stage, row = attached
    client.force_login(stage.auditor)
    answer = client.get(f"/runs/{stage.run_id}/evidence/{row.pk}/")
    assert answer.getvalue() == b"<script>alert(1)</script>"
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Disposition"] == "attachment; filename*=UTF-8''%C3%A9gpj.html"
    assert answer["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert answer["X-Content-Type-Options"] == "nosniff"


def test_a_file_that_was_exchanged_on_disk_is_not_given_out(client, attached):
    stage, row = attached
    Path(row.file.path).write_bytes(b"something else")
    answer = client.get(f"/runs/{stage.run_id}/evidence/{row.pk}/")
    assert answer.status_code == 503
    assert "is not what was attached" in answer.content.decode()


def test_a_file_belongs_to_its_run_only(client, attached):
    stage, row = attached
    assert client.get(f"/runs/{stage.run_id + 1}/evidence/{row.pk}/").status_code == 404
    assert client.get(f"/runs/{stage.run_id}/evidence/{row.pk + 1}/").status_code == 404


def test_an_empty_file_is_refused_with_a_reason(send):
    stage = Stage().reach("backup-database")
    stage.advance()
    answer = send(stage, "attach", **stage.seen, gate="database-copy", file=SimpleUploadedFile("a.dmp", b""))
    assert answer.status_code == 400
    assert "The file is empty" in answer.content.decode()
