"""No question leaves for an address outside the listed networks: whatever is entered, and wherever a name leads."""

import asyncio
import contextlib
import json
import re
import socket
import ssl
from ipaddress import ip_address, ip_network
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.factories import frankfurt, make_environment, make_user
from tests.services.sockets import recorded
from upgrades.adapters.agent_client import AgentAddress, AgentClient, AgentTrouble
from upgrades.adapters.outgoing import NotAllowed, Outgoing, TooLong, must_be_allowed, read_at_most
from upgrades.domain.reach import Reach
from upgrades.domain.refusal import Refused
from upgrades.models import Agent
from upgrades.services import agent_registration
from upgrades.services.agents import address_of

PRIVATE = [ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")]

FORMS = [
    # This machine, in all the spellings that a resolver takes for it.
    "https://127.0.0.1:7101",
    "https://127.1:7101",
    "https://0x7f000001:7101",
    "https://0x7f.0.0.1:7101",
    "https://2130706433:7101",
    "https://0177.0.0.1:7101",
    "https://017700000001:7101",
    "https://0:7101",
    "https://0.0.0.0:7101",
    "https://①②⑦.0.0.1:7101",
    "https://１２７.０.０.１:7101",
    "https://127。0。0。1:7101",
    "https://127.0.0.1.:7101",
    "https://localhost:7101",
    "https://localhost.:7101",
    "https://LOCALHOST.localdomain:7101",
    "https://[::1]:7101",
    "https://[::]:7101",
    "https://[::ffff:127.0.0.1]:7101",
    "https://[::ffff:7f00:1]:7101",
    "https://[64:ff9b::7f00:1]:7101",
    "https://[64:ff9b:1::7f00:1]:7101",
    "https://[2002:7f00:1::]:7101",
    "https://[2001:0:7f00:1::]:7101",
    "https://[fe80::1%25eth0]:7101",
    "https://[fe80::1]:7101",
    # Metadata services, and addresses of no one machine.
    "https://169.254.169.254:7101",
    "https://100.100.100.200:7101",
    "https://[fd00:ec2::254]:7101",
    "https://metadata.google.internal:7101",
    "https://224.0.0.1:7101",
    "https://255.255.255.255:7101",
    # Not listed.
    "https://192.0.2.7:7101",
    "https://[2001:db8::7]:7101",
    # Another host than it seems, or no host at all.
    "https://10.1.2.3@127.0.0.1:7101",
    "https://10.1.2.3#@127.0.0.1:7101",
    "https:\\\\127.0.0.1:7101",
    "https://127.0.0.1\t:7101",
    "https://x\r\nHost: 127.0.0.1:7101/",
    "https://127.0.0.1:7101/?https://10.1.2.3:7101",
    "http://127.0.0.1:7101",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_INFO",
]


@pytest.fixture
def in_production(settings):
    """Nothing but private networks is listed."""
    settings.HTTPS, settings.AGENT_NETWORKS = True, PRIVATE


@pytest.fixture
def environment(db):
    return make_environment(world=frankfurt())


@pytest.fixture
def admin(environment):
    return make_user("administrator", environment=environment)


def poll(agent):
    async def ask():
        async with AgentClient(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as client:
            await client.poll(address_of(agent))

    asyncio.run(ask())


@pytest.mark.parametrize("url", FORMS)
@pytest.mark.bad_input("W01", "W02", "W03", "W04", "W06", "W09")
def test_no_connection_is_made_when_it_is_entered_tried_or_polled(environment, admin, in_production, url):
    host = environment.hosts.get(name="fra-scs-01")
    where = {"environment_id": environment.pk, "host_id": host.pk, "by": admin}
    agent = Agent.objects.get(host=host)
    with recorded() as seen:
        with pytest.raises(Refused):  # edited
            agent_registration.save_agent(agent_id="a", url=url, command_id=uuid4(), **where)
        agent.refresh_from_db()
        assert agent.url.startswith("http://127.0.0.1"), "nothing changed"
        # As if it had come into the table all the same: by an earlier release, by hand, by a name that leads elsewhere now.
        Agent.objects.filter(host=host).update(url=url)
        assert not agent_registration.try_agent(**where).is_well
        agent.refresh_from_db()
        with pytest.raises(AgentTrouble):
            poll(agent)
        Agent.objects.filter(host=host).delete()
        with pytest.raises(Refused):  # added
            agent_registration.save_agent(agent_id="a", url=url, command_id=uuid4(), **where)

    assert seen == []
    assert not Agent.objects.filter(host=host).exists()


def answers(*addresses):
    """A name service that knows one answer, whatever it is asked."""
    return lambda host, port, *rest, **more: [
        (socket.AF_INET6 if ":" in text else socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port))
        for text in addresses
    ]


def refusal(url):
    async def ask():
        async with AgentClient(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as client:
            await client.health(AgentAddress("a", url, "k1", "00" * 32))

    with pytest.raises(AgentTrouble) as caught:
        asyncio.run(ask())
    return caught.value


@pytest.mark.parametrize(
    "led",
    [
        pytest.param(["127.0.0.1"], id="this machine"),
        pytest.param(["::ffff:127.0.0.1"], id="this machine, mapped"),
        pytest.param(["10.1.2.3", "169.254.169.254"], id="one good, one bad"),
        pytest.param(["192.0.2.7"], id="not listed"),
        pytest.param(["fe80::1%lo"], id="link-local with a zone"),
        pytest.param(["64:ff9b::7f00:1"], id="carried by NAT64"),
    ],
)
@pytest.mark.bad_input("W05")
def test_every_answer_of_the_name_service_is_looked_at(in_production, monkeypatch, led):
    monkeypatch.setattr(socket, "getaddrinfo", answers(*led))
    with recorded() as seen:
        found = refusal("https://agent.example.net:7101")

    assert found.cause == "not-allowed"
    assert str(found) == (
        "Agent a: it was not asked: it leads to an address outside the networks that may be asked. Correct the address "
        "in the agent's registration, or list the network in AGENT_NETWORKS."
    )
    assert seen == []


@pytest.mark.bad_input("W05")
def test_a_name_that_leads_elsewhere_later_is_looked_at_again(environment, admin, in_production, monkeypatch):
    host = environment.hosts.get(name="fra-scs-01")
    where = {"environment_id": environment.pk, "host_id": host.pk, "by": admin}
    monkeypatch.setattr(socket, "getaddrinfo", answers("10.1.2.3"))
    agent_registration.save_agent(
        agent_id="a", url="https://agent.example.net:7101", command_id=uuid4(), **where
    )
    turn = iter([answers("10.1.2.3"), answers("127.0.0.1")])  # good when it is checked, bad when it is used
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: next(turn)(*a, **k))
    with recorded() as seen:
        tried = agent_registration.try_agent(**where)

    assert "it was not asked" in tried.text
    assert seen == []


@contextlib.asynccontextmanager
async def server(head, body=b""):
    got = []

    async def answer(reader, writer):
        got.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(head + body)
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1], got


