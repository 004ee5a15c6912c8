"""Messages on their way: to real receivers and a real mail server's stand-in, through faults, once each."""

import base64
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from django.core import mail
from django.db import connection
from django.utils import timezone

from tests.factories import make_environment, make_user
from tests.services.night import at_once
from tests.services.receiver import Receiver
from upgrades import tasks
from upgrades.adapters import webhook_client
from upgrades.models import Membership, Notice, NoticeDelivery, NoticeEndpoint
from upgrades.services import notice_endpoints, notice_sending, notices

SECRET = base64.b64encode(b"k" * 32).decode()
HOUR = timedelta(hours=1)
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


class Desk:
    """An environment with one endpoint, its people, and messages to both."""

    def __init__(self, url):
        self.environment = make_environment()
        self.administrator = make_user("administrator", environment=self.environment)
        self.operator = make_user(
            "operator", environment=self.environment, email="olga@example.org", first_name="Olga"
        )
        self.endpoint = self.make("Desk", url)

    def make(self, name, url, form="webhook"):
        return NoticeEndpoint.objects.create(
            environment=self.environment,
            name=name,
            form=form,
            address=url,
            host="127.0.0.1",
            fingerprint="0" * 12,
            secret=SECRET if form == "webhook" else "",
            kinds=["countdown"],
            made_at=timezone.now(),
        )

    def notice(self, **changes):
        values = {
            "identity": f"test:{Notice.objects.count()}",
            "kind": "countdown",
            "environment": self.environment,
            "run": 7,
            "run_title": "Upgrade",
            "title": "Countdown is at 80 %: LCA away",
            "text": "It may last 20 min at most.",
            "whom": "the operators",
            "path": "/runs/7/",
            "at": timezone.now(),
        }
        return Notice.objects.create(**values | changes)

    def post(self, endpoint=None, **changes):
        delivery = notices.delivery_to(endpoint or self.endpoint, self.notice(**changes), timezone.now())
        delivery.save()
        return delivery

    def mail(self, user=None, **changes):
        user = user or self.operator
        return NoticeDelivery.objects.create(
            notice=self.notice(**changes),
            channel="mail",
            recipient=f"user:{user.pk}",
            user=user,
            next_at=timezone.now(),
        )


@pytest.fixture
def desk(db, receiver):
    return Desk(receiver.url + "hook?key=1")


@pytest.fixture
def real_desk(transactional_db, receiver):
    return Desk(receiver.url + "hook?key=1")


def states(*rows):
    return [NoticeDelivery.objects.get(pk=row.pk).state for row in rows]


def fresh(row):
    return NoticeDelivery.objects.get(pk=row.pk)


def due_again(*rows):
    """As if the time until the next try were over."""
    NoticeDelivery.objects.filter(pk__in=[row.pk for row in rows]).update(
        next_at=timezone.now(), lease_until=None
    )


# What is sent.


