"""Addresses that must not be asked (rows W). tests/services/test_outgoing.py has the others, with a recorder."""

from uuid import uuid4

import pytest

from tests.factories import frankfurt, make_environment, make_user
from tests.services.sockets import recorded
from upgrades.domain.refusal import Refused
from upgrades.models import Agent
from upgrades.services import agent_registration


@pytest.fixture
def save(db, settings):
    settings.HTTPS = True
    environment = make_environment(world=frankfurt())
    host = environment.hosts.get(name="fra-scs-01")
    admin = make_user("administrator", environment=environment)

    def enter(url):
        with recorded() as seen, pytest.raises(Refused) as caught:
            agent_registration.save_agent(
                environment_id=environment.pk,
                host_id=host.pk,
                agent_id="a",
                url=url,
                by=admin,
                command_id=uuid4(),
            )
        assert seen == []
        assert Agent.objects.get(host=host).url.startswith("http://127.0.0.1"), "nothing changed"
        return str(caught.value)

    return enter


@pytest.mark.bad_input("W07")
@pytest.mark.parametrize(
    "port", ["5432", "6379", "25", "22", "0", "99999", "3306", "11211", "-1", "７１０１"]
)
def test_ports_of_others_are_refused(save, port):
    told = save(f"https://10.1.2.3:{port}")

    assert "is no agent's. Agents listen on 443" in told or "Write the address as https://host:port" in told


@pytest.mark.bad_input("W07")
def test_the_ports_of_our_own_stores_are_refused_wherever_they_are(save, settings):
    settings.DATABASES["default"]["PORT"] = "7777"
    try:
        assert "Port 7777 is no agent's." in save("https://10.1.2.3:7777")
    finally:
        settings.DATABASES["default"]["PORT"] = ""


@pytest.mark.bad_input("W01", "W06", "W10")
@pytest.mark.parametrize(
    "url",
    [
        "https://" + "a" * 10_000 + ":7101",
        "https://fra-cfg-01:7101/%2e%2e/admin",
        "https://fra-cfg-01:7101/%00",
        "https://fra-cfg-01:7101/;x",
        "https://fra-cfg-01:7101/%252e",
        "https://fra-cfg-01:7101/v1/health",
        "https://fra-cfg-01:7101?x=y",
        "https://fra-cfg-01:7101#x",
        "https://fra-cfg-01",
        "javascript:alert(1)",
        "data:text/html,x",
        "//fra-cfg-01:7101",
        "https:///x:7101",
        "ftp://fra-cfg-01:7101",
        "https://user:password@fra-cfg-01:7101",
        "https://fra-cfg-01\\@evil:7101",
        "https://fra\x00cfg:7101",
    ],
)
def test_the_page_gives_host_and_port_and_the_path_is_ours(save, url):
    told = save(url)

    assert (
        "Write the address as https://host:port, for example https://fra-cfg-01:7101, and nothing else."
        in told
    )


@pytest.mark.bad_input("W09")
@pytest.mark.parametrize(
    "host",
    ["fra-cfg-01。example", "frа-cfg-01", "fra\u00adcfg", "ﬁle-host", "a" * 64, "fra..cfg", "-fra", "fra-"],
)
def test_a_name_that_only_looks_right_is_refused(save, host):
    assert save(f"https://{host}:7101")
