"""Environments as CSV and YAML: nothing is lost, and every mistake is told where it stands."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upgrades.adapters.environment_yaml import read_yaml
from upgrades.domain.environment_records import (
    UNSEEN,
    Content,
    Kind,
    NotUsable,
    Record,
    blank,
    difference,
    folded,
    problems,
    read_host,
    read_port,
    read_version,
)
from upgrades.domain.environment_text import (
    COLUMNS,
    MAX_BYTES,
    Reading,
    cell_name,
    decoded,
    in_order,
    is_csv,
    merged,
    misfits,
    read_csv,
    read_statements,
    to_csv,
    to_yaml,
)


def record(kind, **values):
    return Record(kind, {**blank(kind).values, **values})


def pair(one="confserv", other="confserv_b", *, hosts=("h1", "h2"), **values):
    common = {"type": "ConfigurationServer", "version": "8.1.3", **values}
    return [
        record(Kind.APPLICATION, name=one, host=hosts[0], role="primary", peer=other, **common),
        record(Kind.APPLICATION, name=other, host=hosts[1], role="backup", peer=one, **common),
    ]


def alone(**values):
    return record(Kind.APPLICATION, **{"name": "a", "type": "SCS", "host": "h1", **values})


def spoilt(**values):
    one, other = pair()
    return [one, Record(Kind.APPLICATION, {**other.values, **values})]


def content(*records, hosts=("h1", "h2")):
    return Content.of(
        [
            record(Kind.ENVIRONMENT, name="Frankfurt"),
            *(record(Kind.HOST, host=host) for host in hosts),
            *records,
        ]
    )


EMPTY = Content.of([blank(Kind.ENVIRONMENT, "Frankfurt")])


def imported(data, before=EMPTY, *, remove_unlisted=False):
    """The content that a file leads to, and its mistakes and remarks as (line, column, message)."""
    reading = Reading()
    text = decoded(data if isinstance(data, bytes) else data.encode(), reading)
    if text is not None:
        (read_csv if is_csv(text) else read_yaml)(text, reading)
    statements = read_statements(reading)
    after = merged(before, statements, remove_unlisted=remove_unlisted)
    wrong, remarks = misfits(before, after, statements)
    return after, in_order(reading.mistakes + wrong), in_order(remarks)


def mistakes(data, before=EMPTY):
    return imported(data, before)[1]


def places(found):
    return [(one.spot.line, one.spot.column) for one in found]


# Any environment, written and read again.

seen = st.characters(
    exclude_categories=("Cc", "Cs", "Co", "Cn", "Zl", "Zp"), exclude_characters=sorted(UNSEEN)
)
signs = st.one_of(st.sampled_from("=+-@'＝＋\",;:#&*!|>%{}[]~\\ äß語🙂"), seen)
texts = st.text(signs, max_size=30).map(str.strip)
names = st.builds("{}{}".format, texts, st.sampled_from("az'=🙂"))
labels = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,6}[a-z0-9_])?", fullmatch=True)
host_names = st.one_of(
    st.builds("{}.{}.net".format, labels, labels),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
)


def usable(read):
    def is_usable(text):
        try:
            return read(text) == text
        except NotUsable:
            return False

    return is_usable


hosts_of_a_content = st.lists(host_names.filter(usable(read_host)), min_size=1, max_size=6, unique_by=folded)
versions = st.one_of(
    st.just(""),
    st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,4}){1,3}", fullmatch=True).filter(usable(read_version)),
)
yes_no = st.sampled_from(["yes", "no"])
components = st.from_regex(r"[A-Z][A-Za-z _-]{15,20}[A-Z]", fullmatch=True)


@st.composite
def contents(draw):
    hosts = draw(hosts_of_a_content)
    records = [
        record(
            Kind.ENVIRONMENT,
            name=draw(names),
            disaster_recovery=draw(yes_no),
            single_language=draw(st.sampled_from(["", "yes", "no"])),
            schema_version=draw(versions),
            log_schema_version=draw(versions),
            uses_lrm=draw(yes_no),
        )
    ]
    records += [
        record(Kind.TARGET, type=component, version=draw(versions.filter(bool)))
        for component in draw(
            st.lists(
                st.sampled_from(["SCS", "LCA", "LogDatabase"]) | components, max_size=3, unique_by=folded
            )
        )
    ]
    os_versions = st.sampled_from(["", "2019", "9.4", "22.04", "12 SP5"])
    records += [
        record(
            Kind.HOST,
            host=host,
            host_type=draw(texts),
            site=draw(texts),
            os_name=draw(texts),
            os_version=draw(os_versions),
            lca_version=draw(versions),
        )
        for host in hosts
    ]
    applications = draw(st.lists(names, max_size=7, unique_by=folded))
    for place, name in enumerate(applications):
        mates = place ^ 1
        is_paired = len(hosts) > 1 and mates < len(applications)
        records.append(
            record(
                Kind.APPLICATION,
                name=name,
                type="SCS",
                version=draw(versions),
                role=("primary", "backup")[place % 2] if is_paired else "standalone",
                peer=applications[mates] if is_paired else "",
                port=str(draw(st.integers(1, 65535))) if draw(st.booleans()) else "",
                folder=draw(texts),
                database=draw(texts),
                dormant="no" if is_paired else draw(yes_no),
                host=hosts[place % 2 if is_paired else 0],
            )
        )
    return Content.of(records)


@given(
    contents(), st.sampled_from([to_yaml, to_csv, lambda it: to_csv(it, ";"), lambda it: to_csv(it, "\t")])
)
def test_any_environment_written_read_and_written_again_is_the_same_byte_for_byte(whole, write):
    first = write(whole)
    fresh = Content.of([blank(Kind.ENVIRONMENT, whole.environment.name)])
    after, wrong, _ = imported(first, fresh)
    assert wrong == ()
    assert write(after) == first
    again, _, _ = imported(first, whole, remove_unlisted=True)
    assert difference(whole, again) == ()


@given(contents(), st.integers(0, 10_000))
def test_a_file_with_its_rows_in_another_order_says_the_same(whole, seed):
    first, *rows = to_csv(whole).split("\r\n")[:-1]
    random.Random(seed).shuffle(rows)
    after, _, _ = imported(
        "\r\n".join([first, *rows]), Content.of([blank(Kind.ENVIRONMENT, whole.environment.name)])
    )
    assert to_csv(after) == to_csv(whole)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_whatever_comes_is_told_as_a_mistake_and_never_as_a_crash(data):
    _, wrong, _ = imported(data)
    assert wrong


@given(contents(), st.data())
def test_a_damaged_file_is_refused_or_understood_but_never_crashes(whole, data):
    text = data.draw(st.sampled_from([to_csv, to_yaml]))(whole)
    start = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 5))
    _, wrong, _ = imported(text[:start] + data.draw(st.text(max_size=4)) + text[start + cut :])
    assert all(one.message for one in wrong)


# Hostile and clumsy files (trust.md 14.4).

HEAD = "name,type,version,role,peer,port,host"


def row(name="confserv", type_="SCS", version="8.5.100", role="", peer="", port="", host="h1"):
    return ",".join([name, type_, version, role, peer, port, host])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(b"x" * (MAX_BYTES + 1), "at most 1048576 are read", id="E05 too large"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "PNG picture", id="E15 picture as csv"),
        pytest.param(b"PK\x03\x04 xl/workbook.xml", "Excel workbooks", id="E03 workbook as csv"),
        pytest.param(b"<!DOCTYPE html><html>", "HTML or XML", id="E15 HTML"),
        pytest.param(b'<?xml version="1.0"?><!DOCTYPE x SYSTEM "http://x/">', "HTML or XML", id="E01 XML"),
        pytest.param("name,host".encode("utf-16"), "UTF-16", id="UTF-16"),
        pytest.param("name,host".encode("utf-16-le"), "UTF-16", id="UTF-16 without a mark"),
        pytest.param(b"name,host\r\nM\xfcnchen,h1", "not UTF-8", id="Latin-1"),
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b" \n\n", "empty", id="blanks only"),
        pytest.param(b"name\nconfserv", "keys", id="E05 one column"),
        pytest.param((HEAD + "," * 5000).encode(), "at most 200", id="E05 5,000 columns"),
        pytest.param(
            (HEAD + "\n" + "\n".join([row()] * 10_001)).encode(), "more than 10000 rows", id="E05 many rows"
        ),
        pytest.param((HEAD + '\n"never closed,SCS\n').encode(), "quotes do not pair up", id="E05 quotes"),
        pytest.param((HEAD + "\nconfserv,SCS").encode(), "2 cells and the first row 7", id="E05 ragged"),
        pytest.param(
            (HEAD + "\n" + row() + ",more").encode(), "8 cells and the first row 7", id="E05 too many cells"
        ),
        pytest.param((HEAD + "\n" + row(name="a\x00b")).encode(), "U+0000", id="E05 NUL"),
        pytest.param((HEAD + '\n"a\nb",SCS,8.5,,,,h1').encode(), "U+000A", id="E05 quotes across lines"),
        pytest.param((HEAD + "\n" + row(name="a\u202eb")).encode(), "U+202E", id="turned text"),
        pytest.param((HEAD + "\n" + row(name="x" * 5000)).encode(), "5000 characters", id="long cell"),
        pytest.param((HEAD + ",name\n" + row() + ",a").encode(), "there twice", id="column twice"),
        pytest.param((HEAD + ",prot\n" + row() + ",1").encode(), "Did you mean port", id="unknown column"),
        pytest.param(
            (HEAD + ",kind\n" + row() + ",server").encode(), "Write application, host", id="unknown kind"
        ),
        pytest.param(b"format: '1'\nhosts:\n- &a {host: h1}\n- *a", "anchor", id="YAML anchor"),
        pytest.param(b"format: '1'\nhosts: !!python/object/apply:os.system [x]", "tag", id="YAML tag"),
        pytest.param(b"format: '1'\nhosts: " + b"[" * 3000, "deep", id="YAML nesting"),
        pytest.param(b"format: '2'\nhosts: []", "This format", id="YAML of the future"),
        pytest.param(b"hosts: []", "format is missing", id="YAML without format"),
        pytest.param(b"format: '1'\nhosts:\n- host: h1\n  host: h2", "second time", id="YAML key twice"),
        pytest.param(b"format: '1'\nhosts:\n- host: h1\n- host: H1.", "second time", id="E07 two spellings"),
        pytest.param(b"format: '1'\nservers: []", "no key", id="YAML unknown key"),
        pytest.param(b"format: '1'\nhosts:\n- host: h1\n  site: ~", "is no value", id="YAML null"),
        pytest.param(b"format: '1'\nhosts:\n- host: h1\n  site: [a]", "one value", id="YAML list as value"),
        pytest.param(b"- a\n- b", "begin with keys", id="YAML list"),
        pytest.param(b"format: '1'\n---\nformat: '1'", "second document", id="YAML documents"),
    ],
)
@pytest.mark.bad_input("E01", "E05", "E15")
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(data, told):
    found = mistakes(data)
    assert any(told in one.message for one in found), [str(one) for one in found]


def test_every_mistake_of_a_file_is_told_at_once_each_with_line_column_and_cell():
    text = "\n".join(
        [
            HEAD,
            row("a", version='"8,5"', port="0"),
            row("b", host="127.1"),
            row("c", role="master"),
            row("a"),
            row("d", type_="LCA"),
        ]
    )
    found = mistakes(text)
    assert places(found) == [(2, 3), (2, 6), (3, 7), (4, 4), (5, 1), (6, 2)]
    assert [one.spot.cell for one in found] == ["C2", "F2", "G3", "D4", "A5", "B6"]
    assert found[0].about == "application a"


def test_lines_are_those_of_the_file_even_when_cells_have_several():
    found = mistakes(HEAD + '\n"a\nb",SCS,8.5,,,,h1\n' + row("c", port="x"))
    assert places(found) == [(2, 1), (4, 6)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.bad_input("E05")
def test_separator_byte_order_mark_and_line_ends_are_recognised(separator, mark, end):
    text = mark + end.join([HEAD, row()]).replace(",", separator)
    after, wrong, _ = imported(text)
    assert not wrong
    assert after.get(Kind.APPLICATION, "confserv")["host"] == "h1"


@pytest.mark.parametrize(
    "text",
    [
        "05.08.2024",
        "8.5.2024",
        "2024-01-02",
        "8/5",
        "1-2",
        "08. Mai",
        "8-May",
        "May-08",
        "8. Dez 24",
        "01/02/24",
        "2024-05-08 00:00:00",
    ],
)
@pytest.mark.bad_input("E16")
def test_a_date_where_a_version_belongs_is_told(text):
    with pytest.raises(NotUsable, match="looks like a date"):
        read_version(text)


@pytest.mark.parametrize("text", ["8.5", "8.5.101.38", "9.0.000", "", "unknown", "Unknown", " 8.5 "])
def test_versions_and_not_knowing_one_are_usable(text):
    assert read_version(text) == ("" if "nknown" in text else text.strip())


@pytest.mark.parametrize("text", ["0", "65536", "-1", "０８０", "1e3", "+80", "80.0", "080", "8 0", "٣"])
@pytest.mark.bad_input("E10")
def test_what_is_no_port_is_refused(text):
    with pytest.raises(NotUsable, match="not a port"):
        read_port(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("FRA-cfg-01", "fra-cfg-01"),
        ("fra-cfg-01.", "fra-cfg-01"),
        ("win_srv", "win_srv"),
        ("10.1.2.3", "10.1.2.3"),
        ("2001:DB8:0::1", "2001:db8::1"),
    ],
)
@pytest.mark.bad_input("E09")
def test_a_host_has_one_canonical_form(text, host):
    assert read_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "127.1", "0x7f000001", "2130706433", "①②⑦.0.0.1", "localhost", "localhost.", "a..b", "x" * 254, "x" * 64, "fra:2020",
        "a b", "-a", "a-", "münchen", "127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0",
        "169.254.169.254", "fe80::1%eth0", "010.1.2.3", "",
    ],
)  # fmt: skip
@pytest.mark.bad_input("E09")
def test_what_is_no_host_is_refused(text):
    with pytest.raises(NotUsable):
        read_host(text)


@pytest.mark.bad_input("E06")
def test_values_that_a_spreadsheet_would_run_are_written_as_texts_and_read_back():
    names = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "＝x", "'", "'=x", "plain"]
    whole = content(*(record(Kind.APPLICATION, name=name, type="SCS", host="h1") for name in names))
    text = to_csv(whole)
    assert not any(
        cell.startswith(("=", "+", "-", "@", "＝")) for line in text.split("\r\n") for cell in line.split(",")
    )
    assert imported(text, content())[0].digest() == whole.digest()


# Pairs.


def test_a_pair_fits():
    assert problems(content(*pair())) == []


@pytest.mark.parametrize(
    ("records", "told"),
    [
        pytest.param([alone(role="primary", peer="a")], "its own peer", id="E08 own backup"),
        pytest.param([alone(role="backup")], "of no pair", id="backup alone"),
        pytest.param([alone(role="primary", peer="x")], "x is not there", id="peer missing"),
        pytest.param(pair(hosts=("h1", "h1")), "on one host", id="pair on one host"),
        pytest.param(spoilt(role="primary"), "both primary", id="two primaries"),
        pytest.param(spoilt(type="SCS"), "one type", id="two types"),
        pytest.param(spoilt(dormant="yes"), "dormant", id="half dormant"),
        pytest.param([alone(host="h9")], "h9 is not there", id="E08 host missing"),
    ],
)  # fmt: skip
@pytest.mark.bad_input("E08")
def test_what_does_not_fit_together_is_told(records, told):
    found = [one for one in problems(content(*records)) if not one.is_remark]
    assert any(told in one.message for one in found), found


@pytest.mark.bad_input("E08")
def test_a_backup_of_a_backup_and_a_circle_are_told_with_their_path():
    ring = [
        record(Kind.APPLICATION, name=name, type="SCS", host="h1", role="backup", peer=peer)
        for name, peer in (("a", "b"), ("b", "c"), ("c", "a"))
    ]
    assert "a → b → c → a" in problems(content(*ring))[0].message
    chain = [
        *pair("a", "b"),
        record(Kind.APPLICATION, name="c", type="SCS", host="h1", role="backup", peer="b"),
    ]
    assert any("c → b → a → b" in one.message for one in problems(content(*chain)))


def test_the_path_of_a_long_circle_is_cut_short():
    names = [f"s{place:02}" for place in range(30)]
    ring = [
        record(
            Kind.APPLICATION, name=name, type="SCS", host="h1", role="backup", peer=names[(place + 1) % 30]
        )
        for place, name in enumerate(names)
    ]
    assert "s00 → s01 → s02 → s03 → s04 → s05 → s06 → s07 → …:" in problems(content(*ring))[0].message


@pytest.mark.bad_input("E07")
def test_a_short_and_a_full_name_of_one_machine_are_a_conflict():
    found = problems(content(hosts=("fra-1", "fra-1.example.net")))
    assert "two spellings" in found[0].message


@pytest.mark.bad_input("E07")
def test_two_servers_whose_names_differ_only_in_case_or_width_are_one():
    found = mistakes("\n".join([HEAD, row("confserv"), row("ＣonfServ")]))
    assert "second time; the first is in line 2" in found[0].message


def test_what_two_rows_say_of_one_host_must_agree():
    head = "name,type,host,site"
    after, wrong, _ = imported(f"{head}\na,SCS,h1,Frankfurt\nb,SCS,H1,")
    assert not wrong
    assert after.get(Kind.HOST, "h1")["site"] == "Frankfurt"
    found = mistakes(f"{head}\na,SCS,h1,Frankfurt\nb,SCS,h1,Berlin")
    assert places(found) == [(3, 4)]
    assert "Line 2 says “Frankfurt”" in found[0].message


def test_a_mistake_in_one_cell_has_no_echo_in_others():
    text = "\n".join(
        [HEAD, row("a", role="primary", peer="b", host="a..b"), row("b", role="backup", peer="a", host="h2")]
    )
    assert places(mistakes(text)) == [(2, 7)]


# What a file does not mention.


def test_columns_that_are_not_there_leave_things_as_they_are():
    before = content(*pair())
    after, wrong, _ = imported("name,version\nconfserv,8.5.101", before)
    assert not wrong
    change = difference(before, after)
    assert [(one.name, [field.field for field in one.fields]) for one in change] == [
        ("confserv", ["version"])
    ]


def test_what_is_not_listed_goes_only_when_asked_for():
    before = content(
        *pair(),
        record(Kind.APPLICATION, name="scs", type="SCS", host="h1"),
        record(Kind.TARGET, type="SCS", version="8.5"),
    )
    text = "\n".join(
        line for line in to_csv(before).split("\r\n") if not line.startswith(("application,scs", "target"))
    )
    assert difference(before, imported(text, before)[0]) == ()
    gone = difference(before, imported(text, before, remove_unlisted=True)[0])
    assert [(one.kind, one.act, one.name) for one in gone] == [
        ("target", "removed", "SCS"),
        ("application", "removed", "scs"),
    ]


def test_removing_one_half_of_a_pair_is_a_mistake():
    before = content(*pair())
    text = "\n".join(
        line for line in to_csv(before).split("\r\n") if not line.startswith("application,confserv_b")
    )
    _, wrong, _ = imported(text, before, remove_unlisted=True)
    assert any("confserv_b is not there" in one.message for one in wrong)


def test_types_nobody_knows_and_shared_ports_are_remarks_that_stop_nothing():
    text = "\n".join([HEAD, row("a", type_="ConfigurationServr", port="2020"), row("b", port="2020")])
    _, wrong, remarks = imported(text)
    assert not wrong
    assert any("Did you mean ConfigurationServer" in one.message for one in remarks)
    assert any("same port" in one.message for one in remarks)


def test_cells_have_the_names_that_spreadsheets_give_them():
    assert [cell_name(column, 3) for column in (1, 26, 27, 52, 53, 200)] == [
        "A3",
        "Z3",
        "AA3",
        "AZ3",
        "BA3",
        "GR3",
    ]
    assert len(set(COLUMNS)) == len(COLUMNS)
