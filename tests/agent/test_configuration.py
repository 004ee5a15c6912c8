"""The agent's configuration: strict, all mistakes at once."""

import json
import subprocess
import sys

import pytest

from agent import configuration
from agent.folders import is_plain_name
from tests.agent.conftest import ROOT, agent_configuration


def mistakes(value) -> list[str]:
    with pytest.raises(configuration.Mistakes) as caught:
        configuration.parse(value if isinstance(value, bytes) else json.dumps(value).encode())
    return caught.value.found


def test_a_right_configuration_is_taken_over(tmp_path):
    found = configuration.parse(json.dumps(agent_configuration(tmp_path, "confserv")).encode())

    assert (found.agent, found.host, found.port) == ("fra-cfg-01", "127.0.0.1", 0)
    application = found.applications[0]
    assert application.log == configuration.Log(str(tmp_path / "confserv" / "log"), "confserv*.log")
    assert set(application.folders) == {"current", "prepared", "kept"}
    assert application.pid_file.endswith("server.pid")


def test_all_mistakes_are_told_at_once():
    found = mistakes(
        {
            "agent": "a b",
            "listen": "7101",
            "keys": [{"id": "k1", "secret": "abc"}],
            "colour": "red",
            "applications": [
                {"name": "a", "type": "", "log": {"folder": "log", "pattern": "../x*.log"}},
                {"name": "a", "type": "SCS", "process": {}, "folders": {"A": "/x", "b": "/x/../y"}},
            ],
        }
    )

    assert found == [
        "colour is not known here; known are: agent, listen, keys, applications, tls.",
        "agent must be letters, digits, dots, dashes and underscores.",
        "listen must be an address and a port, as 127.0.0.1:7101.",
        "keys[0].secret must be 64 hexadecimal digits in lower case.",
        "applications[0].type must be 1 to 255 visible characters.",
        "applications[0].log.folder must be a full path without '..'.",
        "applications[0].log.pattern must be a file name in which * and ? may stand.",
        "applications[1].process must be told by pid-file or by command, by one of them.",
        "applications[1].folders must be keyed by a-z, 0-9 and dashes only; 'A' is not.",
        "applications[1].folders.b must be a full path without '..'.",
        "applications[1].name: a is there twice.",
    ]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("listen", "127.0.0.1:70000", "listen must be"),
        ("listen", 7101, "listen must be"),
        ("keys", [], "keys must be a list of 1 to 2"),
        ("keys", [{"id": "k", "secret": "0" * 64}] * 2, "keys[1].id: k is there twice"),
        ("applications", {}, "applications must be a list"),
        ("tls", {"certificate": "/does/not/exist"}, "tls.key is missing"),
    ],
)
def test_a_wrong_part_is_named(tmp_path, key, value, says):
    wrong = {**agent_configuration(tmp_path, "confserv"), key: value}

    assert any(says in mistake for mistake in mistakes(wrong))


@pytest.mark.parametrize("body", [b"", b"[]", b'{"agent":"a","agent":"b"}', b"\xff"])
def test_a_text_that_is_no_configuration_is_refused(body):
    assert mistakes(body)


def test_two_keys_may_overlap_for_a_rotation(tmp_path):
    value = agent_configuration(tmp_path, "confserv")
    value["keys"].append({"id": "k2", "secret": "0a" * 32})

    assert list(configuration.parse(json.dumps(value).encode()).keys) == ["k1", "k2"]


def test_the_agent_does_not_start_with_mistakes(tmp_path):
    file = tmp_path / "agent.json"
    file.write_text('{"agent": "a"}')

    ended = subprocess.run(
        [sys.executable, "-m", "agent", "--config", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "- listen is missing.\n- keys is missing.\n- applications is missing.\n" in ended.stderr


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "/etc/passwd",
            "C:x",
            "\\\\host\\share",
            "a\x00b",
            "a\nb",
            "x.",
            "x ",
            "*",
        ),
        *("NUL", "con", "COM1", "lpt9.txt", "aux.conf", "CONIN$", "file:stream"),
    ],
)
def test_what_is_no_plain_name_is_refused(name):
    assert not is_plain_name(name)


@pytest.mark.parametrize(
    "name", ["confserv.conf", "run.sh", "console.log", "UR Server 750.cfg", "Größe", ".hidden"]
)
def test_plain_names_are_accepted(name):
    assert is_plain_name(name)
