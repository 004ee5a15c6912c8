"""Reading procedure texts: what is refused, and how the mistakes are told (trust.md 14.3)."""

import hashlib
import textwrap

import pytest

from upgrades.domain.condition import Compare
from upgrades.domain.procedure import GoTo, ParameterType, PutOnHold
from upgrades.procedures.loader import ProcedureMistakes, builtin, load

HEAD = """\
procedure: small-one
version: 1
title: A small one
summary: Only for tests.
source: CSH
authors: [ruth]
component: ConfigurationServer
roles:
  new: {title: Backup, type: ConfigurationServer, is: backup}
  old: {title: Primary, type: ConfigurationServer, is: primary, pair-of: new}
parameters:
  target: {title: Target, type: version}
  database-upgraded: {title: Database upgraded, type: boolean}
exposures:
  read-only: {title: Read-only, text: Nothing changes., source: CSH-3x, expected: 5 min, at-most: 1 h}
duties:
  tidy-up: {title: "Tidy up after {target}", source: CS-R1}
"""

STEPS = """\
steps:
  - id: first
    title: First
    source: CSH-1
    phase: Prepare
    do: [Do it.]
    gates:
      - {id: copied, kind: evidence, title: Copy, source: CSH-1, accepts: [file], ask: Attach it.}
    opens:
      - {exposure: read-only, at: begin}
  - id: launch
    title: "Launch {new.name}"
    source: CSH-6
    phase: Launch
    do: [Start it.]
    completes: by-itself
    gates:
      - id: ready
        kind: events
        title: Ready
        source: CSH-6f
        server: new
        quiet-after: 3 min
        watch-until: last
        outcomes:
          - {id: good, title: Good, source: CSH-6a, then: continue,
             events: ["21-25301", {one-of: ["21-22170", "21-22171"]}]}
          - {id: again, title: Again, source: CSH-6b, then: {go-to: mend},
             events: ["21-22911", "21-22902"], none-between: ["21-25301"]}
  - id: mend
    title: Mend
    source: CSH-6b
    phase: Launch
    do: [Mend it.]
    aside: true
    then: {go-to: launch}
  - id: last
    title: Last
    source: CSH-7
    phase: Launch
    do: [Stop it.]
    destroys: true
    needs:
      - id: back
        kind: way-back
        title: Way back
        source: CS-R1
        items: [{title: Copy, step: first, gate: copied}]
    closes:
      - {exposure: read-only, at: complete}
"""


def mistakes_of(text):
    raw = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(ProcedureMistakes) as caught:
        load(raw, name="small.yaml")
    assert str(caught.value).count("\n") == len(caught.value.mistakes) - 1
    return caught.value.mistakes


def changed(old, new, times=1):
    text = HEAD + STEPS
    assert text.count(old) >= 1, old
    return text.replace(old, new, times)


def only_mistake(text):
    found = mistakes_of(text)
    assert len(found) == 1, [str(one) for one in found]
    return found[0]


def test_a_sound_text_becomes_a_procedure_with_the_hash_of_its_bytes():
    raw = (HEAD + STEPS).encode()
    procedure = load(raw, name="small.yaml")
    assert procedure.text_hash == hashlib.sha256(raw).hexdigest()
    assert [step.id for step in procedure.steps] == ["first", "launch", "mend", "last"]
    rule = procedure.step("launch").gate("ready").rule
    assert rule.quiet_after == 180
    assert rule.outcomes[0].events == (frozenset({"21-25301"}), frozenset({"21-22170", "21-22171"}))
    assert rule.outcomes[1].follow == GoTo("mend")
    assert procedure.exposure("read-only").maximum == 3600
    assert procedure.parameters[0].type is ParameterType.VERSION


def test_line_ends_of_windows_are_read():
    assert load((HEAD + STEPS).replace("\n", "\r\n").encode(), name="small.yaml").id == "small-one"


# Y01-Y03: scalars are texts; their types come from our tables only.


@pytest.mark.parametrize("number", ["8.10", "8.50", "1e3", "0x1F", "010", "-1", "0", "1_000", "one"])
@pytest.mark.bad_input("Y01")
def test_y01_a_version_number_is_written_in_digits(number):
    assert "whole number" in only_mistake(changed("version: 1\n", f"version: {number}\n")).message


