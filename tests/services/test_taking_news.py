"""What agents say, taken in: the same lines and the same verdict however the polls cut, repeat and overlap them."""

import hashlib
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.factories import make_user
from tests.services.fake_agent import FILE, OTHER, lost, news, part
from tests.services.night import REASON
from upgrades.domain import run as core
from upgrades.domain.run_events import CHANGES, GAPS
from upgrades.models import Agent, LogFile, LogLine, ProcessChange
from upgrades.models.agent import A_LINE
from upgrades.services import agents, observations
from upgrades.services.agents import take_news

HEAD = b"Local time:       2026-11-24T10:00:00.000\n"
UPGRADE_MODE = b"10:00:01.000 Std 25301 synthetic\n"
READY = b"10:00:02.000 Std 22170 synthetic\n"
UPGRADED = b"10:00:02.000 Std 22171 synthetic\n"
STARTED = b"10:00:00.500 Std 05060 Application started\n"
REACHED = b"10:00:00.700 Std 22911 synthetic\n"
COMPARED = b"10:00:01.400 Std 22902 synthetic\n"
BACKUP = b"10:00:02.100 Std 22172 synthetic\n"
REFUSED = b"10:00:01.500 Std 25302 synthetic\n"
DEBUG = b"10:00:01.600 [HISTORYDB]: Data record 1 has been written\n"
MORE = b"   and a further line of it\n"
TOTAL = b"10:00:01.700 Total number of clients: 84\n"
UNKNOWN = b"<<< not a line of any format >>>\n"
FOREIGN = b"10:00:01.800 medium host app 25301 in no field\n"
HOSTILE = {
    "NUL": b"10:00:01.000 Std 10001 a\x00b\n",
    "not UTF-8": b"10:00:01.000 Std 10002 a\xff\xfe\xed\xa0\x80b\n",
    "bidi": "10:00:01.000 Std 10003 \u202eevil\u2066\n".encode(),
    "markup": b"10:00:01.000 Std 10004 <script>alert(1)</script>\n",
    "a megabyte": b"10:00:01.000 Std 10005 " + b"x" * (1 << 20) + b"\n",
    "an unknown megabyte": b"?" * (1 << 20) + b"\n",
    "a long last line": b"10:00:01.000 Std 10006 " + b"y" * 70_000 + b"\n",
    "CR LF": b"10:00:01.000 Std 10007 text\r\n",
    "only CR": b"10:00:01.000 Std 10008 a\rb\n",
    "empty": b"\n",
}
BEFORE = HEAD + UPGRADE_MODE + READY  # what an earlier launch left in the log


@pytest.fixture
def launching(night, fake_agent):
    """A run whose step `launch-new` has begun, its watermark behind what stood in the log before."""
    fake_agent.listed = {FILE: len(BEFORE)}
    fake_agent.stands_for(night.agent("new"))
    night.go_to("launch-new")
    known = {FILE: len(BEFORE), GAPS: 0, CHANGES: 0}
    assert night.state.steps["launch-new"].watermarks == {"confserv_b": known}
    return night


def tell(night, *parts, advance=True, **more):
    taken = take_news(night.agent("new").pk, news(*parts, **more))
    if advance:
        night.advance()
    return taken


def stored():
    """All stored lines, without what depends on the moment."""
    columns = ("offset", "length", "kind", "event", "level", "logged_at", "total", "text", "raw")
    rows = LogLine.objects.order_by("file_id", "offset", "kind")
    return list(rows.values_list("file__identity", "file__generation", *columns))


def judged(night):
    """What the run makes of it: outcome, the lines that it rests on, verdict, where the run stands."""
    state = night.state
    recorded = state.gate("launch-new", "initialized")
    places = {item.seq: (item.place, item.event) for item in recorded.observations}
    reached = recorded.outcome.event if recorded.outcome else None
    proof = [places[seq] for seq in reached.lines] if reached else []
    found = night.verdict("launch-new", "initialized")
    return reached and reached.outcome, found.value, found.reason, proof, state.current, state.status


def reason(night):
    return night.verdict("launch-new", "initialized").reason


def is_waiting(night):
    return judged(night)[0] is None and reason(night).startswith("Waiting for")


def is_in_doubt(night):
    doubts = ("Part of the log", "A line has", "A file may")
    return judged(night)[0] is None and reason(night).startswith(doubts)


