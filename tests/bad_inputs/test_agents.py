"""Answers of agents that must do no harm (rows A). Most are proved where answers are read; here is the rest."""

import json
import ssl
import threading
import warnings
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.agent.certificates import make_certificate, pem
from tests.agent.conftest import ask
from tests.agent.test_client import FILE, OTHER, meet, news, reply, signed, trouble
from tests.services.fake_agent import FILE as STORED
from tests.services.fake_agent import OTHER as STORED_TOO
from tests.services.fake_agent import lost, part
from tests.services.test_taking_news import BEFORE, READY, UPGRADE_MODE, is_in_doubt, judged, tell
from upgrades.adapters.agent_client import AgentAddress, AgentTrouble
from upgrades.domain.environment_records import NotUsable
from upgrades.models import LogFile, LogLine


@pytest.mark.bad_input("A11")
def test_a_page_of_a_file_that_became_another_one_is_refused():
    """The next page is asked from the cursor of one file; the answer is about another, from the same place."""
    found = trouble(reply(news(file=OTHER)))

    assert found.cause == "nonsense"
    assert "does not begin at the cursor" in str(found)


@pytest.mark.bad_input("A11")
def test_a_file_that_went_between_two_pages_leaves_a_gap_and_the_new_one_is_read_from_its_first_byte(
    launching,
):
    tell(launching, part(BEFORE + UPGRADE_MODE + READY, room=len(BEFORE)))
    tell(launching, lost("gone", len(BEFORE)), part(READY, file=STORED_TOO))

    assert LogLine.objects.filter(kind=LogLine.Kind.GAP, file__identity=STORED).exists()
    assert LogFile.objects.get(identity=STORED_TOO).lines.order_by("offset").first().offset == 0
    assert is_in_doubt(launching)


@pytest.mark.bad_input("A14")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"to": 12, "size": 11}, id="a part beyond its file"),
        pytest.param({"to": 13}, id="further than its bytes"),
        pytest.param({"to": 11}, id="less far than its bytes"),
        pytest.param({"data": "", "to": 12}, id="no bytes, and yet further"),
    ],
)
def test_an_answer_that_contradicts_its_own_size_is_refused(changes):
    assert trouble(reply(news(**changes))).cause == "nonsense"


@pytest.mark.bad_input("A14")
def test_what_lies_beyond_the_cursor_is_not_caught_up_whatever_the_agent_says(launching):
    """`complete` says that files could be examined, not that all was read: only offset and size say that."""
    whole = BEFORE + UPGRADE_MODE + READY
    tell(launching, part(whole, room=len(BEFORE)))
    row = LogFile.objects.get(identity=STORED)

    assert (row.cursor, row.size) == (len(BEFORE), len(whole))
    assert judged(launching)[0] is None


@pytest.mark.bad_input("A15")
@pytest.mark.parametrize("days", [-2, 2, -0.02, 400])
def test_an_agents_clock_orders_nothing(launching, days):
    from tests.services import fake_agent as fakes
    from upgrades.services.agents import take_news

    for content, at in ((UPGRADE_MODE, len(BEFORE)), (READY, len(BEFORE) + len(UPGRADE_MODE))):
        answer = fakes.news(
            part(BEFORE + UPGRADE_MODE + READY, at if LogFile.objects.exists() else 0, size=None)
        )
        moved = replace(
            answer.origin,
            time=answer.origin.time + timedelta(days=days),
            skew=days * 86_400 * (1 if content is READY else -1),
        )
        take_news(launching.agent("new").pk, replace(answer, origin=moved))
        launching.advance()

    assert judged(launching)[0] == "upgrade-mode"
    assert abs(launching.agent("new").clock_skew) >= abs(days) * 80_000, (
        "and the page says by how much it is off"
    )


@pytest.mark.bad_input("A15")
def test_a_time_beyond_the_calendar_is_refused(monkeypatch):
    from agent import messages

    def answer(question):
        body = json.dumps(news()).encode()
        headers = messages.reply_headers(
            "5e" * 32, "fra-cfg-01", "k1", question.nonce, 200, "0" * 16, 999_999_999_999.0, body
        )
        head = [f"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"]
        return (
            "\r\n".join(head + [f"{name}: {value}" for name, value in headers.items()]).encode()
            + b"\r\n\r\n"
            + body
        )

    assert "its time is beyond the calendar" in str(trouble(answer))


# A19: TLS, with a real agent at the other end.


def tls_trouble(start, files, certificate, url=None):
    agent = start("confserv", change=lambda configuration: configuration.update(tls=files))
    address = replace(agent.address, certificate=certificate, url=url or agent.address.url)
    with pytest.raises(AgentTrouble) as caught:
        ask(address, "health")
    return str(caught.value)


@pytest.mark.bad_input("A19")
def test_a_certificate_that_has_ended_is_refused(start_agent, tmp_path):
    files = make_certificate(tmp_path, days=-1)
    assert "its certificate has ended. Give the agent a new one." in tls_trouble(
        start_agent, files, pem(files)
    )


@pytest.mark.bad_input("A19")
def test_a_certificate_for_another_name_is_refused(start_agent, tmp_path):
    files = make_certificate(tmp_path, host="other.example.net")
    assert "its certificate is for another name." in tls_trouble(start_agent, files, pem(files))


@pytest.mark.bad_input("A19")
def test_a_certificate_that_signed_itself_is_refused(start_agent, tmp_path):
    files, known = make_certificate(tmp_path), make_certificate(tmp_path, "known")
    assert "is not the one that is known here" in tls_trouble(start_agent, files, pem(known))


@pytest.mark.bad_input("A19")
def test_a_certificate_of_another_authority_is_refused(start_agent, tmp_path):
    ours, theirs = (
        make_certificate(tmp_path, "ours", is_ca=True),
        make_certificate(tmp_path, "theirs", is_ca=True),
    )
    files = make_certificate(tmp_path, signed_by=theirs)
    assert "or its authority is not" in tls_trouble(start_agent, files, pem(ours))


@pytest.mark.bad_input("A19")
def test_a_weak_key_is_refused_when_its_certificate_is_entered(tmp_path):
    from datetime import UTC, datetime

    from upgrades.adapters.certificates import read_certificate

    weak = pem(make_certificate(tmp_path, weak=True))
    with pytest.raises(NotUsable, match="The key of this certificate is too weak"):
        read_certificate(weak, at=datetime.now(UTC))


@pytest.mark.bad_input("A19")
def test_tls_before_1_2_is_refused(tmp_path):
    files = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of what this test is about
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(files["certificate"], files["key"])
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            made, _ = listening.accept()
            with made, pytest.raises(OSError):
                context.wrap_socket(made, server_side=True)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(AgentTrouble) as caught:
            ask(AgentAddress("a", url, "k1", "00" * 32, pem(files)), "health")
        thread.join()

    assert "it offers no version of TLS from 1.2 on." in str(caught.value)


@pytest.mark.bad_input("A12")
def test_more_files_than_were_asked_for_are_refused():
    twice = news()
    parts = twice["applications"]["confserv"]["files"]
    parts.append({**parts[0], "file": FILE})

    assert "a file is there twice" in str(trouble(reply(twice)))


@pytest.mark.bad_input("A20")
def test_an_error_under_200_and_good_data_under_500_are_both_refused():
    error = {"error": {"code": "busy", "message": "x"}}
    assert trouble(reply(error)).cause == "nonsense"
    assert trouble(reply(news(), status=500)).cause == "refused"
    assert meet(lambda question: signed(question, json.dumps(news()).encode())).applications
