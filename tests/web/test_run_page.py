"""The page of a run in every state that a run can be in."""

import re

import pytest

from tests import factories
from tests.web.run_scene import REASON, Stage, closing, no_agents, rehearsed
from upgrades.domain import run as core
from upgrades.models import LogFile, LogLine, Membership

pytestmark = pytest.mark.django_db

HOSTILE = '<img src=x onerror=alert(1)><b hx-post="/x" hx-trigger="load">{{7*7}}\x1b[31m\u202e {}'


@pytest.fixture(autouse=True)
def _no_agents(monkeypatch):
    no_agents(monkeypatch)


@pytest.fixture
def show(client):
    """The page of a stage's run as one of its people sees it: the text of its elements, without the tags."""

    def get(stage, who=None, query="", raw=False):
        client.force_login(who or stage.operator)
        answer = client.get(f"/runs/{stage.run_id}/{query}")
        assert answer.status_code == 200
        text = answer.content.decode()
        return text if raw else " ".join(re.sub(r"<[^>]+>", " ", text).split())

    return get


def forms_in(html):
    """The acts whose forms are on the page."""
    return set(re.findall(r'action="/runs/\d+/([a-z-]+)/"', html))


# States.


def test_a_run_that_has_just_started_asks_for_what_only_a_person_can_know(show):
    html = show(Stage(), raw=True)
    assert "The packages of version 8.5.101 lie on fra-cfg-02 and fra-cfg-01" in html
    assert "confirm" in forms_in(html)
    assert re.search(r"<button[^>]*disabled>Complete this step", html)


def test_the_way_back_is_not_ready_before_its_proofs_are_there(show):
    assert "Way back not ready step 5 needs it; missing: A copy of the configuration database" in show(
        Stage()
    )


def test_a_step_that_waits_for_approval_cannot_be_begun_by_the_operator(show):
    html = show(Stage().reach("stop-old"), raw=True)
    assert re.search(r"<button[^>]*disabled>Begin step 7", html)
    assert not {"sign", "reject"} & forms_in(html)
    assert "whoever started the run may not approve it" in html


def test_the_approver_sees_exactly_what_is_signed(show):
    stage = Stage().reach("stop-old")
    html = show(stage, stage.approver, raw=True)
    digest = stage.digest(stage.step.gate("approval"))
    assert {"sign", "reject"} <= forms_in(html)
    assert f'name="digest" value="{digest}"' in html
    assert digest[:12] + "…" in html
    text = show(stage, stage.approver)
    assert "Evidence: The copy of the database /backup/cfg_8130.dmp" in text
    assert "Open exposures and duties" in text
    assert "Master not redundant, " in text or ", Master not redundant" in text


def test_a_signed_step_may_be_begun(show):
    stage = Stage().reach("stop-old")
    stage.sign(stage.step.gate("approval"))
    html = show(stage, raw=True)
    assert "Signed by Tomas Lindqvist." in html
    assert re.search(r"<button[^>]*data-needs-fresh>Begin step 7", html)


def test_whoever_signed_is_told_that_another_person_begins(show):
    stage = Stage().reach("stop-old")
    stage.sign(stage.step.gate("approval"))
    html = show(stage, stage.approver, raw=True)
    assert "You signed this." in html
    assert "sign" not in forms_in(html)


def watching(*events, **changes):
    stage = Stage(**changes).reach("launch-new")
    stage.advance()
    if events:
        stage.log("confserv_b", "00-05060", *events)
    return stage


def test_a_track_shows_what_was_seen_what_is_due_and_what_was_counted(show):
    stage = watching("21-22911", "21-25301", "21-25302", "21-25302")
    html = show(stage, raw=True)
    assert re.search(r'class="station seen"><b class="mono">21-25301</b> upgrade mode, found', html)
    assert re.search(r'class="station next"><b class="mono">21-22170 or 21-22171</b>', html)
    text = show(stage)
    assert "21-25302 refused to become backup, as it should, normal × 2" in text
    assert "Waiting for 21-22170 or 21-22171 from confserv_b." in text
    assert "still possible" in text
    assert "5 other outcomes ruled out" in text


def test_the_log_marks_the_lines_that_count(show):
    html = show(watching("21-22911", "21-25301", "21-25302"), raw=True)
    kinds = re.findall(r'<li class="(\w+)"><span class="clock">.*?<b><bdi[^>]*>(\d+)</bdi>', html)
    assert ("hit", "25301") in kinds
    assert ("normal", "25302") in kinds


