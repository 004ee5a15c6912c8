"""Log lines as they are met in the field, and as nobody would want to meet them."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from upgrades.domain.log_events import (
    ClientTotal,
    Continuation,
    Cut,
    CutLine,
    DebugText,
    HeaderLine,
    LogEvent,
    OutOfOrder,
    ParserState,
    TimeQuality,
    UnfinishedLine,
    Unrecognised,
    read,
)

LOGS = Path(__file__).parent.parent / "logs"
EXACT, CARRIED, DOUBTFUL, UNREADABLE = TimeQuality


def start(application_type="21", file_name="confserv.20260301_220000_000.log", **more):
    return ParserState.initial(application_type=application_type, file_name=file_name, **more)


def records(*lines, state=None, end=b"\n", **more):
    state = state or start()
    data = b"".join((line if isinstance(line, bytes) else line.encode()) + end for line in lines)
    return read(state, data, state.offset, **more)[1]


def one(line, **more):
    (record,) = records(line, **more)
    return record


def sample(name, application_type="21"):
    data = (LOGS / name).read_bytes()
    return read(start(application_type, name), data, 0)[1]


# --- the samples ---


def test_every_line_of_the_configuration_server_sample_is_understood():
    found = sample("confserv.log")
    assert len(found) == 26
    assert [each.total for each in found if isinstance(each, ClientTotal)] == [90, 100, 200, 300]
    assert [each.value for each in found if isinstance(each, HeaderLine)] == [
        "2014-09-16T13:14:58.465",
        "2016-02-04T21:55:32.104",
    ]
    assert " ".join(each.id_for("21") for each in found if isinstance(each, LogEvent)) == (
        "00-04120 00-04541 21-24215 21-24215 21-24215 21-24215 00-04522 21-24206 21-24206 21-24201 21-24308 "
        "00-04542 00-04542 00-04541 21-22122 21-24300 21-24215 21-24301 00-04541"
    )
    assert not [each for each in found if isinstance(each, Unrecognised)]


def test_the_lines_after_a_record_belong_to_it():
    found = sample("confserv_multiline.log")
    events = [each for each in found if isinstance(each, LogEvent)]
    assert [event.number for event in events] == [4541, 24215, 4542, 4541, 4542]
    assert {each.of for each in found if isinstance(each, Continuation)} == {
        events[0].offset,
        events[2].offset,
    }
    assert sum(isinstance(each, DebugText) for each in found) == 5


def test_other_servers_write_the_same_format():
    found = sample("other_genesys.log", "01")
    assert " ".join(each.id_for("01") for each in found if isinstance(each, LogEvent)) == (
        "00-04541 00-04543 00-04541 01-50002 01-52000 01-20001 01-20002 01-33009"
    )
    assert [each.text[:6] for each in found if isinstance(each, DebugText)] == ["[ISCC]"]


def test_short_and_full_format_give_the_same_id():
    full, short = sample("format_examples.log")
    assert (full.application_type, full.host, full.application) == ("00", "localhost", "cfg_dbserver")
    assert (short.application_type, short.host, short.application) == (None, "", "")
    assert full.id_for("21") == short.id_for("21") == "00-05060"
    assert (full.level, full.text) == (short.level, short.text) == ("Standard", "Application started")


def test_every_shape_of_time_is_read():
    at = [each.at for each in sample("timestamp_examples.log")]
    assert at == [
        datetime(2001, 7, 24, 4, 58, 10, 123000),
        datetime(2001, 7, 24, 13, 16, 54, 58000),
        datetime(2016, 11, 25, 12, 25, 19, 644000),
        datetime(2016, 6, 5, 15, 22, 21, 741000),
        datetime(2016, 8, 11, 9, 1, 46, 60000),
        datetime(2016, 8, 11, 8, 8, 55, 241000),
    ]


def test_the_header_ends_with_its_file_line():
    found = sample("header_shapes.txt")
    assert [each.key for each in found] == [
        "local time",
        "application name",
        "host name",
        "start time (utc)",
        "application type",
        "time zone",
        "command line",
        "file",
    ]


def test_lines_of_lca_and_scs_need_no_time():
    assert {type(each) for each in sample("lca_shapes.txt", "LCA")[1:]} == {DebugText}
    alarm, *others, fragment = sample("scs_shapes.txt", "43")
    assert alarm.id_for("43") == "00-04210"
    assert {type(each) for each in others} == {DebugText}
    assert isinstance(fragment, Unrecognised)  # an event's id without the fields before it: never just text


def test_an_lca_file_is_known_by_its_first_line():
    head, line, marked = records(
        "Local Control Agent 1", "CREATE SCSRequester x:5, 'scs')", " > > Notify STATUS"
    )
    assert (type(head), type(line), type(marked)) == (HeaderLine, DebugText, DebugText)
    assert marked.text == "Notify STATUS"


# --- events ---


@pytest.mark.parametrize(
    "line",
    [
        "22:00:01.000 Std 22170 synthetic",
        "22:00:01.000\tStd\t22170\tsynthetic",
        "22:00:01.000   Alr   22170   synthetic",
        "22:00:01.000 Debug 22170 synthetic",
        "2026-03-01T22:00:01.000 Standard host confserv_b GCTI-21-22170 synthetic",
        "2026-03-01 22:00:01.000   Trace   host   conf serv b   GCTI-21-22170   synthetic",
        "2026-03-01 22:00:01.000 Trace host conf serv b GCTI-21-22170 synthetic",
        "2026/03/01 22:00:01.000 Std 22170 synthetic",
        "03/01/2026 22:00:01.000 Std 22170 synthetic",
        "03/01/26 10:00:01.000 PM Std 22170 synthetic",
        "Sun Mar  1 22:00:01 2026.000 Std 22170 synthetic",
        "Sun 01 Mar 2026 10:00:01 PM CET.000 Std 22170 synthetic",
        "@22:00:01.0000 Std 22170 synthetic",
    ],
)
@pytest.mark.bad_input("L21")
def test_the_number_counts_whatever_the_format_and_the_level(line):
    event = one(line)
    assert (event.id_for("21"), event.text) == ("21-22170", "synthetic")
    assert event.at == datetime(2026, 3, 1, 22, 0, 1)
    assert event.application in ("", "confserv_b", "conf serv b")


def test_the_prefix_decides_over_the_file():
    assert one("22:00:01.000 Std host scs GCTI-43-22170 synthetic").id_for("21") == "43-22170"


@pytest.mark.parametrize(
    "line",
    [
        "22:00:01.000 port 22170 opened",
        "22:00:01.000 22170 Std",
        "22:00:01.000 Total number of clients: 22170 or so",
        "  22:00:01.000 Std 22170 synthetic",
        "22:00:01.000 Std 24201 name [22:00:01.000 Std 22170 synthetic]",
        "22:00:01.000 Std 24201 GCTI-21-22170 synthetic",
        "22:00:01.000 Std 24201 x\x0bStd 22170 synthetic",
        "22:00:01.000 Std 05060 text\r22:00:01.000 Std 22170 synthetic",
        "22:00:01.000 Std 05060 text\u202822:00:01.000 Std 22170 synthetic",
        "22:00:01.000 Std 05060 text\x0c22:00:01.000 Std 22170 synthetic",
    ],
)
@pytest.mark.bad_input("L08", "L13")
def test_a_number_elsewhere_is_only_text(line):
    assert not [each for each in records(line) if isinstance(each, LogEvent) and each.number == 22170]
    assert not [each for each in records(line) if isinstance(each, Unrecognised)]


@pytest.mark.parametrize(
    "line",
    [
        "22:00:01.000 Std ٢٢١٧٠ synthetic",
        "22:00:01.000 Std 2217\u200b0 synthetic",
        "22:00:01.000 Std ２２１７０ synthetic",
        "22:00:01.000 Std 2217O synthetic",
        "22:00:01.000 Std 221700 synthetic",
        "22:00:01.000 Std host confserv 22170 synthetic",
        "22:00:01.000,Std,22170,synthetic",
        "22:00:01.000|Std|22170|synthetic",
        "22:00:01.000 Std|22170|synthetic",
        '22:00:01.000 "Std","22170","synthetic"',
        "22:00:01.000 host confserv Std GCTI-21-22170 synthetic",
        '"22:00:01.000","Std","22170"',
        "22:00:01.000 [1234] Std 22170 synthetic",
        "22:00:01.000 text\r22:00:01.000 Std 22170 synthetic",
        "GCTI-21-22170 synthetic",
        "[22:00:01.000] Std 22170 synthetic",
    ],
)
@pytest.mark.bad_input("L07", "L19")
def test_what_looks_like_an_event_in_no_known_format_is_reported(line):
    (_, record) = records("22:00:00.000 Trc 04120 Check point 2026-03-01T22:00:00", line)
    assert isinstance(record, Unrecognised)
    assert (record.text, record.line_number) == (line, 2)


@pytest.mark.parametrize("text", ["Unknown message of the peer", "Trace of the call", "Standard"])
def test_a_level_word_in_free_text_is_no_alarm(text):
    assert one(f"22:00:01.000 {text}") == DebugText(
        0, 14 + len(text), text, datetime(2026, 3, 1, 22, 0, 1), CARRIED
    )


def test_csv_lines_are_no_free_text_of_scs():
    assert isinstance(one("2026-03-01T22:00:00.000,Std,10327,x", state=start("43")), Unrecognised)


# --- heads ---


def test_a_file_that_begins_with_unknown_lines_is_reported_when_an_event_shows_that_they_were_no_header():
    banner, other, doubt, event = records("some words", "more words", "22:00:01.000 Std 22170 synthetic")
    assert (type(banner), type(other), type(event)) == (HeaderLine, HeaderLine, LogEvent)
    assert (doubt.offset, doubt.line_number, doubt.text) == (0, 1, "some words")


def test_a_banner_before_known_keys_is_a_header():
    found = records(
        "Some Server, Version 1", "Odd key: 5", "Host name: host-1", "22:00:01.000 Std 22170 synthetic"
    )
    assert [type(each) for each in found] == [HeaderLine] * 3 + [LogEvent]


@pytest.mark.bad_input("L19")
def test_a_file_of_unknown_format_is_reported_and_nothing_is_concluded_from_it():
    state, found = read(start(), b"no log at all\n" * 100, 0)
    assert not state.format_known
    assert sum(isinstance(each, Unrecognised) for each in found) == 41
    assert not read(start(), b"no log at all\n", 0)[0].format_known


@pytest.mark.bad_input("L19")
def test_a_format_that_changes_within_a_file_is_reported_with_its_line():
    _, bad, good = records(
        "22:00:01.000 Std 05060 Application started", "!! what", "22:00:02.000 Std 22170 x"
    )
    assert (bad.line_number, bad.text, good.number) == (2, "!! what", 22170)


def test_a_second_segment_brings_its_own_header_and_date():
    *_, event = records(
        "22:00:01.000 Std 05060 Application started",
        "Local time: 2026-03-09T08:00:00.000",
        "Running on: x",
        "File: (2) confserv.log",
        "08:00:01.000 Std 22170 synthetic",
    )
    assert (event.at, event.at_quality) == (datetime(2026, 3, 9, 8, 0, 1), CARRIED)


def test_free_text_after_a_key_within_the_file_is_not_taken_for_a_header():
    *_, key, bad = records("22:00:01.000 Std 05060 Application started", "Host name: other", "!! what")
    assert (type(key), type(bad)) == (HeaderLine, Unrecognised)


def test_lines_of_scs_with_an_event_in_them_are_no_free_text():
    assert isinstance(one("Mar 1 2026 22:00:00 Std 10327 x", state=start("43")), Unrecognised)


@pytest.mark.bad_input("L20")
def test_a_stack_trace_belongs_to_its_event():
    event, *rest = records(
        "22:00:01.000 Std 22122 failed",
        "java.io.IOException: gone",
        "\tat a.b(C.java:5)",
        "Caused by: x.YError",
    )
    assert [each.of for each in rest] == [event.offset] * 3


@pytest.mark.parametrize(("data", "count"), [(b"", 0), (b"\n\n\r\n", 3), (b"Host name: a\n", 1)])
@pytest.mark.bad_input("L10")
def test_files_without_a_record_have_no_events(data, count):
    found = read(start(), data, 0)[1]
    assert len(found) == count
    assert not [each for each in found if isinstance(each, LogEvent | Unrecognised)]


# --- times ---


def times(*clocks, state=None):
    return [(each.at, each.at_quality) for each in records(*(f"{clock} x" for clock in clocks), state=state)]


@pytest.mark.bad_input("L17")
def test_midnight_adds_a_day():
    assert times("23:59:59.990", "00:00:00.010", "23:59:59.995", "00:00:01.000") == [
        (datetime(2026, 3, 1, 23, 59, 59, 990000), CARRIED),
        (datetime(2026, 3, 2, 0, 0, 0, 10000), CARRIED),
        (datetime(2026, 3, 1, 23, 59, 59, 995000), CARRIED),
        (datetime(2026, 3, 2, 0, 0, 1), CARRIED),
    ]


@pytest.mark.bad_input("L17")
def test_a_clock_set_back_by_less_than_an_hour_stays_in_the_day_and_is_marked():
    state = start(file_name="confserv.20261025_010000_000.log")
    assert times("02:59:59.000", "02:00:00.000", "02:58:00.000", "03:00:00.000", state=state) == [
        (datetime(2026, 10, 25, 2, 59, 59), CARRIED),
        (datetime(2026, 10, 25, 2, 0), DOUBTFUL),
        (datetime(2026, 10, 25, 2, 58), DOUBTFUL),
        (datetime(2026, 10, 25, 3, 0), CARRIED),
    ]


@pytest.mark.bad_input("L17")
def test_the_double_hour_is_marked_in_dated_lines_too():
    found = times("2026-10-25T02:59:59.000", "2026-10-25T02:00:00.000", "2026-10-25T03:00:00.000")
    assert [quality for _, quality in found] == [EXACT, DOUBTFUL, EXACT]


def test_an_hour_that_falls_by_less_than_half_a_day_adds_a_doubtful_day_until_a_check_point_tells():
    found = records(
        "22:00:01.000 x",
        "15:00:00.000 x",
        "15:00:01.000 Trc 04120 Check point 2026-03-01T15:00:01",
        "15:00:02.000 x",
    )
    assert [(each.at.day, each.at_quality) for each in found] == [
        (1, CARRIED),
        (2, DOUBTFUL),
        (1, CARRIED),
        (1, CARRIED),
    ]


def test_a_check_point_at_midnight_keeps_its_own_time():
    found = one("23:59:59.999 Trc 04120 Check point 2026-03-02T00:00:00")
    assert (found.at, found.at_quality) == (datetime(2026, 3, 1, 23, 59, 59, 999000), CARRIED)


def test_without_any_date_a_time_is_not_readable_until_a_check_point():
    found = records(
        "10:00:00.000 x",
        "10:00:01.000 Trc 04120 Check point 2026-03-01T10:00:01",
        "10:00:02.000 x",
        state=start(file_name="confserv.log"),
    )
    assert [each.at_quality for each in found] == [UNREADABLE, CARRIED, CARRIED]


@pytest.mark.parametrize(
    "stamp",
    [
        "24:00:00.000",
        "23:59:60.000",
        "2026-02-31T10:00:00.000",
        "0000-01-01T00:00:00.000",
        "9999-12-31T23:59:59.999",
        "2026-03-01T10:00:00.000Z",
        "2026-03-01T10:00:00.000+01:00",
        "31/12/2026 10:00:00.000",
        "12/31/2026 13:00:00.000 PM",
    ],
)
@pytest.mark.bad_input("L16")
def test_an_impossible_time_does_not_lose_the_event_nor_spoil_the_next(stamp):
    bad, good = records(f"{stamp} Std 22170 synthetic", "22:00:01.000 Std 22172 synthetic")
    assert (bad.id_for("21"), bad.at, bad.at_quality) == ("21-22170", None, UNREADABLE)
    assert (good.at, good.at_quality) == (datetime(2026, 3, 1, 22, 0, 1), CARRIED)


@pytest.mark.parametrize("name", ["confserv.20269931_000000_000.log", "confserv.log", "", "a/b.20260301.log"])
def test_a_file_name_without_a_date_is_no_error(name):
    assert start(file_name=name).latest is None


# --- bytes ---


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"a\0b", "a␀b"),
        (b"gr\xfc\xdfe", "gr��e"),
        (b"\xed\xa0\x80", "���"),
        (b"\xc0\xae", "��"),
        ("x\ufeff\uffffy".encode(), "x\ufeff\uffffy"),
        (b"\x1b[31mred\x07", "\x1b[31mred\x07"),
        (b"%s {0.__class__} ${jndi:x} {{7*7}}", "%s {0.__class__} ${jndi:x} {{7*7}}"),
        (b"<script>alert(1)</script>", "<script>alert(1)</script>"),
    ],
)
@pytest.mark.bad_input("L02", "L25")
def test_odd_bytes_become_text_that_can_be_stored(raw, text):
    event = one(b"22:00:01.000 Std 22170 " + raw)
    assert (event.number, event.text) == (22170, text)
    event.text.encode()


@pytest.mark.bad_input("L02")
def test_the_encoding_of_the_file_can_be_given():
    line = b"22:00:01.000 Std host Anwendung\xfc GCTI-21-22170 gr\xfc\xdfe"
    event = one(line, state=start(encoding="cp1252"))
    assert (event.application, event.text) == ("Anwendungü", "grüße")
    assert (
        "ソ" in one("22:00:01.000 Std 22170 ソ".encode("shift_jis"), state=start(encoding="shift_jis")).text
    )


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-7", "unicode_escape", "raw_unicode_escape", "base64", "none"]
)
def test_an_encoding_without_ascii_line_ends_is_refused(encoding):
    with pytest.raises(ValueError, match=encoding):
        start(encoding=encoding)


@pytest.mark.bad_input("L25")
def test_a_byte_order_mark_hides_nothing():
    assert one(b"\xef\xbb\xbf22:00:01.000 Std 22170 x").number == 22170


@pytest.mark.bad_input("L02")
def test_utf_16_is_reported_not_skipped():
    data = "22:00:01.000 Std 22170 x\n22:00:02.000 Std 22170 x\n".encode("utf-16")
    state, found = read(start(), data, 0, final=True)
    assert not state.format_known
    assert not [each for each in found if isinstance(each, LogEvent)]


@pytest.mark.bad_input("L08")
def test_crlf_ends_a_line_and_its_bytes_are_counted():
    first, second = records("22:00:01.000 Std 22170 x", "22:00:02.000 Std 22172 y", end=b"\r\n")
    assert (first.text, first.length, second.offset, second.text) == ("x", 26, 26, "y")


@pytest.mark.parametrize(
    "filler", [b"a", b" ", b"\t", b"GCTI-", b"9", b"\xff", b"22170 ", b"> ", b"a.", b"Std "]
)
@pytest.mark.bad_input("L09")
def test_a_line_of_a_megabyte_is_one_record(filler):
    body = filler * (1_000_000 // len(filler))
    for head in (b"22:00:01.000 Std 22170 ", b"22:00:01.000 Std ", b"22:00:01.000 ", b"Host name: ", b""):
        assert len(records(head + body)) == 1


# --- offsets, cuts, ends ---


@pytest.mark.bad_input("L18")
def test_equal_lines_are_told_apart_by_their_offset():
    assert len({each.offset for each in records(*["22:00:01.000 Std 25302 x"] * 10_000)}) == 10_000


@pytest.mark.parametrize("offset", [0, 24, 26, 100])
def test_a_chunk_that_is_not_the_next_one_is_refused(offset):
    state, _ = read(start(), b"22:00:01.000 Std 22170 x\n", 0)
    with pytest.raises(OutOfOrder, match="byte 25 is next"):
        read(state, b"22:00:01.000 Std 22170 x\n", offset)


def test_reading_can_begin_in_the_middle_of_a_file():
    event = one("22:00:01.000 Std 22170 x", state=start(offset=5_000))
    assert event.offset == 5_000


@pytest.mark.bad_input("L10")
def test_a_line_without_its_end_waits():
    with pytest.raises(UnfinishedLine):
        read(start(), b"22:00:01.000 Std 22170 x\n22:00:02.000 Std 22", 0)


@pytest.mark.bad_input("L10")
def test_a_last_line_without_end_is_flagged_and_its_rest_is_no_line_of_its_own():
    state, (flag, event) = read(start(), b"22:00:01.000 Std 22170 synth", 0, final=True)
    assert flag == CutLine(0, 28, 28)
    assert (event.number, event.text) == (22170, "synth")
    _, (rest, following) = read(state, b"22:00:01.000 Std 22172 x\n22:00:02.000 Std 22172 x\n", 28)
    assert (rest.of, rest.text) == (0, "22:00:01.000 Std 22172 x")
    assert following.number == 22172


@pytest.mark.parametrize(
    "line",
    [
        "22:00:02.000 Std 22170 synthetic",
        "2026-03-01T22:00:02.000 Std 22170 synthetic",
        "22:00:02.000 Standard host confserv GCTI-21-22170 synthetic",
        "Standard host confserv GCTI-21-22170 synthetic",
        "22:00:02.000 medium host confserv 22170 Std 22170",
        "22:00:02.000 Total number of clients: 84",
        "Application name: confserv",
        "x.Error: no line of a known format",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.bad_input("L10")
def test_a_line_that_came_in_two_parts_is_what_it_is_as_a_whole_or_a_doubt(line, end):
    """Wherever it was cut: what is none of its own kind must not stand for the absence of an event."""
    whole, before = (line + end).encode(), b"Local time: 2026-03-01T22:00:00.000\n22:00:01.000 x\n"
    began, _ = read(start(), before, 0)
    (meant,) = read(began, whole, began.offset)[1]
    for cut in range(1, len(whole)):
        state, found = read(began, whole[:cut], began.offset, final=True)
        _, rest = read(state, whole[cut:], state.offset)
        assert [type(each) for each in rest] == [Continuation]
        assert type(found[0]) is CutLine
        known = [
            replace(each, length=meant.length, text=meant.text) for each in found if type(each) is LogEvent
        ]
        assert known in ([], [meant])
        assert known or type(found[-1]) is Unrecognised, whole[:cut]


@pytest.mark.parametrize("number", ["22170", "GCTI-21-22170"])
def test_a_number_at_the_end_of_a_line_without_its_end_may_go_on(number):
    line = f"22:00:01.000 Standard host confserv {number}" if "-" in number else f"22:00:01.000 Std {number}"
    _, (_, found) = read(start(offset=9), line.encode(), 9, final=True)
    assert type(found) is Unrecognised
    _, (_, found) = read(start(offset=9), f"{line} t".encode(), 9, final=True)
    assert found.number == 22170


def test_a_further_line_without_its_end_stays_one():
    state, _ = read(start(), b"22:00:01.000 Std 22170 x\n", 0)
    _, (_, found) = read(state, b"    and a further li", state.offset, final=True)
    assert type(found) is Continuation


def test_a_shortened_line_keeps_its_event_and_its_place():
    first, head, last = (
        b"22:00:01.000 Std 05060 x\n",
        b"22:00:02.000 Std 22170 long",
        b"22:00:03.000 Std 22172 y\n",
    )
    cut = Cut(offset=len(first), kept=len(head), length=1_000_000, sha256="ab")
    state, found = read(start(), first + head + last, 0, cuts=[cut])
    assert found[1] == CutLine(25, 1_000_000, len(head), "ab")
    assert [(each.number, each.offset) for each in found if isinstance(each, LogEvent)] == [
        (5060, 0),
        (22170, 25),
        (22172, 1_000_025),
    ]
    assert state.offset == 1_000_025 + len(last)


@pytest.mark.bad_input("L13")
def test_what_follows_within_a_shortened_line_without_its_end_is_no_line_of_its_own():
    head = b"22:00:01.000 Trc 04541 long"
    cut = Cut(offset=0, kept=len(head), length=1_000_000, sha256="ab")
    state, _ = read(start(), head, 0, cuts=[cut], final=True)
    more = Cut(offset=1_000_000, kept=len(head), length=2_000_000, sha256="cd")
    state, found = read(state, head, 1_000_000, cuts=[more], final=True)
    assert type(found[-1]) is Continuation
    inside, following = b"22:00:02.000 Std 22170 x\n", b"22:00:03.000 Std 22172 y\n"
    _, (rest, event) = read(state, inside + following, 3_000_000)
    assert (type(rest), rest.of, event.number) == (Continuation, 0, 22172)


def test_a_shortened_line_that_has_its_end_leaves_none_open():
    head = b"22:00:01.000 Trc 04541 long"
    cut = Cut(offset=0, kept=len(head), length=1_000_000, sha256="ab")
    state, _ = read(start(), head, 0, cuts=[cut])
    assert not state.line_open
    _, found = read(start(), head + b"22:00:02.000 Std 22170 x", 0, cuts=[cut], final=True)
    assert found[-1].number == 22170


@pytest.mark.parametrize(
    "cut", [Cut(3, 5, 100), Cut(25, 500, 1000), Cut(0, 25, 100), Cut(25, 10, 5), Cut(-1, 0, 0)]
)
def test_a_shortened_line_that_does_not_fit_is_refused(cut):
    with pytest.raises(OutOfOrder):
        read(start(), b"22:00:01.000 Std 05060 x\n22:00:02.000 x\n", 0, cuts=[cut])


def test_a_state_of_another_version_is_refused():
    with pytest.raises(ValueError, match="another version"):
        ParserState.from_json({"version": 2})


def test_records_are_frozen():
    event = one("22:00:01.000 Std 22170 x")
    with pytest.raises(AttributeError):
        event.number = 22171
    assert event == LogEvent(0, 25, 22170, "Standard", "x", datetime(2026, 3, 1, 22, 0, 1), CARRIED)
    assert hash(event) == hash(one("22:00:01.000 Std 22170 x"))


# --- what it does around it ---


@pytest.mark.parametrize("text", ["", "plain", "\u00fc", "a\0b", "5 GCTI-21-22170 x", "22170 22170"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_an_event_is_the_same_whether_its_line_comes_whole_or_was_shortened(text, end):
    """Whole lines of the commonest form are read by a way of their own."""
    head = b"Local time:       2026-03-01T22:00:00.000\n"
    for number in ("22170", "04120"):
        raw = f"22:00:01.000 Std {number} {text}".encode() + end
        _, [_, whole] = read(start(), head + raw, 0)
        kept = len(raw) - 1
        _, [_, _, shortened] = read(
            start(), head + raw[:kept], 0, cuts=[Cut(len(head), kept, len(raw), "0" * 64)]
        )
        assert shortened == whole
        assert type(whole) is LogEvent
