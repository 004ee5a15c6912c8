"""Cutting the stream, and bytes of any kind."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from upgrades.domain.log_events import CutLine, ParserState, Unrecognised, mask_secrets, read, visible

LOGS = Path(__file__).parent.parent / "logs"
SAMPLE_LINES = [
    line for file in sorted(LOGS.iterdir()) for line in file.read_bytes().splitlines(keepends=True)
]
ODD_LINES = [
    b"\n",
    b"Local Control Agent\n",
    b"File: (2) x\n",
    b"some words\n",
    b"23:59:59.999 Std 22170 x\r\n",
    b"00:00:00.000 Std 22172 \xff\0\n",
    b"2016-13-45T10:00:00.000 Std 22170\n",
    b"10:00:00.000 Trc 04120 Check point 2016-13-45T10:00:00\n",
    b"10:00:00.000 Trc 04120 Check point 2016-11-26T10:00:00\n",
    b"10:00:00.000,Std,22170,x\n",
]
lines = st.lists(st.sampled_from(SAMPLE_LINES + ODD_LINES), max_size=40)
types = st.sampled_from(["21", "43", "LCA"])


def start(application_type="21"):
    return ParserState.initial(application_type=application_type, file_name="c.20160204_215532_104.log")


def through_json(state):
    return ParserState.from_json(json.loads(json.dumps(state.to_json())))


@given(lines, st.data(), types)
def test_the_records_do_not_depend_on_where_the_stream_is_cut(lines, data, application_type):
    whole = b"".join(lines)
    wanted_state, wanted = read(start(application_type), whole, 0)
    state, found = start(application_type), []
    while lines:
        size = data.draw(st.integers(0, len(lines)))
        state, more = read(state, b"".join(lines[:size]), state.offset)
        state, lines = through_json(state), lines[size:]
        found += more
    assert found == wanted
    assert state == wanted_state


@given(st.lists(st.sampled_from([*SAMPLE_LINES, *ODD_LINES]) | st.binary(max_size=80)), types)
def test_any_bytes_are_read_and_every_byte_belongs_to_one_record(parts, application_type):
    data = b"".join(parts)
    state, records = read(start(application_type), data, 0, final=True)
    through_json(state)
    assert state.offset == len(data)
    places = {each.offset: each.length for each in records if not isinstance(each, CutLine)}
    assert sum(places.values()) == len(data)
    repeated = len(records) - len(places)
    assert repeated <= sum(isinstance(each, CutLine | Unrecognised) for each in records)
    assert "\0" not in repr(records)


@given(st.text())
def test_texts_for_pages_can_always_be_encoded(text):
    shown = visible(mask_secrets(text))
    shown.encode()
    assert visible(shown) == shown


@given(
    st.text(
        alphabet=st.characters(codec="ascii", exclude_characters="\t", categories=["L", "N", "P", "S", "Zs"])
    )
)
def test_ordinary_text_is_shown_as_it_is(text):
    assert visible(text) == text