def test_the_agent_that_reads_the_log_is_named_with_its_position(show):
    text = show(watching("21-22911"))
    assert "The agent on fra-cfg-02 reads the log of confserv_b" in text
    assert "read up to position 160, counted from 0, marked when the step began" in text
    assert "not read yet" not in text


def test_a_log_that_is_longer_than_what_was_read_of_it_is_said_to_be(show):
    """F38: after a burst of lines the newest ones come later, and nobody may take the last one shown for the last one."""
    stage = watching("21-22911")
    LogFile.objects.filter(application__name="confserv_b").update(size=160 + 5 * 1024 * 1024)
    assert "5.0 MB not read yet: what the server said last comes later" in show(stage)


def test_an_agent_in_trouble_is_said_to_be(show):
    stage = watching()
    stage.environment.agents.filter(host__name="fra-cfg-02").update(trouble="It does not answer: timed out.")
    text = show(stage)
    assert "The agent on fra-cfg-02 does not read the log of confserv_b" in text
    assert "timed out" in text


def test_a_doubt_keeps_the_gate_shut_and_can_be_asked_to_be_set_aside(show):
    stage = watching("21-22911", "21-25301")
    stage.gap("confserv_b", "the file shrank")
    html = show(stage, raw=True)
    assert "Cannot tell" in html
    assert "Part of the log could not be read" in html
    assert re.search(r'name="doubt" value="\d+"', html)


@pytest.mark.bad_input("D10")
def test_a_rule_that_puts_on_hold_shows_why_and_how_to_go_on(show):
    html = show(watching("21-22911", "21-25301", "21-22171"), raw=True)
    assert "On hold." in html
    assert "says that its database was upgraded" in html
    assert 'class="station against"' in html
    assert "resume" in forms_in(html)
    assert "restart" not in forms_in(html), "begin again only after the run is resumed, as the core has it"


def test_a_failed_probe_shows_the_three_names_side_by_side(show):
    stage = Stage().reach("install-new")
    stage.advance()
    stage.probe(stage.step.gate("names-equal"), "failed")
    text = show(stage)
    assert "Section confserv_b Application confserv_b -s confserv " in text
    assert "Gate failed" in text


def test_clients_can_be_proved_in_two_ways(show):
    stage = Stage().reach("await-clients")
    text = show(stage)
    assert "There is no client total of confserv from before its shutdown" in text
    assert "Yes, every client shows its reconnection" in text


def test_an_asked_deviation_is_signed_by_a_second_person_only(show):
    stage = Stage().reach("read-only")
    stage.advance()
    stage.act(core.AskDeviation(**stage.seen, what="skip", reason=REASON))
    assert "sign-deviation" not in forms_in(show(stage, raw=True))
    html = show(stage, stage.approver, raw=True)
    assert {"sign-deviation", "reject-deviation"} <= forms_in(html)
    assert "Skip step 3, “Switch the environment to read-only”" in html


def test_a_closing_run_asks_a_second_person_to_take_over_what_is_open(show):
    stage = closing()
    assert "take-over" not in forms_in(show(stage, raw=True))
    html = show(stage, stage.approver, raw=True)
    assert "take-over" in forms_in(html)
    assert "Upgrade confserv to 8.5.101 as well" in html


def test_an_ended_run_is_its_report(show):
    stage = Stage().finish()
    html = show(stage, raw=True)
    assert "data-live-url" not in html
    assert not forms_in(html)
    text = show(stage)
    assert "Ended as “completed”." in text
    assert "Client downtime" in text
    assert "Approvals Tomas Lindqvist step 7, Shut down confserv" in text
    assert "/backup/cfg_8130.dmp" in text
    assert f"{stage.state.seq} events, each chained to the one before" in text


def test_an_aborted_run_says_why(show):
    stage = Stage()
    stage.act(core.Abort(reason="The window was withdrawn by the business."))
    text = show(stage)
    assert "Aborted. The window was withdrawn by the business." in text


def test_a_rehearsal_is_marked_as_one(show, monkeypatch):
    stage = rehearsed(monkeypatch)
    html = show(stage, raw=True)
    assert '<body class="rehearsal ' in html
    assert "Rehearsal on simulated servers" in html


def test_notes_keep_their_lines(show):
    stage = Stage()
    stage.act(core.AddNote(text="first line\nsecond line"))
    assert "first line\nsecond line" in show(stage, raw=True)


def test_a_run_that_cannot_be_aborted_says_what_is_open(show):
    text = show(Stage().reach("replace-folder"))
    assert "It cannot be aborted now" in text