@pytest.mark.bad_input("Y01")
def test_y01_versions_stay_text_and_want_quotes():
    bare = changed("type: version}", "type: version, default: 8.10}")
    assert 'Put `8.10` in quotes: "8.10"' in only_mistake(bare).message
    quoted = changed("type: version}", 'type: version, default: "8.10"}')
    assert load(quoted.encode(), name="small.yaml").parameters[0].default == "8.10"


@pytest.mark.parametrize("text", ["12:30:00", "1:30", "2024-01-02", "no", "on", "~", "8.10", "1e3", "null"])
@pytest.mark.bad_input("Y02", "Y03")
def test_y02_y03_words_for_people_are_taken_as_they_stand(text):
    assert load(changed("title: First", f"title: {text}").encode(), name="small.yaml").steps[0].title == text


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "True", "TRUE", "1", "~", "y", "''"])
@pytest.mark.bad_input("Y03")
def test_y03_only_true_and_false_are_booleans(word):
    assert only_mistake(changed("destroys: true", f"destroys: {word}")).item == "step last"


@pytest.mark.parametrize(
    "event", ["21-22170", "'21-2217'", "'22170'", "'GCTI-21-22170'", "'21-22170 '", "'２１-22170'"]
)
def test_events_are_quoted_and_complete(event):
    found = mistakes_of(changed('["21-25301"]', f"[{event}]"))
    assert ("in quotes" in found[0].message) is (event == "21-22170")


@pytest.mark.bad_input("Y03")
def test_y03_merge_keys_are_refused():
    assert any(
        "merge" in one.message
        for one in mistakes_of(changed("    aside: true", "    <<: {}\n    aside: true"))
    )


# Y04-Y09: what YAML can do and we do not want.


@pytest.mark.bad_input("Y04")
def test_y04_a_second_key_is_refused_with_both_lines():
    found = only_mistake(changed("title: A small one\n", "title: A small one\ntitle: Another\n"))
    assert (found.line, found.column) == (4, 1)
    assert "lines 3 and 4" in found.message


@pytest.mark.bad_input("Y04")
def test_y04_keys_that_differ_only_in_case_or_width_are_the_same():
    found = mistakes_of(changed("title: A small one\n", "title: A small one\nＴitle: Another\n"))
    assert "lines 3 and 4" in found[0].message


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:os.system", "!!str", "!include", "!", "!!binary", "!<tag:yaml.org,2002:int>"],
)
@pytest.mark.bad_input("Y05", "Y22")
def test_y05_y22_tags_are_refused(tag):
    assert "tag" in mistakes_of(changed("title: First", f"title: {tag} First"))[0].message


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a: &a [x]\nb: *a\n", id="alias"),
        pytest.param("a: &a [*a]\n", id="self-containing"),
        pytest.param(
            "\n".join(
                f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" if n else "a0: &a0 [x]" for n in range(10)
            ),
            id="a laugh of a billion",
        ),
    ],
)
@pytest.mark.bad_input("Y06")
def test_y06_anchors_and_aliases_are_refused(text):
    messages = " ".join(one.message for one in mistakes_of(text))
    assert "is an anchor" in messages
    assert "is an alias" in messages


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a: " + "[" * 1000 + "]" * 1000, id="brackets"),
        pytest.param("a: " + "[" * 100_000, id="brackets without end"),
        pytest.param("{a: " * 1000 + "x" + "}" * 1000, id="braces"),
        pytest.param("\n".join("  " * n + "a:" for n in range(300)), id="indented"),
        pytest.param("- " * 900 + "x", id="lists"),
    ],
)
@pytest.mark.bad_input("Y07")
def test_y07_deep_nesting_is_refused(text):
    assert "nested more than 20 deep" in mistakes_of(text)[0].message


