"""How a notice reads: as a mail, as JSON for programs, as a message of Slack or Teams.

Names of environments and runs were typed by people, so every text is one line of plain characters before it goes
anywhere, and nothing of it can be a header, a mention, a link or markup.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

SUBJECT = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A notice on its way out. `id` stays the same however often it is sent; `link` is the page in Runbook."""

    id: str
    kind: str
    environment: str
    run: int | None
    run_title: str
    title: str
    text: str
    whom: str
    link: str
    at: datetime


def one_line(text: str) -> str:
    """The text without line breaks, control characters and those that turn or hide what stands beside them."""
    kept = "".join(
        " " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char
        for char in text
        if unicodedata.category(char) not in ("Cf", "Cs", "Co", "Cn")
    )
    return " ".join(kept.split())


# Mail.


def subject_of(message: Message) -> str:
    """“[Production · Frankfurt] Signature wanted: …”, short enough for a list of mails."""
    subject = f"[{one_line(message.environment)}] {one_line(message.title)}"
    return subject if len(subject) <= SUBJECT else f"{subject[: SUBJECT - 1].rstrip()}…"


def mail_of(message: Message) -> str:
    """The body: what, where, who may act, and the page."""
    where = one_line(message.environment)
    if message.run is not None:
        where = f"{where}, run {message.run}: {one_line(message.run_title)}"
    lines = [
        one_line(message.title),
        "",
        one_line(message.text),
        "",
        f"Where: {where}",
        f"Who may act: {one_line(message.whom)}",
        f"When: {message.at:%Y-%m-%d %H:%M:%S} UTC",
        "",
        message.link,
        "",
        "Runbook sends this by your choices under “Your account”. An answer to this mail reaches nobody.",
    ]
    return "\n".join(lines) + "\n"


# Programs.


def webhook_of(message: Message) -> bytes:
    """The JSON body of a signed webhook."""
    data = {
        "environment": message.environment,
        "run": message.run,
        "run_title": message.run_title,
        "title": message.title,
        "text": message.text,
        "who_may_act": message.whom,
        "link": message.link,
    }
    body = {"type": f"runbook.{message.kind}", "timestamp": message.at.isoformat(), "data": data}
    return _json(body)


def webhook_headers(message: Message, body: bytes, secret: bytes, at: datetime) -> dict[str, str]:
    """The headers of the Standard Webhooks scheme: id, time, and HMAC-SHA256 over both and the body."""
    stamp = str(int(at.timestamp()))
    signed = b".".join((message.id.encode(), stamp.encode(), body))
    mac = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": message.id, "webhook-timestamp": stamp, "webhook-signature": f"v1,{mac}"}


# Chats.


def slack_of(message: Message) -> bytes:
    """A Slack message: `text` for notifications, and blocks of plain text with a button that opens the page."""
    where = _where(message)
    body = {
        "text": _for_slack(f"{one_line(message.environment)}: {one_line(message.title)} {message.link}"),
        "blocks": [
            {"type": "header", "text": _plain(message.title, 150)},
            {"type": "section", "text": _plain(message.text, 2000)},
            {
                "type": "context",
                "elements": [_plain(where, 1000), _plain(f"Who may act: {message.whom}", 1000)],
            },
            {
                "type": "actions",
                "elements": [
                    {"type": "button", "text": _plain("Open in Runbook", 75), "url": message.link},
                ],
            },
        ],
    }
    return _json(body)


def _where(message: Message) -> str:
    run = f", run {message.run}: {message.run_title}" if message.run is not None else ""
    return f"{message.environment}{run}"


def _plain(text: str, most: int) -> dict[str, Any]:
    line = one_line(text)
    return {
        "type": "plain_text",
        "text": line if len(line) <= most else f"{line[: most - 1]}…",
        "emoji": False,
    }


def _for_slack(text: str) -> str:
    """`<!channel>` and links are written with these three; escaped they are what they look like."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def teams_of(message: Message) -> bytes:
    """A message with an Adaptive Card, as the webhooks of Teams take it. Text runs know no markdown."""
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "fallbackText": f"{one_line(message.environment)}: {one_line(message.title)}",
        "body": [
            _run(message.title, weight="bolder", size="medium"),
            _run(message.text),
            _run(_where(message), isSubtle=True),
            _run(f"Who may act: {message.whom}", isSubtle=True),
        ],
        "actions": [{"type": "Action.OpenUrl", "title": "Open in Runbook", "url": message.link}],
    }
    attachment = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": card,
    }
    return _json({"type": "message", "attachments": [attachment]})


def _run(text: str, **style: Any) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": one_line(text), **style}]}


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