def test_the_record_is_cut_and_can_be_had_whole(show):
    stage = Stage().reach("stop-old")
    assert "older ones too" in show(stage)
    whole = show(stage, query="?record=all", raw=True)
    assert 'id="event-1"' in whole
    assert "older ones too" not in whole


# Rights.


def test_a_stranger_cannot_tell_the_run_from_one_that_is_not_there(client):
    stage = Stage()
    client.force_login(factories.make_user(name="stranger"))
    for path in ("", "board/", "evidence/1/"):
        assert client.get(f"/runs/{stage.run_id}/{path}").status_code == 404
    assert client.post(f"/runs/{stage.run_id}/hold/", {"reason": "because"}).status_code == 404


def test_a_superuser_has_no_right_of_its_own(client):
    stage = Stage()
    client.force_login(factories.make_user(name="root", is_superuser=True))
    assert client.get(f"/runs/{stage.run_id}/").status_code == 404


def test_an_auditor_sees_everything_and_may_do_nothing(show):
    stage = watching("21-22911")
    assert not forms_in(show(stage, stage.auditor, raw=True))
    assert "Launch the new instance" in show(stage, stage.auditor)


def test_without_a_session_the_way_leads_to_the_sign_in(client):
    stage = Stage()
    assert client.get(f"/runs/{stage.run_id}/").status_code == 302
    board = client.get(f"/runs/{stage.run_id}/board/", headers={"HX-Request": "true"})
    assert board.status_code == 401


# The text of strangers.


def test_hostile_text_is_shown_harmlessly_wherever_it_stands(show):
    stage = watching()
    stage.log("confserv_b", "21-22911", text=HOSTILE)
    stage.gap("confserv_b", HOSTILE)
    stage.act(core.AddNote(text=HOSTILE.replace("\x1b", "")))
    stage.act(core.AskDeviation(**stage.seen, what="skip", reason=HOSTILE.replace("\x1b", "")))
    html = show(stage, raw=True)
    assert "<img" not in html
    assert "<b hx-post" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert html.count("&lt;img") >= 4


# The live region.


def board(client, stage, etag=None):
    headers = {"HX-Request": "true"} | ({"If-None-Match": etag} if etag else {})
    return client.get(f"/runs/{stage.run_id}/board/", headers=headers)


def test_the_board_is_the_region_alone_with_a_ticket_for_the_stream(client):
    stage = watching()
    client.force_login(stage.operator)
    answer = board(client, stage)
    html = answer.content.decode()
    assert html.lstrip().startswith('<div class="board" id="board"')
    assert "<html" not in html
    assert f'data-stream-url="/stream/runs/{stage.run_id}/?ticket=' in html
    assert answer["Cache-Control"] == "no-store"


def test_the_board_answers_304_until_something_changes(client):
    stage = watching()
    client.force_login(stage.operator)
    etag = board(client, stage)["ETag"]
    assert board(client, stage, etag).status_code == 304
    assert board(client, stage, f"W/{etag.removeprefix('W/')}").status_code == 304
    stage.log("confserv_b", "21-22911")
    assert board(client, stage, etag).status_code == 200


def test_the_etag_of_one_person_says_nothing_about_another(client):
    stage = watching()
    client.force_login(stage.operator)
    etag = board(client, stage)["ETag"]
    client.force_login(stage.second)
    assert board(client, stage, etag).status_code == 200


def test_a_role_that_was_taken_away_shows_at_the_next_question(client):
    stage = watching()
    client.force_login(stage.operator)
    etag = board(client, stage)["ETag"]
    Membership.objects.filter(user=stage.operator).update(role="auditor")
    assert board(client, stage, etag).status_code == 200
    Membership.objects.filter(user=stage.operator).delete()
    assert board(client, stage, etag).status_code == 404


# Cost.


def test_the_page_of_a_long_run_costs_few_queries(client, django_assert_max_num_queries):
    stage = Stage().reach("launch-new")
    stage.advance()
    stage.log("confserv_b", "00-05060", "21-22911", "21-25301", *["21-25302"] * 400)
    assert LogLine.objects.count() > 400
    client.force_login(stage.operator)
    with django_assert_max_num_queries(12):
        assert client.get(f"/runs/{stage.run_id}/").status_code == 200


def test_a_page_that_has_not_changed_costs_three_queries(client, django_assert_max_num_queries):
    stage = watching()
    client.force_login(stage.operator)
    etag = board(client, stage)["ETag"]
    with django_assert_max_num_queries(3):  # session, person, the run as this person sees it
        assert board(client, stage, etag).status_code == 304