@pytest.mark.bad_input("Y08")
def test_y08_sizes_are_bounded():
    assert "at most 1048576" in only_mistake(b"#" * (1024 * 1024 + 1)).message
    step = "  - {id: s%d, title: T, source: CSH-1, phase: P, do: [x]}\n"
    many = HEAD + "steps:\n" + "".join(step % number for number in range(501))
    assert "at most 500" in only_mistake(many).message
    assert "at most 200" in mistakes_of(changed("title: A", "k" * 1000 + ": x\ntitle: A"))[0].message
    assert "at most 160" in only_mistake(changed("title: First", "title: " + "F" * 161)).message


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        pytest.param("--- \na: 1\n---\nb: 2\n", (3, 1), "second document", id="two documents"),
        pytest.param(
            HEAD + STEPS + "...\n", ((HEAD + STEPS).count("\n") + 1, 1), "document end", id="document end"
        ),
        pytest.param("%YAML 1.1\n---\na: 1\n", (1, 1), "Directives", id="directive"),
        pytest.param(b"\xef\xbb\xbf" + (HEAD + STEPS).encode(), (1, 1), "byte order mark", id="BOM"),
        pytest.param((HEAD + STEPS).encode("utf-16"), (1, 1), "UTF-16", id="UTF-16"),
        pytest.param((HEAD + STEPS).encode("utf-16-be"), (1, 1), "UTF-16", id="UTF-16 without BOM"),
        pytest.param(b"a: 1\nbc: \xff\n", (2, 5), "not UTF-8", id="no UTF-8"),
        pytest.param("a: 1\nb:\n\tc: 2\n", (3, 1), "tab", id="tab"),
        pytest.param("a: 1\rb: 2\n", (1, 5), "carriage return", id="bare CR"),
        pytest.param("a: [1\nb: 2\n", (2, 2), "not YAML", id="unfinished"),
        pytest.param("", (1, 1), "empty", id="empty"),
        pytest.param("# nothing\n", (1, 1), "empty", id="only a comment"),
        pytest.param("just words", (1, 1), "group of keys", id="words"),
        pytest.param("- a\n- b\n", (1, 1), "group of keys", id="list"),
    ],
)
@pytest.mark.bad_input("Y09")
def test_y09_one_document_in_utf_8(text, place, message):
    found = next(one for one in mistakes_of(text) if message in one.message)
    assert (found.line, found.column) == place
    assert found.file == "small.yaml"


# Y10-Y13: keys, references, names.


