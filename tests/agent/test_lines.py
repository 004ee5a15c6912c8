"""Whole lines out of bytes."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import lines
from agent.messages import DATA_LIMIT, LINE_LIMIT


def take(content, start=0, room=DATA_LIMIT, silent=False):
    return lines.take(lambda at, count: content[at : at + count], start, len(content), room, silent)


def joined(content, piece):
    """The piece with its cuts filled in from the content, each cut checked."""
    whole, at, start = b"", 0, piece.end - len(piece.data) - sum(cut.length for cut in piece.cuts)
    for cut in piece.cuts:
        kept = cut.offset - start - len(whole)
        left_out = content[cut.offset : cut.offset + cut.length]
        assert hashlib.sha256(left_out).hexdigest() == cut.sha256
        whole += piece.data[at : at + kept] + left_out
        at += kept
    return whole + piece.data[at:]


def test_an_unfinished_line_waits_for_its_end():
    piece = take(b"one\ntwo\nthr")

    assert piece == lines.Piece(b"one\ntwo\n", (), 8, False)


def test_an_unfinished_line_is_taken_after_silence_and_marked():
    assert take(b"one\nthr", silent=True) == lines.Piece(b"one\nthr", (), 7, True)


@pytest.mark.parametrize("ends", [b"\r", b"\x0b", b"\x0c", "\u2028".encode(), b"\x00"])
@pytest.mark.bad_input("L08")
def test_only_a_line_feed_ends_a_line(ends):
    assert take(b"one" + ends + b"two").data == b""


def test_a_line_of_64_kib_travels_whole():
    content = b"x" * LINE_LIMIT + b"\n"

    assert take(content) == lines.Piece(content, (), len(content), False)


@pytest.mark.bad_input("L09")
def test_of_a_longer_line_the_rest_becomes_a_cut():
    content = b"a\n" + b"x" * LINE_LIMIT + b"rest of it\nb\n"

    piece = take(content)

    assert piece.data == b"a\n" + b"x" * LINE_LIMIT + b"\nb\n"
    assert piece.cuts == (lines.Cut(2 + LINE_LIMIT, 10, hashlib.sha256(b"rest of it").hexdigest()),)
    assert joined(content, piece) == content


@pytest.mark.bad_input("L09")
def test_a_line_without_end_is_taken_when_it_is_too_long_to_wait_for():
    content = b"x" * (lines.LONGEST_WAIT + LINE_LIMIT)

    piece = take(content)

    assert piece.partial
    assert len(piece.data) == LINE_LIMIT
    assert piece.end == len(content)


def test_lines_that_do_not_fit_wait_for_the_next_answer():
    assert take(b"one\ntwo\nthree\n", room=9) == lines.Piece(b"one\ntwo\n", (), 8, False)


chunks = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.builds(lambda byte, count: byte * count, st.sampled_from([b"x", b"\n"]), st.integers(0, 30)),
        st.builds(lambda extra: b"y" * (LINE_LIMIT + extra), st.integers(-2, 3)),
        st.just(b"\n"),
    ),
    max_size=12,
).map(b"".join)


@given(chunks, st.integers(LINE_LIMIT + 1, LINE_LIMIT + 50))
def test_piece_by_piece_every_byte_comes_once(content, room):
    at, seen = 0, b""
    while True:
        piece = take(content, at, room)
        if piece.end == at:
            break
        assert len(piece.data) <= room
        assert piece.data.endswith(b"\n")
        seen += joined(content, piece)
        at = piece.end
        assert seen == content[:at]
    assert b"\n" not in content[at:]

    rest = take(content, at, room, silent=True)

    assert seen + joined(content, rest) == content


@given(chunks)
def test_the_end_of_the_last_line_is_found(content):
    found = lines.end_of_last_line(lambda at, count: content[at : at + count], len(content))

    assert found == content.rfind(b"\n") + 1
