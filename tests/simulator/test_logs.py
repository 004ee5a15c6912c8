"""Lines and files against expressions read off the public samples."""

import re

import pytest

from simulator.logs import Layout, LogFile, event_line, file_name, free_line, header
from simulator.spec import frankfurt
from tests.simulator.conftest import NOON, Stage

TIME = r"(?:\d{4}-\d\d-\d\dT)?\d\d:\d\d:\d\d\.\d{3}"
ISO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}"

# One expression per shape of the samples; every line of a finished world must fit one of them.
SHAPES = {
    "header": re.compile(
        r"(?:Local Control Agent .*|Local time:\s+"
        + ISO
        + r"|Start time \(UTC\): \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
        r"|Application (?:name|type):\s+\S.*|Host name:\s+\S+|Time zone:\s+-?\d+\S*.*|Command line:.*-s.*|File:\s+\(\d+\) /.*)"
    ),
    "short event": re.compile(TIME + r" (?:Std|Int|Trc|Dbg|Alr) \d{5} \S.*"),
    "full event": re.compile(ISO + r" (?:Standard|Trace)\s+\S+\s+\S.*\s+GCTI-\d\d-\d{5}\s+\S.*"),
    "total": re.compile(TIME + r" Total number of clients: \d+"),
    "free": re.compile(TIME + r" \(simulated text\) .*"),
    "scs": re.compile(
        TIME + r" (?:##### Request change RUNMODE for Application <\d+,[^>]+> from '\w+' to '\w+'"
        r"|'\S+': NotifyApp: status= \w+ mode=\w+ pid=\d+ \{\d+, [^}]+\}"
        r"|AppRunModeChanged newMode='\w+', App <DBID=\d+, .+, PID=\d+>, \[prevMode=[\w-]+\], \w+"
        r"|SelfServer: Internal Change RUNMODE from '\w+' to '\w+')"
    ),
    "lca": re.compile(
        TIME + r" (?:Notify (?:STATUS|RUNMODE): App<\d+, .+, pid=\d+, \w+, [\w-]+>|\S+: \[Request\w+\].*)"
    ),
    "continuation": re.compile(r"(?:\s+\S.*)?"),
}


@pytest.mark.parametrize(
    "formats", [("short", "time"), ("short", "iso8601"), ("full", "time"), ("full", "iso8601")]
)
def test_every_line_of_a_whole_upgrade_has_a_shape_of_the_samples(tmp_path, formats):
    spec = frankfurt()
    for server in spec["servers"][:2]:
        server |= {"log-format": formats[0], "time-format": formats[1]}
    play = Stage(tmp_path, spec)
    if formats == ("full", "time"):
        SHAPES["full event"] = re.compile(SHAPES["full event"].pattern.replace(ISO, TIME, 1))
    play.play_until("start-former")
    for name in play.world.servers:
        for line in play.log(name).splitlines():
            assert any(shape.fullmatch(line) for shape in SHAPES.values()), line


def test_the_two_examples_of_the_manual_come_out_as_they_are():
    at = 1020795091.196  # 2002-05-07T18:11:31.196Z
    full = Layout("cfg_dbserver", "RealDBServer", "localhost", "full", "iso8601")
    assert event_line(full, at, "Std", 5060, "Application started") == (
        "2002-05-07T18:11:31.196 Standard localhost cfg_dbserver GCTI-00-05060 Application started"
    )
    short = Layout("cfg_dbserver", "RealDBServer", "localhost", "short", "iso8601")
    assert event_line(short, at, "Std", 5060, "Application started") == (
        "2002-05-07T18:11:31.196 Std 05060 Application started"
    )


def test_the_full_format_has_the_type_of_the_application_before_the_number():
    layout = Layout("confserv", "ConfigurationServer", "h", "full", "iso8601", gap="   ")
    assert "   GCTI-21-22172   " in event_line(layout, NOON, "Std", 22172, "(simulated text)")
    assert "GCTI-00-04120" in event_line(layout, NOON, "Trc", 4120, "Check point")


def test_the_time_follows_the_offset_of_the_host_and_the_header_says_so():
    layout = Layout("a", "ConfigurationServer", "h", utc_offset=-18000)
    assert free_line(layout, NOON, "x") == "07:00:00.000 x"
    lines = header(layout, NOON, version="8.1.3", segment=2, path="/p", command_line="./confserv -s a")
    assert lines[0] == "Local time:       2025-11-25T07:00:00.000"
    assert lines[1] == "Start time (UTC): 2025-11-25T12:00:00"
    assert "Time zone:        18000, simulated" in lines
    assert lines[-1] == "File:             (2) /p"


def test_newer_configuration_servers_leave_their_type_out_of_the_header():
    layout = Layout("a", "ConfigurationServer", "h")

    def keys(version):
        lines = header(layout, NOON, version=version, segment=1, path="/p", command_line="./confserv -s a")
        return [line.partition(":")[0] for line in lines]

    assert "Application type" in keys("8.1.3")
    assert "Application type" not in keys("8.5.101")


def test_file_names_carry_the_time_and_never_repeat(tmp_path):
    assert file_name("cs85", NOON + 0.388, 0) == "cs85.20251125_120000_388.log"
    layout, file = Layout("a", "SCS", "h"), LogFile(tmp_path, "a")
    for segment in (1, 2, 3):
        file.open_file(layout, NOON, version="8.5", command_line="x", segment=segment)
    assert len(list(tmp_path.glob("a.*.log"))) == 3


def test_a_check_point_with_the_full_date_comes_every_hour(stage):
    play = stage(speed=50)
    play.wait(3 * 3600)
    points = [line for line in play.log("confserv").splitlines() if " 04120 " in line]
    assert points == [
        f"1{hour}:00:00.000 Trc 04120 Check point 2025-11-25T1{hour}:00:00" for hour in (3, 4, 5)
    ]


def test_a_record_of_several_lines_goes_on_with_blanks(stage):
    lines = stage().log("confserv").splitlines()
    start = next(number for number, line in enumerate(lines) if " 04541 " in line)
    assert lines[start + 1] == ""
    assert lines[start + 2].startswith("  MSGCFG_")