@pytest.mark.bad_input("Y10")
def test_y10_an_unknown_key_is_refused_and_the_nearest_offered():
    found = only_mistake(changed("    completes: by-itself", "    compleets: by-itself"))
    assert "Did you mean `completes`?" in found.message
    assert found.item == "step launch"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("  - id: first\n    title: First", "  - title: First", "`id` is missing", id="no id"),
        pytest.param("    source: CSH-1\n    phase", "    phase", "`source` is missing", id="no source"),
        pytest.param("do: [Do it.]", "do: Do it.", "A list is expected", id="text for list"),
        pytest.param("do: [Do it.]", "do: []", "at least 1", id="empty list"),
        pytest.param("title: First", "title: [First]", "a text is expected", id="list for text"),
        pytest.param("title: First", "title:", "Here stands nothing", id="nothing"),
        pytest.param("title: First", "title: ''", "Here stands nothing", id="empty"),
        pytest.param("kind: evidence", "kind: evidense", "Did you mean `evidence`?", id="kind"),
        pytest.param(
            "  - id: first", "  - first\n  - id: first", "Keys and values are expected", id="text for step"
        ),
        pytest.param("then: continue,", "then: go-on,", "Say what follows", id="then"),
        pytest.param(
            "then: {go-to: mend},", "then: {go-to: mend, end: x1},", "Say what follows", id="two ways"
        ),
        pytest.param("source: CSH-7", "source: [CSH-7, XYZ-1]", "id of a requirement", id="source"),
        pytest.param("source: CSH-7", "source: []", "which requirement", id="no sources"),
    ],
)
@pytest.mark.bad_input("Y10")
def test_y10_wrong_shapes_are_told(old, new, message):
    assert any(message in one.message for one in mistakes_of(changed(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(
            "go-to: mend", "go-to: mendd", "There is no step `mendd`. Did you mean `mend`?", id="step"
        ),
        pytest.param("server: new", "server: neu", "There is no role `neu`", id="role"),
        pytest.param(
            "{exposure: read-only, at: begin}",
            "{exposure: readonly, at: begin}",
            "`read-only`?",
            id="exposure",
        ),
        pytest.param(
            "    aside: true",
            "    aside: true\n    owes: [{duty: tidy}]",
            "There is no duty `tidy`",
            id="duty",
        ),
        pytest.param("watch-until: last", "watch-until: later", "There is no step `later`", id="watch-until"),
        pytest.param("pair-of: new", "pair-of: other", "There is no role `other`", id="pair"),
        pytest.param("step: first, gate", "step: frist, gate", "Did you mean `first`?", id="way back step"),
        pytest.param(
            "gate: copied", "gate: copy", "has no gate `copy`. Its gates are: copied", id="way back gate"
        ),
        pytest.param("pair-of: new", "pair-of: old", "not its own pair", id="own pair"),
    ],
)
@pytest.mark.bad_input("Y11")
def test_y11_references_exist(old, new, message):
    assert message in only_mistake(changed(old, new)).message


@pytest.mark.bad_input("Y12")
def test_y12_a_name_stands_once():
    twice = changed(
        "  - id: mend",
        "  - id: launch\n    title: T\n    source: CSH-6\n    phase: P\n    do: [x]\n  - id: mend",
    )
    assert "lines 28 and 47" in next(one for one in mistakes_of(twice) if "twice" in one.message).message
    gates = changed(
        "accepts: [file], ask: Attach it.}",
        "accepts: [file], ask: Attach it.}\n"
        "      - {id: copied, kind: confirm, title: T, source: CSH-1, ask: It is.}",
    )
    assert "`copied` stands in this step twice" in only_mistake(gates).message
    outcomes = changed("id: again", "id: good")
    assert "`good` stands here twice" in only_mistake(outcomes).message


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "con",
        "all",
        "__proto__",
        "a",
        "😀😀",
        "First",
        "a b",
        "é1",
        "-x",
        "x-",
        "a" * 65,
        "lpt1",
        "ﬁrst",
        "true",
        "a/b",
        "x\u200by",
    ],
)
@pytest.mark.bad_input("Y13")
def test_y13_names_have_one_form(name):
    found = mistakes_of(changed("- id: mend", f"- id: {name}"))
    assert any("name" in one.message or "must not stand" in one.message for one in found)


def test_names_in_conditions_begin_with_a_letter_and_are_no_keywords():
    for name in ("8x", "and", "environment"):
        assert mistakes_of(changed("  target:", f"  {name}: {{title: T, type: text}}\n  target:"))


# Y14-Y17.


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("accepts: [file]", "accepts: []", "at least 1", id="evidence of nothing"),
        pytest.param(
            'events: ["21-22911", "21-22902"]', "events: []", "at least 1", id="outcome without events"
        ),
        pytest.param("then: continue,", "then: {hold: Stop.},", "step last", id="no outcome goes on"),
        pytest.param(
            "    completes: by-itself\n    gates:",
            "    completes: by-itself\n    needs:",
            "cannot be awaited",
            id="events in needs",
        ),
        pytest.param(
            "    aside: true",
            "    aside: true\n    completes: by-itself",
            "on nothing",
            id="completes on nothing",
        ),
        pytest.param(
            'none-between: ["21-25301"]',
            'none-between: ["21-22902"]',
            "awaited and forbidden",
            id="awaited and forbidden",
        ),
        pytest.param(
            "quiet-after: 3 min",
            'quiet-after: 3 min\n        normal: {"21-22902": fine}',
            "decides an outcome",
            id="normal and decisive",
        ),
    ],
)
@pytest.mark.bad_input("Y14")
def test_y14_gates_that_open_for_nothing_or_never(old, new, message):
    assert any(message in one.message or message == one.item for one in mistakes_of(changed(old, new)))