LOOPBACK = [ip_network("127.0.0.0/8")]


def test_the_connection_goes_to_the_address_that_was_looked_at_and_keeps_the_name(monkeypatch):
    asked = []
    known = answers("127.0.0.1")

    def resolve(host, port, *rest, **more):
        asked.append(host)
        return known(host, port)

    async def ask():
        async with server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK") as (port, got):
            transport = Outgoing(LOOPBACK, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
            async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
                monkeypatch.setattr(socket, "getaddrinfo", resolve)
                with recorded() as seen:
                    answer = await client.get(f"http://agent.example.net:{port}/")
        return answer, got, [address for address in seen if address[1] == port], port

    answer, got, seen, port = asyncio.run(ask())
    assert answer.text == "OK"
    assert asked == ["agent.example.net"], "the name service is asked once, not again by the connection"
    assert seen == [("127.0.0.1", port)]
    assert f"Host: agent.example.net:{port}".encode() in got[0]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.bad_input("W12")
def test_no_redirection_is_followed(status):
    async def ask():
        async with server(f"HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:1/\r\n\r\n".encode()) as (
            port,
            _,
        ):
            with recorded() as seen:
                async with AgentClient(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as client:
                    await client.health(AgentAddress("a", f"http://127.0.0.1:{port}", "k1", "00" * 32))
            assert [address[1] for address in seen] == [port]

    with pytest.raises(AgentTrouble, match="redirection, which is not followed"):
        asyncio.run(ask())


@pytest.mark.bad_input("W12")
def test_a_body_is_read_up_to_its_limit():
    async def ask():
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n"
        async with server(head, b"x" * 10_000_000) as (port, _):
            transport = Outgoing(LOOPBACK, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
            async with (
                httpx.AsyncClient(transport=transport) as client,
                client.stream("GET", f"http://127.0.0.1:{port}/") as response,
            ):
                await read_at_most(response, 1000)

    with pytest.raises(TooLong):
        asyncio.run(ask())


@pytest.mark.bad_input("W08")
def test_this_machine_under_its_address_in_the_network_is_refused(monkeypatch):
    """The listed network may hold our own address: what listens here is not an agent (unless loopback is listed)."""
    own = ip_address("127.0.0.1")
    reach = Reach(tuple(PRIVATE))
    monkeypatch.setattr(Reach, "allows", lambda self, address: address == own)
    with pytest.raises(NotAllowed):
        must_be_allowed(reach, [own])


@pytest.mark.parametrize(
    ("networks", "address", "allowed"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("0.0.0.0/0,::/0", "93.184.216.34", True),
        ("0.0.0.0/0,::/0", "127.0.0.1", False),
        ("0.0.0.0/0,::/0", "169.254.169.254", False),
        ("0.0.0.0/0,::/0", "fd00:ec2::254", False),
        ("0.0.0.0/0,::/0", "64:ff9b::a01:203", False),
        ("0.0.0.0/0,::/0", "0.0.0.0", False),
        ("fc00::/7", "fd12::1", True),
        ("127.0.0.0/8", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.0/8", "::1", False),
        ("169.254.0.0/16", "169.254.3.4", True),
        ("64:ff9b::/96", "64:ff9b::a01:203", False),
    ],
)
def test_what_a_list_of_networks_lets_in(networks, address, allowed):
    reach = Reach(tuple(ip_network(text) for text in networks.split(",")))

    assert reach.allows(ip_address(address)) is allowed


def test_nothing_else_makes_connections():
    """Whoever imports a client of its own would go around all this."""
    root = Path(__file__).resolve().parents[2]
    reaching = re.compile(
        r"^\s*(?:import|from) (httpx|httpcore|requests|urllib3|urllib\.request|aiohttp|http\.client)\b",
        re.MULTILINE,
    )
    found = {
        str(path.relative_to(root))
        for folder in ("upgrades", "runbook")
        for path in (root / folder).rglob("*.py")
        if reaching.search(path.read_text())
    }
    assert found == {
        "upgrades/adapters/agent_client.py",  # through `outgoing`
        "upgrades/adapters/outgoing.py",
        "upgrades/adapters/webhook_client.py",  # through it too
        "upgrades/adapters/simulator_client.py",  # this machine only
        "upgrades/bench/people.py",  # programs for figures, which start what they ask
        "upgrades/bench/place.py",
        "upgrades/bench/readers.py",
        "upgrades/web/sign_in_provider.py",  # the one issuer that the settings name
        "runbook/supervisor.py",  # asks the servers that it started
    }, json.dumps(sorted(found))
