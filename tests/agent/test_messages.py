"""The wire format: signatures, cursors, strict JSON."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import messages
from agent.messages import Cursor, Nonsense

SECRET = "5e" * 32
NONCE = "0f" * 16
REQUEST = ("fra-cfg-01", "GET", "/v1/poll", "wait=1", "1790000000", NONCE, "0a" * 32)
REPLY = ("fra-cfg-01", NONCE, 200, "0" * 16, "1790000000.000", b"{}")


@pytest.mark.parametrize("changed", range(len(REQUEST)))
def test_a_request_signature_covers_every_field(changed):
    other = [*REQUEST]
    other[changed] += "x"

    assert messages.request_signature(SECRET, *REQUEST) != messages.request_signature(SECRET, *other)


@pytest.mark.parametrize(
    ("changed", "value"),
    [(0, "fra-cfg-02"), (1, "1f" * 16), (2, 404), (3, "1" * 16), (4, "1790000001.000"), (5, b"{} ")],
)
def test_a_reply_signature_covers_every_field(changed, value):
    other = [*REPLY]
    other[changed] = value

    assert messages.reply_signature(SECRET, *REPLY) != messages.reply_signature(SECRET, *other)


def test_fields_cannot_flow_into_each_other():
    one = messages.request_signature(SECRET, "a", "GET", "/v1/poll", "", "1", NONCE)
    other = messages.request_signature(SECRET, "aGET", "", "/v1/poll", "", "1", NONCE)

    assert one != other


def test_a_signature_is_bound_to_its_direction_and_secret():
    assert messages.request_signature(SECRET, *REQUEST) != messages.request_signature("5f" * 32, *REQUEST)
    assert messages._key(SECRET, "a", b"request") != messages._key(SECRET, "a", b"reply")


@given(st.lists(st.tuples(st.text(min_size=1), st.text())))
def test_a_query_means_the_same_after_the_journey(pairs):
    pairs = [pair for pair in pairs if not any("\ud800" <= sign <= "\udfff" for sign in "".join(pair))]

    query = messages.canonical_query(pairs)

    assert sorted(pairs) == messages.read_query(query)
    assert query == messages.canonical_query(messages.read_query(query))


@pytest.mark.parametrize("text", ["a", "a=1&", "a=%ff", "=&;"])
def test_a_query_that_is_not_well_formed_is_refused(text):
    with pytest.raises(Nonsense):
        messages.read_query(text)


@pytest.mark.parametrize("application", ["confserv", "UR Server 750", "odd:name:7"])
@pytest.mark.parametrize("mark", ["", "0123456789abcdef"])
def test_a_cursor_comes_back_as_it_was(application, mark):
    cursor = Cursor(application, "fe00-20e092-812702a1550d251a", 18, mark)

    assert messages.read_cursor(cursor.text()) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "confserv:/etc/passwd:0",
        "confserv:../../etc/passwd:0",
        "confserv:\\\\host\\share:0",
        "confserv:fe00-20e092-812702a1550d251a:-1",
        "confserv:fe00-20e092-812702a1550d251a:١",
        "confserv:fe00-20e092-812702a1550d251a:9999999999999999999",
        "confserv:fe00-20e092-812702a1550d251a",
        ":fe00-20e092-812702a1550d251a:0",
        "",
    ],
)
def test_a_cursor_that_is_none_is_refused(text):
    with pytest.raises(Nonsense):
        messages.read_cursor(text)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b'{"a":1,"a":2}', "twice", id="A02 a key twice"),
        pytest.param(b'{"b":[{"a":1,"a":2}]}', "twice", id="A02 a key twice, inside"),
        pytest.param(b'{"a":NaN}', "NaN", id="A03 NaN"),
        pytest.param(b'{"a":-Infinity}', "Infinity", id="A03 Infinity"),
        pytest.param(b'{"a":1e400}', "out of range", id="A03 1e400"),
        pytest.param(b'{"a":1e200000}', "out of range", id="A03 1e200000"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", "64 bits", id="A03 5,000 digits"),
        pytest.param(b'{"a":9223372036854775808}', "64 bits", id="A10 2 to the 63rd"),
        pytest.param(b"[" * 200_000, "deeper", id="A04 nested"),
        pytest.param(b'{"a":' * 21 + b"1" + b"}" * 21, "deeper", id="A04 nested by one too many"),
        pytest.param(b"\xff\xfe", "UTF-8", id="not UTF-8"),
        pytest.param(b"<html></html>", "JSON", id="A01 HTML"),
        pytest.param(b"", "JSON", id="A01 empty"),
        pytest.param(b'{"a":1} x', "JSON", id="more after it"),
        pytest.param(b" " * (messages.BODY_LIMIT + 1), "longer", id="too long"),
    ],
)
def test_json_that_is_not_strict_is_refused(body, says):
    with pytest.raises(Nonsense, match=says):
        messages.read_json(body)


def test_brackets_within_texts_are_not_nesting():
    assert messages.read_json(b'{"a":"' + b"[" * 500 + b'\\"{{"}') == {"a": "[" * 500 + '"{{'}


@pytest.mark.parametrize("end", ["", "\\", "\\\n", "[{"])
def test_a_text_without_its_end_is_looked_at_once(end):
    """Tried anew from each quotation mark in it, a megabyte would keep the workers busy for most of an hour."""
    text = '"' + '\\"' * 1000 + end
    assert [found.group() for found in messages._STRUCTURE.finditer(text)] == [text]


@pytest.mark.bad_input("A04")
def test_a_megabyte_of_a_text_without_its_end_is_refused():
    body = b'{"a":"' + b'\\"' * (messages.BODY_LIMIT // 2 - 3)
    with pytest.raises(Nonsense, match="not JSON"):
        messages.read_json(body)


@given(st.binary(max_size=200))
def test_reading_json_never_fails_in_another_way(body):
    with contextlib.suppress(Nonsense):
        messages.read_json(body)
