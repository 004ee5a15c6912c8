"""One page with every component in every state, from the real templates: for the tests, and to look at."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

from django import forms
from django.contrib.auth.models import AnonymousUser
from django.core.paginator import Paginator
from django.template import engines
from django.test import RequestFactory

PAGE = Path(__file__).with_name("gallery.html")
BAD_LINE = (
    "15:02:31.118 Std 22170 confserv_b \x1b]8;;http://evil\x07click\u202egnp.exe <img src=x onerror=alert(1)>"
)


class NoteForm(forms.Form):
    """Each kind of control, with help and with mistakes."""

    outcome = forms.ChoiceField(
        choices=[("pass", "Pass"), ("fail", "Fail"), ("not", "Not tested")], widget=forms.RadioSelect
    )
    reason = forms.CharField(
        widget=forms.Textarea, help_text="What you saw and where. Two people will read this."
    )
    host = forms.CharField(required=False, help_text="As the environment has it.")
    server = forms.ChoiceField(choices=[("a", "confserv"), ("b", "confserv_b")])
    dump = forms.FileField(required=False, label="Database copy")
    sure = forms.BooleanField(label="The backup was restored on a test database")


def ago(**span):
    return datetime.now(UTC) - timedelta(**span)


def context():
    station = [
        {"ids": "21-22911", "text": "connected", "state": "seen", "at": ago(minutes=4)},
        {"ids": "21-25301", "text": "upgrade mode", "state": "seen", "at": ago(minutes=3)},
        {"ids": "21-22170", "text": "ready", "state": "next", "note": "expected within 3 min"},
    ]
    return {
        "exposures": [
            {
                "label": "Read-only",
                "state": "open",
                "since": ago(minutes=12, seconds=44),
                "limit": 1500,
                "note": "since step 3 · expected 25 min",
            },
            {
                "label": "Master not redundant",
                "state": "open",
                "since": ago(hours=1, minutes=4),
                "limit": 600,
                "note": "since step 5 · ends with 21-22172 from the new backup",
            },
            {
                "label": "Client downtime",
                "state": "shut",
                "value": "none",
                "note": "clients stay on confserv until step 7",
            },
            {
                "label": "Way back",
                "state": "ready",
                "value": "ready",
                "note": "old folder, database copy and options are verified",
            },
        ],
        "sections": [
            {
                "title": "Prepare",
                "steps": [
                    {
                        "number": 1,
                        "title": "Back up the configuration database",
                        "state": "done",
                        "note": "evidence: cfg_8130.dmp, sha256 9f2c…",
                        "took": "6:12",
                        "url": "#step-1",
                    },
                    {
                        "number": 2,
                        "title": "Install the new backup instance, do not start it",
                        "state": "done",
                        "took": "8:40",
                        "url": "#step-2",
                    },
                    {"number": 3, "title": "Force read-only mode", "state": "failed", "took": "0:55"},
                    {
                        "number": 4,
                        "title": "Point the new instance at the new database",
                        "state": "skipped",
                        "note": "database stays as it is",
                    },
                ],
            },
            {
                "title": "Switch the backup",
                "steps": [
                    {
                        "number": 5,
                        "title": "Stop the backup and replace its folder",
                        "state": "held",
                        "took": "3:20",
                    },
                    {
                        "number": 6,
                        "title": "Launch the new backup instance",
                        "state": "now",
                        "note": "waiting for 21-22170",
                        "since": ago(minutes=4, seconds=51),
                        "url": "#step-6",
                    },
                    {
                        "number": 7,
                        "title": "Shut down the original primary",
                        "state": "todo",
                        "note": "approval: 1 of 2 signed",
                        "took": "~2 min",
                    },
                ],
            },
        ],
        "gates": [
            {
                "title": "confserv_b enters upgrade mode and is ready",
                "verdict": "waiting",
                "proposal": "same database",
                "until": datetime.now(UTC) + timedelta(seconds=97),
                "stations": station,
                "others": [
                    {
                        "label": "Also counted",
                        "ids": "21-25302",
                        "text": "refused to become backup, normal",
                        "chip": "× 3",
                    },
                    {
                        "label": "Other outcome",
                        "ids": "21-22902 → 21-22172",
                        "text": "compatible, no upgrade mode",
                        "chip": "ruled out",
                    },
                ],
            },
            {
                "title": "Agent on fra-cfg-02 reads the log of confserv_b",
                "verdict": "met",
                "reason": "120 ms ago, from position 41 882 on, marked when the step began",
            },
            {
                "title": "Section name, Application name and -s are the same",
                "verdict": "failed",
                "reason": "section confserv_b, application confserv_b, -s confserv",
                "todo": "Correct -s in the start script of confserv_b, then look again.",
            },
            {
                "title": "All clients have moved",
                "verdict": "unknown",
                "reason": "The agent on fra-cfg-01 has not answered for 40 s.",
                "todo": "Look whether the agent runs: systemctl status runbook-agent.",
            },
            {
                "title": "Nothing stands between",
                "verdict": "failed",
                "stations": [
                    station[0],
                    {
                        "ids": "21-22171",
                        "text": "database upgraded",
                        "state": "against",
                        "at": ago(minutes=1),
                    },
                    {"ids": "21-22172", "text": "backup", "state": "later"},
                ],
            },
        ],
        "pair": {
            "title": "Configuration Server pair",
            "link": "⇄",
            "link_text": "two primaries, expected during upgrade mode",
            "link_tone": "wait",
            "left": {"name": "confserv", "place": "fra-cfg-01 · 8.1.3", "role": "primary", "tone": "go"},
            "right": {
                "name": "confserv_b",
                "place": "fra-cfg-02 · 8.5.101",
                "role": "upgrade mode",
                "tone": "wait",
            },
        },
        "broken_pair": {
            "title": "Message Server pair",
            "link": "↮",
            "link_text": "no connection",
            "link_tone": "stop",
            "left": {
                "name": "msgserv",
                "place": "fra-cfg-01 · 8.1.3",
                "role": "stopped",
                "tone": "stop",
                "down": True,
            },
            "right": {"name": "msgserv_b", "place": "fra-cfg-02 · 8.1.3", "role": "primary", "tone": "go"},
        },
        "tail": {
            "id": "log-1",
            "server": "confserv_b",
            "url": "#log",
            "lines": [
                {"clock": "14:02:10", "number": "05060", "text": "Application started", "kind": "normal"},
                {
                    "clock": "14:02:11",
                    "number": "22911",
                    "text": "SYNTHETIC-22911 connected to the primary server",
                    "kind": "hit",
                },
                {"kind": "gap", "text": "14:02:12 to 14:02:30: the agent could not read the log"},
                {"clock": "14:02:31", "number": "22170", "text": BAD_LINE, "kind": "bad"},
                *(
                    {
                        "clock": f"14:03:{n:02}",
                        "number": "25302",
                        "text": "SYNTHETIC-25302 refused",
                        "kind": "",
                    }
                    for n in range(20)
                ),
            ],
        },
        "empty_tail": {"id": "log-2", "server": "msgserv", "lines": []},
        "timeline": {
            "height": 66,
            "now": 55,
            "bars": [
                {
                    "x": 0,
                    "width": 14,
                    "end": 14,
                    "y": 0,
                    "tone": "go",
                    "label": "Step 1, 13:36 to 13:42",
                    "name": "",
                },
                {
                    "x": 14.2,
                    "width": 20,
                    "end": 34.2,
                    "y": 0,
                    "tone": "go",
                    "label": "Step 2, 13:42 to 13:51",
                    "name": "",
                },
                {
                    "x": 34.4,
                    "width": 20.6,
                    "end": 55,
                    "y": 0,
                    "tone": "act",
                    "label": "Step 6, since 13:54",
                    "name": "",
                },
                {
                    "x": 34.4,
                    "width": 20.6,
                    "end": 55,
                    "y": 18,
                    "tone": "open",
                    "label": "Read-only, since 13:54",
                    "name": "read-only",
                },
                {
                    "x": 44,
                    "width": 11,
                    "end": 55,
                    "y": 34,
                    "tone": "open",
                    "label": "Not redundant, since 13:58",
                    "name": "not redundant",
                },
            ],
            "ticks": [
                {"x": 0, "text": "13:36", "anchor": "start"},
                {"x": 55, "text": "now", "anchor": "middle"},
                {"x": 100, "text": "14:24", "anchor": "end"},
            ],
        },
        "blank": NoteForm(prefix="blank"),
        "wrong": NoteForm({"wrong-host": "fra-cfg-02", "wrong-server": "b"}, prefix="wrong"),
        "page": Paginator(range(100), 10).page(4),
        "at": ago(days=2),
        "bad_line": BAD_LINE,
        "bad_note": "first line\nsecond \u200bline\r\n<script>alert(1)</script>",
        "digest": "9f2c" * 16,
    }


def render(nonce, *, rehearsal=False, signed_in=True):
    """The page as text, its elements marked with `nonce`."""
    request = RequestFactory().get("/gallery/?q=confserv&page=4")
    request.csp_nonce = nonce  # type: ignore[attr-defined]
    user = SimpleNamespace(
        is_authenticated=True, get_username=lambda: "olga", get_full_name=lambda: "Olga Petrova"
    )
    request.user = user if signed_in else AnonymousUser()
    messages = [
        SimpleNamespace(level_tag="success", message="Step 5 is complete."),
        SimpleNamespace(level_tag="error", message="Step 7 cannot start yet: step 6 comes first."),
    ]
    values = {**context(), "rehearsal": rehearsal, "messages": messages}
    values["nav"] = {"section": "runs", "approvals_waiting": 12, "audits": True}
    return engines["django"].from_string(PAGE.read_text()).render(values, request)