@contextmanager
def undone():
    """What happens in this block did not happen."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def whole(night, content, advance=True):
    """The lines and the verdict when everything comes at once."""
    with undone():
        at = 0
        while at < len(content):
            piece = part(content, at, silent=True)
            tell(night, piece, advance=advance)
            at = piece.end
        night.advance()
        return stored(), judged(night)


LINES = st.lists(
    st.sampled_from(
        [UPGRADE_MODE, READY, UPGRADED, REACHED, COMPARED, BACKUP, REFUSED]
        + [STARTED, DEBUG, MORE, TOTAL, UNKNOWN, FOREIGN]
        + [HOSTILE[name] for name in ("NUL", "not UTF-8", "bidi", "CR LF", "a long last line")]
    ),
    max_size=14,
)
# A poll: how much of the file is there by then, how much room its answer has, which answer before it comes again.
POLLS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(60, 70_000), st.integers(0, 3), st.booleans()), max_size=12
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(lines=LINES, polls=POLLS)
@example(lines=[UPGRADE_MODE, REFUSED, READY], polls=[(0.5, 100, 0, True), (0.4, 60, 1, False)])
@example(lines=[UPGRADED, UNKNOWN], polls=[(1.0, 60, 0, True)] * 6)
@pytest.mark.bad_input("L11")
def test_any_cutting_repeating_and_overlapping_of_polls_gives_the_same_lines_and_verdict(
    launching, lines, polls
):
    content = BEFORE + b"".join(lines)
    expected = whole(launching, content)
    with undone():
        answers, at = [], 0
        for share, room, again, advance in polls:
            piece = part(content, at, size=max(at, int(len(content) * share)), room=room)
            answers.append(piece)
            at = max(at, piece.end)
            for old in answers[-1 - again :]:  # the newest, and some before it once more
                tell(launching, old, advance=advance)
        for old in answers:
            tell(launching, old, advance=False)
        while at < len(content):
            piece = part(content, at, silent=True)
            tell(launching, piece)
            at = piece.end
        launching.advance()
        assert stored() == expected[0]
        assert judged(launching) == expected[1]


def test_the_property_above_sees_outcomes_and_doubts(launching):
    """Of what it draws, some opens the gate, some holds the run, some leaves a doubt."""
    assert whole(launching, BEFORE + UPGRADE_MODE + REFUSED + READY)[1][0] == "upgrade-mode"
    assert whole(launching, BEFORE + UPGRADED)[1][0] == "unplanned-database"
    doubtful = whole(launching, BEFORE + UPGRADE_MODE + UNKNOWN + READY)[1]
    assert (doubtful[0], "unknown format" in doubtful[2]) == (None, True)
    assert whole(launching, BEFORE)[1][2].startswith("Waiting for")


def test_each_stored_line_has_the_bytes_that_stand_in_the_file(launching):
    content = BEFORE + b"".join([DEBUG, MORE, *HOSTILE.values(), TOTAL, UNKNOWN, READY])
    with undone():
        at = 0
        while at < len(content):
            piece = part(content, at, silent=True)
            tell(launching, piece, advance=False)
            at = piece.end
        for line in LogLine.objects.all():
            there = content[line.offset : line.offset + line.length]
            raw = bytes(line.raw)
            assert there[: len(raw)] == raw
            assert len(raw) in (line.length, A_LINE)
            assert there.endswith(b"\n")


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.bad_input("L01", "L02")
def test_a_hostile_line_is_stored_and_does_not_stop_what_comes_after_it(launching, name):
    content = BEFORE + UPGRADE_MODE + HOSTILE[name] + READY
    tell(launching, part(content, silent=True))
    at = LogFile.objects.get().cursor
    while at < len(content):
        tell(launching, part(content, at, silent=True))
        at = LogFile.objects.get().cursor
    assert LogLine.objects.filter(event="21-22170", offset__gt=len(BEFORE)).count() == 1
    assert all("\x00" not in line.text for line in LogLine.objects.all())
    if name != "an unknown megabyte":
        assert launching.state.gate("launch-new", "initialized").outcome is not None


@pytest.mark.bad_input("L15")
def test_lines_from_before_the_watermark_never_count(launching):
    tell(launching, part(BEFORE))
    assert LogLine.objects.filter(event="21-22170").count() == 1
    assert is_waiting(launching)
    assert "log.event" not in launching.kinds


def test_a_line_that_had_begun_when_the_mark_was_set_does_not_count(night, fake_agent):
    fake_agent.listed = {FILE: len(HEAD) + 5}  # in the middle of the line that says upgrade mode
    fake_agent.stands_for(night.agent("new"))
    night.go_to("launch-new")
    tell(night, part(HEAD + UPGRADE_MODE + READY))
    assert [seen.event for seen in night.state.gate("launch-new", "initialized").observations] == ["21-22170"]
    assert is_waiting(night)


def test_in_a_rotation_the_end_of_the_old_file_comes_before_the_beginning_of_the_new_one(launching):
    first, second = BEFORE + UPGRADE_MODE, HEAD + READY
    tell(launching, part(first), part(second, file=OTHER))
    assert judged(launching)[0] == "upgrade-mode"


def test_the_order_of_events_is_that_of_the_files_not_of_the_clock(launching):
    first, second = BEFORE + READY, HEAD + UPGRADE_MODE
    tell(launching, part(first), part(second, file=OTHER))
    assert is_waiting(launching)


# Files that may not be this log.

COPY = "fe00-20e099-" + FILE.rpartition("-")[2]  # another inode, the same first line


@pytest.mark.bad_input("L15")
def test_a_copy_of_the_log_that_is_made_during_the_step_proves_nothing(launching):
    tell(launching, part(BEFORE))
    tell(launching, part(BEFORE, file=COPY, name="confserv-saved.log"))
    assert is_in_doubt(launching)
    assert "confserv-saved.log begins with the same line as confserv.log" in reason(launching)
    set_aside(launching)
    assert is_waiting(launching)
    tell(launching, part(BEFORE + UPGRADE_MODE + READY, len(BEFORE)))
    assert judged(launching)[0] == "upgrade-mode"


def test_a_copy_that_comes_before_its_log_proves_nothing(launching):
    """The agent sends what was changed longest ago first, and nothing of this log was read before."""
    copy = part(BEFORE, file=COPY, name="confserv-saved.log")
    tell(launching, copy, part(BEFORE + UPGRADE_MODE))
    assert is_in_doubt(launching)
    set_aside(launching)
    assert "log.event" in launching.kinds
    assert is_waiting(launching)


def test_a_log_that_goes_on_under_another_device_counts_once_two_people_have_said_that_it_is_the_log(
    launching,
):
    """The host was started anew, and its disk has another number since."""
    tell(launching, part(BEFORE))
    tell(launching, lost("gone", len(BEFORE)), part(BEFORE + UPGRADE_MODE + READY, file=COPY))
    assert is_in_doubt(launching)
    set_aside(launching)
    outcome, _, _, proof, *_ = judged(launching)
    assert outcome == "upgrade-mode"
    assert [place for place, _ in proof] == [(COPY, len(BEFORE)), (COPY, len(BEFORE + UPGRADE_MODE))]


def test_a_segment_that_has_a_head_of_its_own_is_in_no_doubt(launching):
    tell(launching, part(BEFORE), part(HEAD + UPGRADE_MODE + READY, file=OTHER))
    assert judged(launching)[0] == "upgrade-mode"


@pytest.mark.parametrize(
    "first", [b"", DEBUG, UNKNOWN], ids=["an event", "debug output", "half a line or so"]
)
def test_an_extract_of_the_log_that_is_made_during_the_step_proves_nothing(launching, first):
    """As by `grep 25301 confserv.log > confserv-25301.log`: a new file with old lines, but no head."""
    tell(launching, part(BEFORE))
    tell(launching, part(first + UPGRADE_MODE + READY, file=OTHER, name="confserv-25301.log"))
    assert is_in_doubt(launching)
    [text] = LogLine.objects.filter(kind=LogLine.Kind.FOREIGN).values_list("text", flat=True)
    assert text.startswith("confserv-25301.log begins without the head")


def test_the_head_of_a_new_file_may_come_with_a_later_answer_than_its_first_line(launching):
    tell(launching, part(BEFORE))
    content = b"Genesys Configuration Server\n" + HEAD + UPGRADE_MODE + READY
    tell(launching, part(content, file=OTHER, room=30))
    tell(launching, part(content, 29, file=OTHER))
    assert judged(launching)[0] == "upgrade-mode"


def test_the_first_log_of_a_server_may_begin_without_a_head(launching):
    """There is none that it could be an extract of; an agent may have come to see it in the middle of a step."""
    LogFile.objects.all().delete()
    tell(launching, part(UPGRADE_MODE + READY, file=OTHER, name="confserv-b.log"))
    assert not LogLine.objects.filter(kind=LogLine.Kind.FOREIGN).exists()


def test_a_copy_changes_no_total(launching):
    tell(launching, part(BEFORE + TOTAL))
    tell(launching, part(BEFORE + TOTAL + TOTAL.replace(b"84", b"7"), len(BEFORE + TOTAL)))
    tell(launching, part(BEFORE + TOTAL, file=COPY))
    assert launching.server("new").client_total == 7


# Gaps.


def gaps():
    return LogLine.objects.filter(kind=LogLine.Kind.GAP)


@pytest.mark.bad_input("A18")
def test_a_file_that_shrank_leaves_a_gap_and_its_new_content_is_read_from_the_start(launching):
    content = BEFORE + UPGRADE_MODE
    tell(launching, part(content))
    tell(launching, lost("shrunk", len(content)))
    assert is_in_doubt(launching)
    tell(launching, part(READY))
    assert [(line.file.generation, line.offset) for line in gaps()] == [(0, len(content))]
    seen = launching.state.gate("launch-new", "initialized").observations
    assert [(item.kind, item.place) for item in seen] == [
        ("event", (FILE, len(BEFORE))),
        ("gap", (FILE, len(content))),
        ("event", (f"{FILE}~1", 0)),
    ]
    assert judged(launching)[0] is None


def test_a_file_that_went_away_unread_leaves_a_gap_and_a_wholly_read_one_leaves_none(launching):
    tell(launching, part(BEFORE))
    with undone():
        tell(launching, lost("gone", len(BEFORE)))
        assert not gaps().exists()
        assert is_waiting(launching)
    tell(
        launching, part(BEFORE + READY, len(BEFORE), room=10)
    )  # it has grown; there was no room for the line
    tell(launching, part(BEFORE + READY, size=len(BEFORE + READY), room=len(BEFORE)))
    LogFile.objects.update(size=len(BEFORE + READY))
    tell(launching, lost("gone", len(BEFORE)))
    assert gaps().count() == 1
    assert is_in_doubt(launching)


def test_a_file_that_went_away_while_nobody_looked_leaves_a_gap_once_another_one_begins(launching):
    """The agent was away; meanwhile the server logged 25301 and began a new segment, and the old one was taken away."""
    there = BEFORE + REACHED
    tell(launching, part(there))
    agents.record_trouble(launching.agent("new").pk, "no connection", at=timezone.now())
    tell(launching, lost("gone", len(there)), part(HEAD + COMPARED, file=OTHER, name="confserv.2.log"))
    assert [(line.file.identity, line.offset) for line in gaps()] == [(FILE, len(there))]
    assert is_in_doubt(launching)
    assert "it went away before confserv.2.log was there" in reason(launching)


def test_a_file_whose_successor_was_known_leaves_no_gap_when_it_expires(launching):
    rest = HEAD + COMPARED
    tell(launching, part(BEFORE + REACHED), part(rest, file=OTHER))
    tell(launching, lost("gone", len(BEFORE + REACHED)), part(rest + DEBUG, len(rest), file=OTHER))
    third = OTHER.replace("20e093", "20e094").replace("0123", "9876")
    tell(launching, part(HEAD, file=third))
    assert not gaps().exists()
    assert judged(launching)[0] == "not-detected"


def test_a_copy_is_not_the_successor_of_its_log(night, fake_agent):
    fake_agent.listed = {FILE: len(BEFORE), COPY: len(HEAD)}
    fake_agent.stands_for(night.agent("new"))
    night.go_to("launch-new")
    tell(night, part(BEFORE), part(HEAD, file=COPY))
    assert is_waiting(night)
    tell(night, lost("gone", len(BEFORE)), part(HEAD + COMPARED, file=OTHER))
    assert [line.file.identity for line in gaps()] == [FILE]
    assert is_in_doubt(night)


WITHHELD = "confserv.1.log cannot be read: Permission denied."


def tell_some(night, *parts, trouble=WITHHELD):
    """What the agent could read, and what it says that it could not."""
    said = news(*parts)
    found = replace(said.applications["confserv_b"], complete=False, trouble=(trouble,))
    take_news(night.agent("new").pk, replace(said, applications={"confserv_b": found}))
    night.advance()


def test_what_the_agent_cannot_read_leaves_a_gap_before_what_it_can(launching):
    tell(launching, part(BEFORE + REACHED))
    tell_some(launching, part(HEAD + COMPARED, file=OTHER))
    assert is_in_doubt(launching)
    assert WITHHELD in reason(launching)


def test_trouble_that_lasts_is_one_gap_and_another_one_is_another(launching):
    content = BEFORE
    tell(launching, part(content))
    for _ in range(3):
        tell_some(launching, part(content + DEBUG, len(content)))
        content += DEBUG
    assert gaps().count() == 1
    tell_some(launching, trouble="confserv.2.log cannot be read: Permission denied.")
    assert gaps().count() == 2
    tell(launching, part(content + DEBUG, len(content)))  # all is well again
    tell_some(launching, trouble="confserv.2.log cannot be read: Permission denied.")
    assert gaps().count() == 3


def test_what_the_agent_cannot_read_of_a_log_that_nobody_has_read_leaves_a_gap_before_its_first_line(
    launching,
):
    tell_some(launching)
    assert not LogFile.objects.exists()
    tell_some(launching, part(REACHED + COMPARED, file=OTHER))
    seen = launching.state.gate("launch-new", "initialized").observations
    assert [(item.kind, item.place) for item in seen][:2] == [("gap", (OTHER, 0)), ("event", (OTHER, 0))]
    assert is_in_doubt(launching)


def test_trouble_that_was_over_when_a_step_began_and_comes_again_is_told_to_it(night, fake_agent):
    fake_agent.stands_for(night.agent("new"))
    tell(night, part(BEFORE), advance=False)
    tell_some(night)
    fake_agent.listed = {FILE: len(BEFORE)}
    night.go_to("launch-new")
    assert is_waiting(night)
    tell_some(night)
    assert is_in_doubt(night)


def test_what_is_lost_counts_although_it_began_before_the_mark(launching):
    """The log was read up to its head only when the step began; then the file went away with all that was new."""
    tell(launching, part(BEFORE + READY, room=len(HEAD)))
    assert LogFile.objects.get().cursor == len(HEAD) < len(BEFORE)
    tell(launching, lost("gone", len(HEAD)))
    assert is_in_doubt(launching)


def test_a_gap_from_before_the_step_does_not_count(night, fake_agent):
    fake_agent.stands_for(night.agent("new"))
    tell(night, part(BEFORE), part(BEFORE, file=OTHER, room=len(HEAD)), advance=False)
    tell(night, lost("shrunk", len(BEFORE)), lost("gone", len(HEAD), OTHER), advance=False)
    assert gaps().count() == 2
    fake_agent.listed = {FILE: 10}
    night.go_to("launch-new")
    assert is_waiting(night)


def test_lines_that_a_shrunk_file_was_refilled_with_before_the_step_do_not_count(night, fake_agent):
    fake_agent.stands_for(night.agent("new"))
    tell(night, part(BEFORE), advance=False)
    tell(night, lost("shrunk", len(BEFORE)), advance=False)
    fake_agent.listed = {FILE: len(UPGRADE_MODE + READY)}
    night.go_to("launch-new")
    tell(night, part(UPGRADE_MODE + READY + REFUSED))
    seen = night.state.gate("launch-new", "initialized").observations
    assert [(item.event, item.place) for item in seen] == [
        ("21-25302", (f"{FILE}~1", len(UPGRADE_MODE + READY)))
    ]


def until_launch(night):
    """Stop before `launch-new` and go on without a poll, so that the worker marks the log and looks at once."""
    night.go_to("replace-folder")
    night.act(core.Begin(step="replace-folder", visit=1))
    night.answer_probes()
    night.act(core.Complete(step="replace-folder", visit=1))
    night.advance()


def test_lines_of_a_file_that_shrank_and_was_read_on_before_the_step_do_not_count(night, fake_agent):
    fake_agent.stands_for(night.agent("new"))
    tell(night, part(BEFORE), advance=False)
    tell(night, lost("shrunk", len(BEFORE)), advance=False)
    tell(night, part(HEAD), advance=False)
    fake_agent.listed = {FILE: len(HEAD)}
    until_launch(night)
    marks = night.state.steps["launch-new"].watermarks["confserv_b"]
    assert (marks[FILE], marks[f"{FILE}~1"]) == (len(BEFORE), len(HEAD))
    assert is_waiting(night)
    assert "log.event" not in night.kinds


def test_lines_of_a_file_that_had_shrunk_when_the_step_began_unnoticed_do_not_count(night, fake_agent):
    fake_agent.stands_for(night.agent("new"))
    tell(night, part(BEFORE), advance=False)
    fake_agent.listed = {FILE: len(HEAD)}  # truncated, and no poll has seen it yet
    until_launch(night)
    assert is_waiting(night)
    tell(night, lost("shrunk", len(BEFORE)))
    assert is_in_doubt(night), "when that happened, nobody can tell"
    set_aside(night)
    tell(night, part(HEAD + UPGRADE_MODE + READY))
    assert judged(night)[0] == "upgrade-mode"


def test_a_file_that_is_back_is_read_on_where_it_was_left(launching):
    tell(launching, part(BEFORE))
    tell(launching, lost("gone", len(BEFORE)))
    content = BEFORE + UPGRADE_MODE + READY
    tell(launching, part(content))  # nobody asked for it, so the agent sends it from its beginning
    file = LogFile.objects.get()
    assert (file.state, file.cursor, file.generation) == ("open", len(BEFORE), 0)
    tell(launching, part(content, file.cursor))
    assert judged(launching)[0] == "upgrade-mode"
    assert LogLine.objects.filter(event="21-22170").count() == 2


def test_a_file_that_goes_away_twice_at_the_same_place_is_no_trouble(launching):
    tell(launching, part(BEFORE, room=len(HEAD)))
    for _ in range(2):
        tell(launching, lost("gone", len(HEAD)))
        tell(launching, part(BEFORE, room=len(HEAD)))
    tell(launching, lost("gone", len(HEAD)))
    assert gaps().count() == 1


def test_what_is_lost_a_second_time_at_the_same_place_counts_for_a_step_that_began_in_between(
    night, fake_agent
):
    content = BEFORE + UPGRADE_MODE + READY
    fake_agent.stands_for(night.agent("new"))
    tell(night, part(BEFORE, room=len(HEAD)), advance=False)
    tell(night, lost("gone", len(HEAD)), advance=False)
    fake_agent.listed = {FILE: len(BEFORE)}  # it is back
    night.go_to("launch-new")
    assert is_waiting(night)
    tell(night, part(content, room=len(HEAD)))
    tell(night, lost("gone", len(HEAD)))
    assert is_in_doubt(night)
    assert gaps().count() == 1


def test_an_event_where_a_gap_had_begun_is_not_taken_for_the_gap(launching):
    """The file came back, and what stands where it was cut off speaks against the plan."""
    content = BEFORE + UPGRADED + UPGRADE_MODE + READY
    tell(launching, part(BEFORE))
    LogFile.objects.update(size=len(content))
    tell(launching, lost("gone", len(BEFORE)))
    assert is_in_doubt(launching)
    tell(launching, part(content))
    tell(launching, part(content, len(BEFORE)))
    set_aside(launching)
    seen = launching.state.gate("launch-new", "initialized").observations
    assert [item.event for item in seen] == ["", "21-22171", "21-25301", "21-22170"]
    assert judged(launching)[0] == "unplanned-database"


def test_a_gap_that_was_set_aside_is_not_the_unreadable_line_that_stands_there(launching):
    content = BEFORE + UNKNOWN + UPGRADE_MODE + READY
    tell(launching, part(BEFORE))
    LogFile.objects.update(size=len(content))
    tell(launching, lost("gone", len(BEFORE)))
    set_aside(launching)
    tell(launching, part(content))
    tell(launching, part(content, len(BEFORE)))
    assert is_in_doubt(launching)
    set_aside(launching)
    assert judged(launching)[0] == "upgrade-mode"


# Doubts.


@pytest.mark.bad_input("L19")
def test_a_line_of_unknown_format_raises_a_doubt_that_two_people_can_set_aside(launching):
    night = launching
    tell(night, part(BEFORE + UPGRADE_MODE + UNKNOWN + READY))
    assert is_in_doubt(night)
    set_aside(night)
    assert judged(night)[0] == "upgrade-mode"


@pytest.mark.parametrize("cut", [15, 19, 21, 22])
@pytest.mark.bad_input("L10")
def test_an_event_whose_line_came_in_two_parts_shuts_the_gate(launching, cut):
    """Its disk was full for a minute: what was read as it stood is no event, and its rest is none either."""
    content = BEFORE + REACHED + UPGRADE_MODE + COMPARED
    at = len(BEFORE + REACHED) + cut
    tell(launching, part(content[:at], silent=True))
    tell(launching, part(content, at))
    assert is_in_doubt(launching)


@pytest.mark.bad_input("L10")
def test_a_total_whose_last_figure_is_missing_is_none(launching):
    content = BEFORE + TOTAL
    tell(launching, part(content[:-2], silent=True))
    tell(launching, part(content, len(content) - 2))
    assert launching.server("new").client_total is None
    assert is_in_doubt(launching)


@pytest.mark.bad_input("L13")
def test_what_follows_within_an_endless_line_is_no_event(launching):
    """An agent hands a line over unfinished when it is too long to wait for; it goes on all the same."""
    begun = BEFORE + UPGRADE_MODE + b"10:00:01.000 Trc 04541 " + b"x" * (2 << 20)
    inside = begun + READY  # its end is that of the endless line
    content, at = inside + BACKUP, 0
    for size in (len(begun), len(inside), len(content)):
        while at < size:
            piece = part(content, at, size=size)
            tell(launching, piece)
            at = piece.end
    assert not LogLine.objects.filter(event="21-22170", offset__gte=len(BEFORE)).exists()
    assert LogLine.objects.filter(event="21-22172", offset=len(inside)).exists()
    assert judged(launching)[0] is None


def set_aside(night):
    """Have the first doubt that is open set aside."""
    known = {deviation.doubt for deviation in night.state.deviations.values()}
    recorded = night.state.gate("launch-new", "initialized").observations
    doubt = next(
        seen.seq
        for seen in recorded
        if seen.kind in ("gap", "unreadable", "foreign") and seen.seq not in known
    )
    asked = core.AskDeviation(
        step="launch-new", visit=1, what="doubt", gate="initialized", doubt=doubt, reason=REASON
    )
    night.act(asked)
    night.act(core.SignDeviation(number=len(night.state.deviations)), night.approver)
    night.advance()


def test_no_doubt_is_lost_because_there_are_many_and_nothing_behind_an_untold_one_counts(launching):
    """Only so many at once stand on the record; a gap behind them shuts the gate as well when their turn comes."""
    night = launching
    content = BEFORE + UPGRADE_MODE + UNKNOWN * (observations.DOUBTS_AT_ONCE + 2) + READY
    tell(night, part(content))
    assert night.kinds.count("log.doubtful") == observations.DOUBTS_AT_ONCE
    assert is_in_doubt(night)
    for told in range(observations.DOUBTS_AT_ONCE + 1):
        assert is_in_doubt(night), told
        set_aside(night)
    assert judged(night)[0] is None
    assert night.kinds.count("log.doubtful") == observations.DOUBTS_AT_ONCE + 2
    set_aside(night)
    assert judged(night)[0] == "upgrade-mode"


# Processes.


def test_a_process_is_noted_when_it_changes_and_only_then(launching):
    for state in ("up", "up", "down", "down", "unknown", "up"):
        tell(launching, process=state)
    changes = ProcessChange.objects.filter(application__name="confserv_b").order_by("pk")
    assert [change.state for change in changes] == ["up", "down", "unknown", "up"]


def test_a_server_that_goes_away_while_it_starts_shuts_the_gate(launching):
    tell(launching, part(BEFORE + UPGRADE_MODE), process="up")
    tell(launching, part(BEFORE + UPGRADE_MODE, len(BEFORE + UPGRADE_MODE)), process="down")
    assert launching.verdict("launch-new", "initialized").value == "failed"
    assert "went away" in launching.verdict("launch-new", "initialized").reason


def test_a_server_that_goes_away_shuts_the_gate_whatever_the_clock_of_the_workers_says(launching):
    """F36: set back after the step began, it makes what is seen from then on look older than the step."""
    tell(launching, part(BEFORE + UPGRADE_MODE), process="up", advance=False)
    tell(launching, part(BEFORE + UPGRADE_MODE, len(BEFORE + UPGRADE_MODE)), process="down", advance=False)
    ProcessChange.objects.update(seen_at=timezone.now() - timedelta(minutes=5))
    launching.advance()
    assert launching.verdict("launch-new", "initialized").value == "failed"
    assert "went away" in launching.verdict("launch-new", "initialized").reason


def test_what_a_process_did_before_the_step_is_known_whatever_the_clock_said_then(night, fake_agent):
    """Set back before the step began, the clock makes what was seen before look newer than the step."""
    fake_agent.listed = {FILE: len(BEFORE)}
    fake_agent.stands_for(night.agent("new"))
    tell(night, process="up", advance=False)
    tell(night, process="down", advance=False)
    ProcessChange.objects.update(seen_at=timezone.now() + timedelta(minutes=5))
    night.go_to("launch-new")
    night.advance()
    assert is_waiting(night)


def test_a_process_that_was_up_before_the_step_and_goes_down_in_it_has_not_ended(launching):
    ProcessChange.objects.all().delete()
    tell(launching, process="down")
    assert is_waiting(launching)


def test_a_server_that_started_and_went_between_two_looks_is_missed(launching):
    """Its log says that it started, and the agent still finds no process when the line has had time to settle."""
    tell(launching, process="down")
    tell(launching, part(BEFORE + STARTED), process="down")
    assert is_waiting(launching)
    LogLine.objects.update(read_at=timezone.now() - observations.SETTLING - timedelta(seconds=1))
    launching.advance()
    assert launching.verdict("launch-new", "initialized").value == "failed"
    assert launching.kinds.count("server.ended") == 1
    launching.advance()
    assert launching.kinds.count("server.ended") == 1


def test_a_server_that_started_and_went_is_missed_at_once_where_the_clock_was_set_back(launching):
    """F36: nobody can tell then how long ago the line was read; waiting for it would leave the gate in good faith."""
    tell(launching, process="down")
    tell(launching, part(BEFORE + STARTED), process="down")
    LogLine.objects.update(read_at=timezone.now() + timedelta(minutes=5))
    launching.advance()
    assert launching.verdict("launch-new", "initialized").value == "failed"


def test_old_news_of_a_worker_that_lost_its_lease_change_nothing(launching):
    """F05: a worker was stopped for a while; its answer says "down" of a server that has come up meanwhile."""
    from uuid import uuid4

    agent, mine = launching.agent("new"), uuid4()
    Agent.objects.filter(pk=agent.pk).update(lease_token=mine)
    take_news(agent.pk, news(process="up"), lease=mine)
    with pytest.raises(agents.LeaseLost):
        take_news(agent.pk, news(part(BEFORE), process="down"), lease=uuid4())
    with pytest.raises(agents.LeaseLost):
        agents.record_trouble(agent.pk, "late", at=timezone.now(), lease=uuid4())
    assert launching.server("new").process_state == "up"
    assert not LogLine.objects.exists()


def test_pages_are_told_when_reading_falls_behind_and_when_it_has_caught_up(launching):
    """F38: a burst of lines that say nothing; what the page shows of it must not stay there."""
    burst = BEFORE + 3000 * DEBUG
    assert len(burst) > 2 * A_LINE
    some = part(burst, len(BEFORE), room=len(DEBUG))
    more = part(burst, some.end, room=len(DEBUG))
    rest = part(burst, more.end)
    assert [tell(launching, one).lines for one in (part(BEFORE), some, more, rest)] == [2, 1, 0, 1]


def test_pages_are_not_told_of_a_line_that_is_not_whole_yet(launching):
    unfinished = BEFORE + DEBUG[:30]
    assert tell(launching, part(BEFORE)).lines == 2
    assert tell(launching, part(unfinished, len(BEFORE))).lines == 0


# What is not ours.


def test_news_of_an_application_that_is_not_registered_are_passed_over(launching):
    taken = take_news(launching.agent("new").pk, news(part(BEFORE), application="stranger"))
    assert taken.lines == 0
    assert not LogLine.objects.exists()


def test_an_agent_cannot_tell_of_an_application_on_another_host(launching):
    take_news(launching.agent("old").pk, news(part(BEFORE + READY), application="confserv_b"))
    assert not LogLine.objects.exists()


def test_the_line_on_the_record_is_the_line_in_the_log(launching):
    tell(launching, part(BEFORE + UPGRADE_MODE + READY))
    seen = [item.event for item in launching.history if item.event.kind == "log.event"]
    assert [event.line_sha256 for event in seen] == [
        hashlib.sha256(line).hexdigest() for line in (UPGRADE_MODE, READY)
    ]
    assert [bytes(line.raw) for line in LogLine.objects.filter(offset__gte=len(BEFORE))] == [
        UPGRADE_MODE,
        READY,
    ]


def test_totals_are_kept_and_the_newest_is_shown_on_the_server(launching):
    tell(launching, part(BEFORE + TOTAL + TOTAL.replace(b"84", b"7")))
    assert launching.server("new").client_total == 7


def test_an_agent_that_is_not_there_keeps_a_watched_step_from_beginning(night):
    night.go_to("launch-new")
    assert night.state.steps["launch-new"].status == "current"
    assert "unreachable" not in night.agent("new").trouble
    assert "no connection" in night.agent("new").trouble


@pytest.mark.parametrize("agent", ["cannot list all files", "is another one"])
def test_a_step_does_not_begin_on_half_a_watermark(night, fake_agent, agent):
    fake_agent.stands_for(night.agent("new"))
    if agent == "is another one":
        Agent.objects.filter(pk=night.agent("new").pk).update(secret="ab" * 32)
    fake_agent.complete = agent != "cannot list all files"
    night.go_to("launch-new")
    assert night.state.steps["launch-new"].status == "current"


def test_an_unknown_person_cannot_make_the_server_ask_agents(night, fake_agent):
    fake_agent.stands_for(night.agent("new"))
    stranger = make_user()
    with pytest.raises(core.BadInput):
        night.act(core.Begin(step="launch-new", visit=1), stranger)
    assert fake_agent.asked == []