@pytest.mark.parametrize(
    "gate",
    ["approval, policy: point-of-no-return", "way-back, items: [{title: C, step: first, gate: copied}]"],
)
def test_y14_what_is_settled_before_a_step_stands_under_needs(gate):
    text = changed(
        "    aside: true",
        f"    aside: true\n    gates: [{{id: signed, title: T, source: CSH-7, kind: {gate}}}]",
    )
    assert "move it to `needs`" in mistakes_of(text)[0].message


def test_an_approval_names_its_policy():
    text = changed(
        "    aside: true",
        "    aside: true\n    needs: [{id: signed, title: T, source: CSH-7, kind: approval}]",
    )
    found = only_mistake(text)
    assert (found.item, "`policy` is missing" in found.message) == ("step mend, gate signed", True)


@pytest.mark.parametrize(
    "length",
    [
        "0",
        "-1",
        "0 min",
        "10000000000 s",
        "P1M",
        "soon",
        "3",
        "3 minutes",
        "1.5 h",
        "32 days",
        "3min30",
        "٣ min",
    ],
)
@pytest.mark.bad_input("Y16")
def test_y16_lengths_of_time_have_a_unit_and_a_range(length):
    assert "30 s, 3 min, 2 h" in only_mistake(changed("quiet-after: 3 min", f"quiet-after: {length}")).message


def test_an_exposure_is_not_expected_longer_than_it_may_last():
    assert "longer" in only_mistake(changed("expected: 5 min", "expected: 2 h")).message


@pytest.mark.parametrize(
    "text",
    [
        "{{ new.host }}",
        "{% load x %}",
        "{run.user.password}",
        "${HOME}",
        "{new.password}",
        "{nwe.host}",
        "{}",
        "{ new.host }",
        "{NEW.HOST}",
        "{new.host",
        "new.host}",
        "{new.host.__class__}",
        "{0}",
        "{new.host!r}",
    ],
)
@pytest.mark.bad_input("Y17")
def test_y17_only_known_placeholders_are_filled_in(text):
    found = mistakes_of(changed("do: [Do it.]", f'do: ["{text}"]'))
    assert {one.item for one in found} == {"step first"}


def test_y17_what_may_be_filled_in():
    text = changed(
        "do: [Do it.]",
        'do: ["{new} {new.name} {old.host} {old.version} {target} {new.mode} {environment.lca-current}"]',
    )
    assert load(text.encode(), name="small.yaml")


@pytest.mark.bad_input("Y18")
def test_y18_markup_is_only_text():
    markup = "<b>x</b> [l](javascript:alert(1)) ![i](data:image/png;base64,AA)"
    assert load(changed("do: [Do it.]", f"do: ['{markup}']").encode(), name="small.yaml").steps[0].do == (
        markup,
    )


@pytest.mark.parametrize(
    "text",
    [
        r'"\0"',
        r'"a\u0000b"',
        r'"\ud800"',
        r'"\x1b[2J"',
        '"\u202eabc"',
        '"a\u200bb"',
        r'"\u2066"',
        '"\ufeffx"',
    ],
)
@pytest.mark.bad_input("Y21")
def test_y21_control_characters_and_unseen_ones_are_refused(text):
    assert "must not stand" in mistakes_of(changed("title: First", f"title: {text}"))[0].message


# Conditions.


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("database-upgarded", "Did you mean `database-upgraded`?"),
        ("target", "Compare it with something"),
        ("old.version < abc", "no version"),
        ("old.version < new.verison", "Did you mean `new.version`?"),
        ("old.mode < primary", "only versions have an order"),
        ("old.mode = main", "No server has the mode"),
        ("database-upgraded = true", "write `database-upgraded`"),
        ("new.name = target", "cannot be compared"),
        ("old.version <", "cannot be read"),
        ("(" * 200 + "x" + ")" * 200, "at most 300"),
        ("environment.moon-phase", "Nothing is known"),
    ],
)
def test_conditions_use_known_facts_in_ways_that_can_be_true(condition, message):
    text = changed(
        "  - id: mend",
        "  - {id: extra, title: T, source: CSH-6, phase: P, do: [x], otherwise: No, "
        f"when: '{condition}'}}\n  - id: mend",
    )
    assert any(message in one.message for one in mistakes_of(text)), mistakes_of(text)


