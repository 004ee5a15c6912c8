"""Log lines that must do no harm (rows L). Most are proved where lines are read; here is the rest."""

import json
import logging

import pytest

from agent import messages
from agent.messages import Nonsense
from runbook.log_lines import OneLine
from tests.agent.test_client import news as reply_news
from tests.agent.test_client import reply, trouble
from tests.services.fake_agent import FILE, part
from tests.services.test_taking_news import (
    BEFORE,
    HEAD,
    READY,
    UPGRADE_MODE,
    is_in_doubt,
    is_waiting,
    judged,
    reason,
    set_aside,
    tell,
)
from upgrades.models import LogLine


@pytest.mark.bad_input("L03")
@pytest.mark.parametrize("text", [r'"\ud800"', r'"\udc00x"', r'"a\ud83d"'])
@pytest.mark.parametrize("place", ["reason", "name"])
def test_half_a_surrogate_pair_is_no_text(text, place):
    body = json.dumps(reply_news(**{place: "PLACE"})).replace('"PLACE"', text)
    found = trouble(reply(body.encode()))

    assert found.cause == "nonsense"
    assert str(found).startswith("Agent fra-cfg-01: its answer cannot be used: ")


@pytest.mark.bad_input("L12")
def test_a_line_that_only_looks_like_an_event_cannot_be_told_apart_and_its_neighbours_are_kept(launching):
    """What the server wrote as a text of its own is a line of the log like any other (docs/security.md)."""
    forged = b"10:00:01.500 Std 24201 user text:\n10:00:01.500 Std 22170 Ready\n"
    tell(launching, part(BEFORE + UPGRADE_MODE + forged))

    lines = list(LogLine.objects.order_by("offset").values_list("event", flat=True))
    assert lines[-2:] == ["21-24201", "21-22170"], (
        "the line before it stands beside it on the page and in the record"
    )


@pytest.mark.bad_input("L14", "L24")
@pytest.mark.parametrize(
    ("head", "told"),
    [
        (b"Application name: confserv_other\n", "“application name: confserv_other”, but this is confserv_b"),
        (b"Host name:        fra-cfg-77\n", "“host name: fra-cfg-77”, but this is fra-cfg-02"),
        (b"Host name:        other.example.net\n", "“host name: other.example.net”, but this is fra-cfg-02"),
    ],
)
def test_a_head_that_names_another_server_shuts_the_gate_until_two_people_have_looked(launching, head, told):
    tell(launching, part(BEFORE + HEAD + head + b"File: (2) confserv.log\n" + UPGRADE_MODE + READY))

    assert is_in_doubt(launching)
    assert told in LogLine.objects.get(kind=LogLine.Kind.FOREIGN).text
    set_aside(launching)
    assert judged(launching)[0] == "upgrade-mode"


@pytest.mark.bad_input("L14", "L24")
def test_a_head_that_names_another_server_shuts_the_gate_also_if_it_is_older_than_the_step(night, fake_agent):
    head = HEAD + b"Application name: confserv_other\nFile: (1) confserv.log\n"
    fake_agent.stands_for(night.agent("new"))
    tell(night, part(head), advance=False)
    fake_agent.listed = {FILE: len(head)}
    night.go_to("launch-new")
    assert is_waiting(night), "nothing was logged since; the file says nothing of this step yet"

    tell(night, part(head + UPGRADE_MODE + READY, len(head)))
    assert is_in_doubt(night)
    assert "“application name: confserv_other”, but this is confserv_b" in reason(night)
    set_aside(night)
    assert judged(night)[0] == "upgrade-mode"


@pytest.mark.bad_input("L24")
@pytest.mark.parametrize(
    "head",
    [
        b"Application name: CONFSERV_B\nHost name:        fra-cfg-02\n",
        b"Host name:        FRA-CFG-02.example.net\n",
    ],
)
def test_a_head_in_another_spelling_raises_no_doubt(launching, head):
    tell(launching, part(BEFORE + HEAD + head + b"File: (2) confserv.log\n" + UPGRADE_MODE + READY))

    assert judged(launching)[0] == "upgrade-mode"
    assert not LogLine.objects.exclude(kind=LogLine.Kind.EVENT).exists()


HOSTILE_TEXTS = (
    "%s %(x)s %d",
    "{0.__class__} {self} {}",
    "${jndi:ldap://127.0.0.1/x}",
    "{{7*7}} {% load x %}",
    "a\nERROR forged line",
    "\x1b[31mred",
)


@pytest.mark.bad_input("L22")
@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_our_own_log_takes_what_others_wrote_as_a_value_on_one_line(text):
    record = logging.LogRecord("runbook", logging.INFO, __file__, 1, "agent said %s", (text,), None)
    written = OneLine("{message}", style="{").format(record)

    assert "\n" not in written
    assert "\x1b" not in written
    assert written.startswith("agent said ")


@pytest.mark.bad_input("L18")
def test_ten_thousand_lines_of_one_millisecond_are_all_stored(launching):
    line = b"10:00:01.000 Std 25302 synthetic\n"
    content = BEFORE + line * 10_000
    at = 0
    while at < len(content):
        piece = part(content, at)
        tell(launching, piece, advance=False)
        at = piece.end

    assert LogLine.objects.filter(event="21-25302").count() == 10_000


@pytest.mark.bad_input("L03")
def test_a_value_with_half_a_pair_is_not_written_either():
    with pytest.raises(Nonsense):
        messages.read_json(b'{"a": "\\ud800')