def test_a_webhook_is_signed_as_the_standard_says(desk, receiver):
    row = desk.post()
    assert notice_sending.send_due() == 1
    [got] = receiver.received
    headers = {name.lower(): value for name, value in got.headers.items()}
    assert (got.path, headers["content-type"]) == ("/hook?key=1", "application/json")
    assert headers["webhook-id"] == f"msg_{row.message_id.hex}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + got.body
    mac = base64.b64encode(hmac.new(b"k" * 32, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{mac}"
    body = json.loads(got.body)
    assert body["type"] == "runbook.countdown"
    assert body["data"]["link"] == "http://127.0.0.1:8000/runs/7/"
    assert (fresh(row).state, fresh(row).outcome) == ("sent", "Answered 204.")


def test_slack_and_teams_get_messages_in_their_shape_and_no_markup_of_ours_or_others(desk, receiver):
    words = "*Bold* <!channel> [x](https://evil) & more"
    for form in ("slack", "teams"):
        desk.post(desk.make(form, receiver.url, form), title=words)
    notice_sending.send_due()
    bodies = [json.loads(got.body) for got in receiver.received]
    slack = next(body for body in bodies if "blocks" in body)
    teams = next(body for body in bodies if "attachments" in body)
    assert "&lt;!channel&gt;" in slack["text"]
    assert slack["blocks"][0]["text"] == {"type": "plain_text", "text": words, "emoji": False}
    [attachment] = teams["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["actions"][0]["url"]) == ("AdaptiveCard", "http://127.0.0.1:8000/runs/7/")
    assert all(block["type"] == "RichTextBlock" for block in card["body"])
    assert card["body"][0]["inlines"][0]["text"] == words


def test_a_mail_says_what_where_who_and_the_page_and_carries_an_id_of_its_own(desk):
    row = desk.mail()
    notice_sending.send_due()
    [sent] = mail.outbox
    assert sent.to == ["olga@example.org"]
    assert sent.subject == "[Production · Frankfurt] Countdown is at 80 %: LCA away"
    for part in ("It may last 20 min", "run 7: Upgrade", "Who may act: the operators", "/runs/7/"):
        assert part in sent.body
    assert sent.message()["Message-ID"] == f"<{row.message_id}@127.0.0.1>"
    assert fresh(row).state == "sent"


@pytest.mark.parametrize("break_", ["\n", "\r\n", "\r", "\u2028", "\x00\x85", "\x0b"])
def test_a_name_with_line_breaks_is_no_header(desk, break_):
    evil = f"Lab{break_}Bcc: all@example.org{break_}{break_}Body"
    environment = desk.environment
    environment.name = evil.replace("\x00", "")
    environment.save(update_fields=["name"])
    desk.mail(title=evil.replace("\x00", "")[:200])
    notice_sending.send_due()
    [sent] = mail.outbox
    message = sent.message()
    assert message["Bcc"] is None
    assert sent.recipients() == ["olga@example.org"]
    assert message["Subject"].count("Bcc: all@example.org") == 2, (
        "it is part of the subject, and nothing else"
    )


# Faults.


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (500, "It answered 500."),
        (404, "It answered 404."),
        (302, "It answered with a redirection, which is not followed. Enter the address itself."),
    ],
)
def test_what_is_not_taken_is_tried_again_later_with_the_same_id_and_nothing_is_followed(
    desk, receiver, answer, outcome
):
    row = desk.post()
    receiver.answers = [answer]
    notice_sending.send_due()
    waits = fresh(row)
    assert (waits.state, waits.outcome, waits.attempts) == ("waiting", outcome, 1)
    assert timedelta(seconds=7) < waits.next_at - timezone.now() < timedelta(seconds=13)
    assert notice_sending.send_due() == 0, "it is not due yet"
    due_again(row)
    notice_sending.send_due()
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert second.path == "/hook?key=1"
    assert states(row) == ["sent"]


def test_a_receiver_that_is_away_is_no_error_and_holds_up_nobody_else(desk, receiver):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = desk.make("Away", f"http://127.0.0.1:{free.getsockname()[1]}/")
    rows = [desk.post(away) for _ in range(2)]
    other = desk.post()
    notice_sending.send_due()
    assert states(*rows, other) == ["waiting", "waiting", "sent"]
    assert fresh(rows[0]).outcome == "No connection, or it broke off."
    late = desk.post(away)
    NoticeDelivery.objects.filter(pk=rows[0].pk).update(next_at=timezone.now())
    notice_sending.send_due()
    assert fresh(late).attempts <= 1, "what came later waits for the endpoint to be back"


@pytest.mark.parametrize("fault", ["drip", "flood"])
def test_a_dripping_answer_meets_the_deadline_and_an_endless_one_is_not_read(
    desk, receiver, monkeypatch, fault
):
    monkeypatch.setattr(webhook_client, "DEADLINE", 1.0)
    row = desk.post()
    receiver.answers = [getattr(receiver, fault)]
    notice_sending.send_due()
    found = fresh(row)
    if fault == "drip":
        assert (found.state, found.outcome) == ("waiting", "No answer came within 1 seconds.")
    else:
        assert (found.state, found.outcome) == ("sent", "Answered 200.")


def test_after_all_tries_a_message_is_parked_and_an_administrator_has_it_sent_again(desk, receiver):
    row = desk.post()
    receiver.answers = [503] * notice_sending.PARKED_AFTER
    for _ in range(notice_sending.PARKED_AFTER):
        due_again(row)
        notice_sending.send_due()
    assert (states(row), len(receiver.received)) == (["parked"], notice_sending.PARKED_AFTER)
    assert notice_endpoints.send_again(environment_id=desk.environment.pk, by=desk.administrator) == 1
    notice_sending.send_due()
    assert states(row) == ["sent"]
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1


def test_whoever_says_that_nobody_listens_any_more_is_not_asked_again(desk, receiver):
    row = desk.post()
    receiver.answers = [410]
    notice_sending.send_due()
    assert states(row) == ["parked"]


def test_a_mail_server_that_is_away_is_tried_again(desk, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
    row = desk.mail()
    notice_sending.send_due()
    assert (fresh(row).state, fresh(row).outcome) == ("waiting", "The mail server did not take it.")


# Once.


def test_a_worker_that_dies_after_sending_leaves_a_message_that_is_sent_again_with_the_same_id(
    desk, receiver, monkeypatch
):
    row = desk.post()
    with monkeypatch.context() as patched:
        patched.setattr(notice_sending, "_settle", lambda *_: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            notice_sending.send_due()
    assert len(receiver.received) == 1
    assert notice_sending.send_due() == 0, "its lease is not over"
    NoticeDelivery.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert notice_sending.is_due(timezone.now())
    notice_sending.send_due()
    assert states(row) == ["sent"]
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1


KILLED = """
import os, signal, django
django.setup()
from upgrades.services import notice_sending
notice_sending._settle = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
notice_sending.send_due()
"""


@pytest.mark.processes
def test_a_process_that_is_killed_between_sending_and_marking_repeats_the_id_and_nothing_else(
    real_desk, receiver
):
    sent, row = real_desk.post(), real_desk.post()
    NoticeDelivery.objects.filter(pk=row.pk).update(next_at=timezone.now() + HOUR)
    done = subprocess.run([sys.executable, "-c", KILLED], env=for_this_database(), cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert states(sent) == ["waiting"]
    due_again(sent, row)
    assert notice_sending.send_due() == 2
    ids = [got.headers["webhook-id"] for got in receiver.received]
    assert sorted(ids) == sorted([f"msg_{sent.message_id.hex}"] * 2 + [f"msg_{row.message_id.hex}"])
    assert states(sent, row) == ["sent", "sent"]


def for_this_database():
    """The environment of a process that works on the database of the tests."""
    place = connection.settings_dict
    query = urlencode({"host": place["HOST"]}) if str(place["HOST"]).startswith("/") else ""
    where = "" if query else f"{place['HOST']}:{place['PORT']}"
    who = quote(place["USER"]) + (f":{quote(place['PASSWORD'])}" if place["PASSWORD"] else "")
    url = f"postgresql://{who}@{where}/{place['NAME']}" + (f"?{query}" if query else "")
    return {**os.environ, "DATABASE_URL": url}


def test_a_worker_that_wakes_after_its_lease_changes_nothing(desk):
    row = desk.post()
    [late] = notice_sending._take(timezone.now())
    [second] = notice_sending._take(timezone.now() + notice_sending.LEASE)
    assert notice_sending._settle(second, notice_sending._Result("sent", "Answered 204."))
    assert not notice_sending._settle(late, notice_sending._Result("", "No connection, or it broke off."))
    assert (fresh(row).state, fresh(row).outcome) == ("sent", "Answered 204.")


def test_ten_workers_at_once_send_each_of_thirty_messages_once(real_desk, receiver, monkeypatch):
    monkeypatch.setattr(webhook_client, "DEADLINE", 60.0)  # however busy this machine is
    monkeypatch.setattr(notice_sending, "LEASE", 2 * HOUR)
    rows = [real_desk.post() for _ in range(30)]
    answers = at_once(*[notice_sending.send_due] * 10)
    assert sum(answers) == 30, answers
    assert len({got.headers["webhook-id"] for got in receiver.received}) == len(receiver.received) == 30
    assert set(states(*rows)) == {"sent"}


def test_the_tick_finds_what_a_lost_bell_left_and_the_task_sends_it(desk, receiver, monkeypatch):
    rung = []
    monkeypatch.setattr(tasks.send_notices, "delay", lambda: rung.append(1))
    tasks.tick()
    assert rung == []
    row = desk.post()
    tasks.tick()
    assert rung == [1]
    tasks.send_notices()
    assert states(row) == ["sent"]


# Rights that ended, endpoints that changed.


def test_who_has_no_role_there_any_more_gets_nothing_of_what_still_waits(desk):
    left, closed, nowhere = (
        make_user("operator", environment=desk.environment, email=f"{name}@example.org")
        for name in ("left", "closed", "nowhere")
    )
    rows = [desk.mail(user) for user in (left, closed, nowhere)]
    Membership.objects.filter(user=left).delete()
    closed.is_active = False
    closed.save()
    nowhere.email = "no address"
    nowhere.save()
    notice_sending.send_due()
    assert states(*rows) == ["dropped"] * 3
    assert mail.outbox == []


def test_a_paused_endpoint_gets_nothing_of_what_still_waits(desk, receiver):
    row = desk.post()
    notice_endpoints.change_endpoint(
        environment_id=desk.environment.pk, endpoint_id=desk.endpoint.pk, paused=True, by=desk.administrator
    )
    notice_sending.send_due()
    assert (states(row), receiver.received) == (["dropped"], [])


def test_news_that_waited_for_days_is_not_sent_any_more(desk, receiver):
    """As after an outage, or when a backup is put back."""
    old = desk.post(at=timezone.now() - timedelta(days=2, minutes=1))
    young = desk.post(at=timezone.now() - timedelta(days=1))
    notice_sending.send_due()
    assert states(old, young) == ["dropped", "sent"]
    assert len(receiver.received) == 1


def test_a_secret_that_cannot_be_read_parks_the_message(desk, settings):
    row = desk.post()
    settings.SECRET_KEY = "another one " + "0" * 40
    with connection.cursor() as cursor:
        cursor.execute("SELECT address || secret FROM upgrades_noticeendpoint")
        assert "127.0.0.1" not in cursor.fetchone()[0]
    notice_sending.send_due()
    assert "cannot be read with the present SECRET_KEY" in fresh(row).outcome


# Where messages may go.


@pytest.mark.parametrize(
    "address",
    [
        "ftp://hooks.example.net/",
        "javascript:alert(1)",
        "//hooks.example.net/",
        "https://user:word@hooks.example.net/",
        "https://hooks.example.net/#part",
        "https:\\\\hooks.example.net\\",
        "https://hooks.example.net/\tx",
        "https://hooks.example.net/\r\nHost: x",
        "https://hooks.example.net:5432/",
        "https://hooks.example.net:25/",
        "https://hooks.example.net:99999/",
        "https://169.254.169.254/latest",
        "https://metadata.google.internal/",
        "https://①②⑦.0.0.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://127.1/",
        "https://[::ffff:127.0.0.1]/",
        "https://hooks.example.net/" + "a" * 600,
        "",
    ],
)
def test_an_address_that_is_none_or_leads_home_is_refused_when_it_is_entered(desk, address):
    with pytest.raises(notice_endpoints.BadInput):
        notice_endpoints.add_endpoint(
            environment_id=desk.environment.pk,
            name="New",
            form="webhook",
            address=address,
            kinds=["countdown"],
            by=desk.administrator,
        )
    assert not NoticeEndpoint.objects.filter(name="New").exists()


@pytest.mark.parametrize("address", ["https://127.0.0.1/", "http://127.0.0.1:8001/", "https://localhost/"])
def test_this_machine_and_plain_http_are_refused_where_others_reach_runbook(desk, settings, address):
    settings.HTTPS = True
    with pytest.raises(notice_endpoints.BadInput):
        notice_endpoints.add_endpoint(
            environment_id=desk.environment.pk,
            name="New",
            form="slack",
            address=address,
            kinds=["countdown"],
            by=desk.administrator,
        )


def test_a_name_that_leads_elsewhere_when_it_is_used_reaches_nobody(desk, receiver, settings, monkeypatch):
    """The name was harmless when it was entered; what counts is where it leads at the connection."""
    settings.WEBHOOK_NETWORKS = [network for network in settings.WEBHOOK_NETWORKS if not network.is_loopback]
    home = desk.make("Rebound", f"http://hooks.example.net:{receiver.port}/")
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *more, **options: real("127.0.0.1", *more, **options),
    )
    row = desk.post(home)
    notice_sending.send_due()
    assert receiver.received == []
    assert "outside the networks that WEBHOOK_NETWORKS lists" in fresh(row).outcome


def test_the_public_internet_has_none_of_the_special_networks():
    from ipaddress import ip_address

    from runbook.environment import Environment

    public = Environment({}).networks("X", "public")
    inside = lambda text: any(  # noqa: E731
        ip_address(text) in network for network in public if network.version == ip_address(text).version
    )
    assert all(map(inside, ("8.8.8.8", "52.1.2.3", "2606:4700::1111")))
    special = "10.1.2.3 127.0.0.1 169.254.169.254 172.16.1.1 192.168.1.1 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255"
    assert not any(
        map(inside, (*special.split(), "::1", "fd00::1", "fe80::1", "2002:7f00:1::", "64:ff9b::1"))
    )