def test_a_parameter_on_the_right_of_a_comparison_is_a_fact():
    text = changed("then: continue,", 'then: continue, when: "new.version != target",')
    outcome = load(text.encode(), name="small.yaml").step("launch").gate("ready").rule.outcomes[0]
    assert outcome.when == Compare("new.version", "!=", "target", other_is_fact=True)


@pytest.mark.parametrize(
    ("effect", "message"),
    [
        ("{set: target, to: x}", "a step cannot change it"),
        ("{set: new.host, to: x}", "`new.mode` or `new.version`"),
        ("{set: environment.lca-current, to: x}", "cannot set them"),
        ("{set: new.mode, to: sleeping}", "No server has the mode"),
        ("{set: new.version, to: latest}", "neither a version"),
        ("{set: 'New Mode', to: x}", "no name of a fact"),
    ],
)
def test_effects_set_what_a_step_can_set(effect, message):
    assert (
        message
        in only_mistake(changed("    aside: true", f"    aside: true\n    effects: [{effect}]")).message
    )


def test_a_fact_that_a_step_sets_can_be_asked_for():
    text = changed("    aside: true", "    aside: true\n    effects: [{set: mended, to: once}]").replace(
        "title: Last", 'title: Last\n    notices: [{text: "{mended}", source: CSH-7, when: mended = once}]'
    )
    assert load(text.encode(), name="small.yaml")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("default-from: environment.targets.SCS", "no fact of this name"),
        ("default-from: environment.lca-current", "is a boolean"),
        ("default: 'x'", "is no version"),
        ("required: false, required-when: database-upgraded", "Keep one"),
    ],
)
def test_parameters(given, message):
    assert message in only_mistake(changed("type: version}", f"type: version, {given}}}")).message


# All at once.


def test_ten_mistakes_of_a_file_are_told_at_once_in_its_order():
    text = textwrap.dedent("""\
        procedure: small-one
        version: 010
        title: A small one
        summary: Only for tests.
        source: CSX-1
        aprovers: [x]
        authors: [ruth]
        component: Configuration Server
        roles:
          new: {title: Backup, type: ConfigurationServer, is: bakup}
        parameters:
          target: {title: Target, type: verson}
        exposures: {}
        duties: {}
        steps:
          - id: first
            title: "On {new.hots}"
            source: CSH-1
            phase: Prepare
            do: [Do it.]
            when: new.version < new.verison
            expected: soon
            destroys: yes
            owes: [{duty: none-such}]
            completes: by-itself
        """)
    found = mistakes_of(text)
    assert [one.line for one in found] == sorted(one.line for one in found)
    lines = {one.line for one in found}
    assert lines >= {2, 5, 6, 8, 10, 12, 17, 21, 22, 23, 24}
    assert all(one.file == "small.yaml" and one.column >= 1 and one.message for one in found)
    assert str(found[0]) == f"small.yaml:2:10: {found[0].message}"


def test_mistakes_in_the_rest_do_not_hide_what_is_unsound():
    text = changed("destroys: true", "destroys: true\n    expected: soon").replace(
        "{exposure: read-only, at: complete}", "{exposure: read-only, at: complete, when: database-upgraded}"
    )
    messages = [one.message for one in mistakes_of(text)]
    assert any("length of time" in message for message in messages)
    assert any("nothing closes it" in message for message in messages)


def test_the_shipped_texts_are_where_their_names_say():
    shipped = builtin()
    assert {"config-server-ha", "lca", "management-layer"} <= {path.parent.name for path, _ in shipped}
    for path, text in shipped:
        procedure = load(text, name=path.name)
        assert (path.parent.name, path.name) == (procedure.id, f"{procedure.version}.yaml")


def test_a_hold_is_only_for_outcomes():
    text = changed("then: {go-to: launch}", "then: {hold: Stop.}")
    assert "Say what follows" in only_mistake(text).message
    text = changed("then: {go-to: mend},", "then: {hold: Stop.},").replace(
        "    aside: true\n    then: {go-to: launch}\n", ""
    )
    assert load(text.encode(), name="x").step("launch").gate("ready").rule.outcomes[1].follow == PutOnHold(
        "Stop."
    )
