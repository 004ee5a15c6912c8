"""What proves an agent: its key, sealed in the table, and the certificate that its TLS rests on."""

import base64
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from tests.agent.certificates import make_certificate, pem
from tests.agent.conftest import SECRET
from tests.factories import frankfurt, make_environment, make_user
from upgrades.models import Agent, RegisterEntry
from upgrades.models.sealed import seal, unseal
from upgrades.services import agent_registration
from upgrades.services.agents import address_of
from upgrades.services.environment_editing import BadFields


@pytest.fixture
def environment(db):
    return make_environment(world=frankfurt())


@pytest.fixture
def admin(environment):
    return make_user("administrator", environment=environment)


@pytest.fixture
def where(environment, admin):
    return {
        "environment_id": environment.pk,
        "host_id": environment.hosts.get(name="fra-scs-01").pk,
        "by": admin,
    }


def in_the_table(agent):
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM upgrades_agent WHERE id = %s", [agent.pk])
        return cursor.fetchone()[0]


def test_a_key_is_not_readable_in_the_table(where, environment):
    made = agent_registration.rotate_key(**where, command_id=uuid4())
    agent = Agent.objects.get(host__name="fra-scs-01", environment=environment)

    assert agent.secret == made.secret
    assert in_the_table(agent).startswith("sealed1.")
    assert made.secret not in in_the_table(agent)


def test_a_key_sealed_under_the_secret_before_is_readable_and_under_another_is_not(settings):
    sealed, again = seal("ab" * 32), seal("ab" * 32)
    assert sealed != again
    was, settings.SECRET_KEY = settings.SECRET_KEY, "another" * 10
    assert unseal(sealed) == ""
    settings.SECRET_KEY_FALLBACKS = [was]
    assert unseal(sealed) == "ab" * 32
    assert unseal("sealed1.not base64") == ""


def test_a_sealed_key_is_aes_256_gcm_under_a_nonce_of_its_own(settings):
    """Opened here by the cipher itself: what other releases sealed must stay readable, and nothing weaker passes."""
    sealed = [base64.b64decode(seal("ab" * 32).removeprefix("sealed1.")) for _ in range(20)]
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"runbook sealed text")
    cipher = AESGCM(derived.derive(settings.SECRET_KEY.encode()))
    assert {cipher.decrypt(raw[:12], raw[12:], b"sealed1.") for raw in sealed} == {b"ab" * 32}
    assert len({raw[:12] for raw in sealed}) == len({raw[12:] for raw in sealed}) == 20


def test_a_sealed_key_of_which_one_byte_was_changed_or_lost_is_not_opened():
    raw = base64.b64decode(seal("ab" * 32).removeprefix("sealed1."))
    forged = [raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :] for at in range(len(raw))]
    for other in (*forged, raw[:-1], raw + b"\0"):
        assert unseal("sealed1." + base64.b64encode(other).decode()) == ""
    assert unseal("sealed1." + base64.b64encode(raw).decode()) == "ab" * 32


def test_an_agent_whose_key_cannot_be_opened_is_told_as_trouble(where, environment, settings):
    settings.SECRET_KEY = "another" * 10
    agent = Agent.objects.get(host__name="fra-scs-01", environment=environment)
    assert address_of(agent).secret == ""
    tried = agent_registration.try_agent(**where)
    assert tried.text == (
        "Agent fra-scs-01: its key cannot be read here, as after a change of SECRET_KEY. Make a new key on the agent's page."
    )


def test_keys_that_were_readable_are_sealed_by_the_upgrade(transactional_db):
    agent = make_environment(world=frankfurt()).agents.first()
    executor = MigrationExecutor(connection)
    newest = executor.loader.graph.leaf_nodes("upgrades")
    executor.migrate([("upgrades", "0010_api")])
    try:
        assert in_the_table(agent) == "0" * 64
    finally:
        MigrationExecutor(connection).migrate(newest)
    assert in_the_table(agent).startswith("sealed1.")
    assert Agent.objects.get(pk=agent.pk).secret == "0" * 64


def register_over_tls(where, agent, certificate):
    agent_registration.save_agent(
        agent_id=agent.address.agent,
        url=agent.address.url,
        certificate=certificate,
        command_id=uuid4(),
        **where,
    )
    Agent.objects.filter(host_id=where["host_id"]).update(secret=SECRET, key_id="k1")
    return agent_registration.try_agent(**where)


def with_tls(paths):
    return lambda configuration: configuration.update(tls=paths)


def test_tls_rests_on_the_certificate_of_the_registration(start_agent, where, tmp_path, environment):
    files, other = make_certificate(tmp_path), make_certificate(tmp_path, "other")
    agent = start_agent("scs", "messageserver", "lca_fra-scs-01", change=with_tls(files), agent="fra-scs-01")

    assert register_over_tls(where, agent, pem(files)).is_well
    assert "is not the one that is known here" in register_over_tls(where, agent, pem(other)).text
    assert "is not the one that is known here" in register_over_tls(where, agent, "").text
    entry = RegisterEntry.objects.filter(kind="agent.certificate").last()
    assert "Certificate" in entry.text


def test_the_authority_may_be_named_instead(start_agent, where, tmp_path):
    authority = make_certificate(tmp_path, "authority", is_ca=True)
    files = make_certificate(tmp_path, signed_by=authority)
    agent = start_agent("scs", "messageserver", "lca_fra-scs-01", change=with_tls(files), agent="fra-scs-01")

    assert register_over_tls(where, agent, pem(authority)).is_well
    assert register_over_tls(where, agent, pem(files)).is_well, "or its own, though an authority signed it"


def test_another_certificate_keeps_the_key(where, environment, tmp_path):
    agent = Agent.objects.get(host__name="fra-scs-01", environment=environment)
    made = agent_registration.save_agent(
        agent_id=agent.agent_id,
        url=agent.url,
        certificate=pem(make_certificate(tmp_path)),
        command_id=uuid4(),
        **where,
    )
    after = Agent.objects.get(pk=agent.pk)
    assert (made.secret, after.secret, after.key_id) == ("", agent.secret, agent.key_id)
    assert after.certificate.startswith("-----BEGIN CERTIFICATE-----")


def refusal(where, certificate):
    with pytest.raises(BadFields) as caught:
        agent_registration.save_agent(
            agent_id="a", url="https://10.1.2.3:7101", certificate=certificate, command_id=uuid4(), **where
        )
    return caught.value.mistakes["certificate"]


def test_what_is_no_fit_certificate_is_refused(where, tmp_path):
    good = make_certificate(tmp_path)
    key = Path(good["key"]).read_text()
    for text, told in (
        ("hello", "This is no certificate."),
        (pem(good) * 6, "This is no certificate."),
        ("x" * 30_000, "This is no certificate."),
        (pem(good) + key, "This holds a private key"),
        (pem(make_certificate(tmp_path, "late", days=-1)), "This certificate ended on"),
        (pem(make_certificate(tmp_path, "weak", weak=True)), "The key of this certificate is too weak."),
    ):
        assert told in refusal(where, text)
    assert "PRIVATE" not in "".join(RegisterEntry.objects.values_list("text", flat=True))
