"""Whatever agents, files and people put into a field, no page runs it, asks for anything because of it, or complains.

Real pages in a real Chromium under the real policy. `test_the_net_holds` shows that a page which lets one through
would be noticed.
"""

import re
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings as project
from django.test import Client
from django.utils import timezone

from tests.bad_inputs.payloads import BEACON, PAYLOADS
from tests.factories import give, show_who
from tests.web.run_scene import REASON, Stage, no_agents
from upgrades.domain import run as core
from upgrades.models import (
    Agent,
    Application,
    Environment,
    Evidence,
    Host,
    LogFile,
    LogLine,
    ProcessChange,
    Run,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def _no_agents(monkeypatch):
    no_agents(monkeypatch)


def infest(stage):
    """Write the payloads into every field of every table that somebody outside can fill, one after the other."""
    turn = count()

    def text(limit):
        fitting = [payload for payload in PAYLOADS if len(payload) <= limit]
        return fitting[next(turn) % len(fitting)]

    environment = stage.environment
    for host in Host.objects.filter(environment=environment):
        host.name, host.site = text(90) + str(host.pk), text(60)
        host.save()
    for row in Application.objects.filter(environment=environment):
        row.process_reason, row.version, row.type = text(250), text(40)[:40], text(60)[:60]
        row.save()
        ProcessChange.objects.create(
            application=row, state="up", before="down", reason=text(250), seen_at=timezone.now()
        )
    for agent in Agent.objects.filter(environment=environment):
        agent.agent_id, agent.version, agent.trouble = text(90) + str(agent.pk), text(40)[:40], text(250)
        agent.trouble_since = timezone.now()
        agent.save()
    for file in LogFile.objects.filter(application__environment=environment):
        LogFile.objects.filter(pk=file.pk).update(name=text(250))
        for place, payload in enumerate(PAYLOADS):
            LogLine.objects.create(
                file=file,
                offset=file.cursor + 100 * place,
                length=100,
                kind=(LogLine.Kind.UNREADABLE, LogLine.Kind.GAP, LogLine.Kind.EVENT)[place % 3],
                event="21-22911" if place % 3 == 2 else "",
                level=payload[:20],
                text=payload,
                raw=payload.encode(),
                read_at=timezone.now(),
            )
        LogFile.objects.filter(pk=file.pk).update(cursor=file.cursor + 100 * len(PAYLOADS))
    stage.advance()
    for payload in PAYLOADS:
        if "\x1b" not in payload and "\u202e" not in payload:
            stage.act(core.AddNote(text=payload))
    stage.act(core.AskDeviation(**stage.seen, what="skip", reason=text(200) + REASON))
    Evidence.objects.create(
        run_id=stage.run_id,
        name=text(190),
        size=1,
        sha256="0" * 64,
        uploaded_by=text(90),
        uploaded_at=timezone.now(),
    )
    for person in (stage.operator, stage.second, stage.approver):
        person.first_name, person.last_name = text(140)[:150], text(140)[:150]
        person.save()
    Run.objects.filter(pk=stage.run_id).update(title=text(100), change=text(60)[:60])
    Environment.objects.filter(pk=environment.pk).update(name=text(90) + str(environment.pk))


def pages_of(stage):
    run, place = stage.run_id, stage.environment.pk
    host = Host.objects.filter(environment=place).first().pk
    server = Application.objects.filter(environment=place).first().pk
    return [
        "/environments/",
        f"/environments/{place}/",
        f"/environments/{place}/start/config-server-ha/",
        f"/environments/{place}/plan/",
        f"/environments/{place}/members/",
        f"/environments/{place}/policies/",
        f"/environments/{place}/tokens/",
        f"/environments/{place}/changes/",
        f"/environments/{place}/edit/",
        f"/environments/{place}/edit/host/{host}/",
        f"/environments/{place}/edit/application/{server}/",
        f"/environments/{place}/edit/host/{host}/agent/",
        f"/environments/{place}/import/",
        "/runs/",
        f"/runs/{run}/",
        f"/runs/{run}/?record=all",
        f"/runs/{run}/board/",
        f"/runs/{run}/roll-back/",
        "/approvals/",
        f"/approvals/{run}/launch-new/approval/",
        "/audit/",
        f"/audit/runs/{run}/",
        "/audit/duties/",
        "/audit/access/",
        "/audit/reads/",
        "/audit/record/",
        "/procedures/",
        "/procedures/config-server-ha/1/",
        "/account/",
        "/account/tokens/",
        "/sign-in/?next=%2F%22%3E%3Cscript%3Efetch(%27/beacon-of-an-attack%27)%3C%2Fscript%3E",
        "/no-such/%3Cscript%3Efetch(%27/beacon-of-an-attack%27)%3C%2Fscript%3E/",
    ]


@pytest.fixture
def watched(chromium, live_server):
    """A browser page whose requests, scripts and complaints are recorded."""
    context = chromium.new_context()
    page = context.new_page()
    page.requested, page.complaints = [], []
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("dialog", lambda dialog: page.complaints.append(f"dialog: {dialog.message}"))
    page.on("pageerror", lambda error: page.complaints.append(f"error: {error}"))
    page.on(
        "console",
        lambda said: page.complaints.append(said.text) if "Content Security Policy" in said.text else None,
    )
    yield page, context
    context.close()


def sign_in(context, user, url):
    client = Client()
    client.force_login(user)
    show_who(client, user)
    context.add_cookies(
        [{"name": project.SESSION_COOKIE_NAME, "value": client.session.session_key, "url": url}]
    )


def test_no_page_does_what_a_stored_text_says(watched, live_server):
    page, context = watched
    stage = Stage().reach("launch-new", begun=True)
    stage.log("confserv_b", "21-22911")
    infest(stage)
    for role in ("auditor", "administrator"):
        user = stage.person(role, PAYLOADS[0][:100], PAYLOADS[4][:100])
        if role == "administrator":
            give(user, stage.environment, "operator", "approver")
        sign_in(context, user, live_server.url)
        shown = 0
        for address in pages_of(stage):
            page.requested.clear()
            answer = page.goto(live_server.url + address, wait_until="load")
            assert answer.status < 500, address
            assert page.url.startswith(live_server.url), f"{address} led to {page.url}"
            asked = [url for url in page.requested if urlsplit(url).path.startswith(BEACON)]
            assert asked == [], address
            assert page.complaints == [], address
            assert [url for url in page.requested if not url.startswith(live_server.url)] == [], address
            shown += answer.ok
        assert shown >= 15, role


def test_the_net_holds(watched, live_server, monkeypatch):
    """A page that lets a text through is noticed: with the filter taken away and the policy still there."""
    page, context = watched
    stage = Stage().reach("launch-new", begun=True)
    stage.act(core.AddNote(text=f"<img src={BEACON}>"))
    from django.utils.safestring import mark_safe

    from upgrades.templatetags import foreign

    monkeypatch.setattr(foreign, "format_html", lambda text, *values: mark_safe(text.format(*values)))
    sign_in(context, stage.operator, live_server.url)
    page.goto(f"{live_server.url}/runs/{stage.run_id}/", wait_until="load")

    assert [url for url in page.requested if BEACON in url]


def test_the_shipped_templates_keep_the_rules():
    """No inline handler or style, no script without a nonce, no `safe`, no links made of texts, no values in hx-*."""
    root = Path(__file__).resolve().parents[2]
    found = []
    for path in (root / "templates").rglob("*.html"):
        text = path.read_text("utf-8")
        for rule in (
            r"\son[a-z]+\s*=\s*[\"']",
            r"\sstyle\s*=\s*[\"']",
            r"\|\s*safe\b",
            r"\|\s*urlize",
            r"autoescape\s+off",
            r"\shx-(?:on|vals|vars)\b",
            r"\sjs:",
            r"href\s*=\s*[\"']javascript:",
            r"<script(?![^>]*\bnonce=)(?![^>]*type=\"application/json\")",
        ):
            found += [f"{path.relative_to(root)}: {hit}" for hit in re.findall(rule, text)]
    assert found == []


def test_no_script_keeps_anything_in_the_browser():
    """Neither ours nor a vendored one: what a page showed is gone with the page."""
    root = Path(__file__).resolve().parents[2]
    scripts = [*(root / "static").rglob("*.js"), *(root / "templates").rglob("*.html")]
    assert {"live.js", "htmx.min.js"} <= {path.name for path in scripts}
    storage = re.compile(r"localStorage|sessionStorage|indexedDB|caches\.open|document\.cookie")
    assert {path.name for path in scripts if storage.search(path.read_text("utf-8"))} == set()
