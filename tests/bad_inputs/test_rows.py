"""Every row of rows.toml is proved by a test, and every mark names a row."""

from tests.bad_inputs.marks import ROWS, marked


def test_every_row_has_a_test():
    found = marked()
    assert [name for name in ROWS if not found.get(name)] == []


def test_every_mark_names_a_row():
    assert [name for name in marked() if name not in ROWS] == []


def test_there_are_as_many_rows_as_there_were():
    assert len(ROWS) == 154
