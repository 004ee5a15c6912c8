"""Changing environments: who may, what is refused, what stands on record."""

import json
import socket
import subprocess
import sys
import threading
from functools import partial
from uuid import uuid4

import pytest
from django.db import connection, transaction

from tests.agent.conftest import agent_configuration
from tests.factories import frankfurt, make_environment, make_user, server, start
from tests.services.night import crossed
from upgrades.domain.environment_records import Kind
from upgrades.domain.refusal import NotAllowed, OutOfTurn, Unavailable
from upgrades.models import Agent, Application, Claim, Environment, Host, ImportDraft, RegisterEntry, Run
from upgrades.queries.environment_export import content_of, environment_changes, exported
from upgrades.services import agent_registration as agents
from upgrades.services.environment_editing import BadFields, create_environment, remove_record, save_record
from upgrades.services.environment_import import File, apply_draft, import_file, keep_draft, look
from upgrades.services.runs import NoSuchRun

pytestmark = pytest.mark.django_db


@pytest.fixture
def environment():
    world = frankfurt()
    world["servers"].append(server("stat", "StatServer", "fra-scs-01", role="primary", port=2030))
    return make_environment(world=world)


@pytest.fixture
def admin(environment):
    return make_user("administrator", environment=environment, first_name="Sofia", last_name="Costa")


def save(environment, by, kind=Kind.APPLICATION, which="", *, command_id=None, seen=None, **texts):
    record = content_of(environment).get(kind, which) if which else None
    return save_record(
        environment_id=environment.pk,
        kind=kind,
        name=which,
        texts=texts,
        seen=seen or (record.digest() if record else ""),
        by=by,
        command_id=command_id or uuid4(),
    )


def remove(environment, by, kind, name):
    seen = content_of(environment).get(kind, name).digest()
    return remove_record(
        environment_id=environment.pk, kind=kind, name=name, seen=seen, by=by, command_id=uuid4()
    )


def application(environment, name):
    return Application.objects.select_related("peer", "host").get(environment=environment, name=name)


def file(text, **values):
    return File("environment.csv", text.encode(), **values)


def newest(environment):
    return environment_changes(environment, 1)[0][0]


# Who may.


@pytest.mark.parametrize("role", ["operator", "approver", "author", "auditor"])
def test_only_an_administrator_changes_an_environment(environment, role):
    other = make_user(role, environment=environment)
    with pytest.raises(NotAllowed, match="takes the role administrator"):
        save(environment, other, Kind.HOST, "fra-cfg-01", site="Berlin")
    with pytest.raises(NotAllowed):
        import_file(environment_id=environment.pk, file=file(exported(environment, "csv")), by=other)
    with pytest.raises(NotAllowed):
        agents.rotate_key(
            environment_id=environment.pk, host_id=environment.hosts.first().pk, by=other, command_id=uuid4()
        )


def test_an_environment_of_others_looks_as_if_it_were_not_there(environment):
    stranger = make_user("administrator", environment=make_environment("Elsewhere"))
    with pytest.raises(NoSuchRun):
        save(environment, stranger, Kind.HOST, "fra-cfg-01", site="Berlin")


def test_a_copy_for_a_rehearsal_is_changed_by_nobody(environment, admin):
    copy = make_environment("Copy")
    Environment.objects.filter(pk=copy.pk).update(rehearsal_of=environment)
    with pytest.raises(OutOfTurn, match="copy of a rehearsal"):
        save(copy, admin, Kind.HOST, "fra-cfg-01", site="Berlin")


# By hand.


def test_a_change_is_on_record_with_who_when_before_and_after(environment, admin):
    version = environment.version
    done = save(environment, admin, Kind.HOST, "fra-cfg-01", site="Berlin")
    environment.refresh_from_db()
    assert environment.version > version
    entry = newest(environment)
    assert (entry.number, entry.who, entry.what) == (done.number, "Sofia Costa", "changed it by hand")
    (line,) = entry.lines
    assert (line.act, line.name) == ("changed", "fra-cfg-01")
    assert [(one.title, one.before, one.after) for one in line.fields] == [("Site", "Frankfurt", "Berlin")]


def test_the_record_of_changes_is_one_chain_that_cannot_be_changed(environment, admin):
    for site in ("Berlin", "Bonn"):
        save(environment, admin, Kind.HOST, "fra-cfg-01", site=site)
    first, second = RegisterEntry.objects.filter(book=f"changes/{environment.pk}").order_by("number")
    assert second.previous == first.hash
    with pytest.raises(Exception, match="append-only"):
        RegisterEntry.objects.filter(pk=first.pk).update(text="{}")


def test_the_same_command_twice_changes_once_and_answers_the_same(environment, admin):
    command = uuid4()
    seen = content_of(environment).get(Kind.HOST, "fra-cfg-01").digest()
    first = save(environment, admin, Kind.HOST, "fra-cfg-01", seen=seen, site="Berlin", command_id=command)
    again = save(environment, admin, Kind.HOST, "fra-cfg-01", seen=seen, site="Berlin", command_id=command)
    assert (again.number, again.repeated) == (first.number, True)
    assert RegisterEntry.objects.filter(book=f"changes/{environment.pk}").count() == 1


def test_what_somebody_else_changed_meanwhile_is_not_overwritten(environment, admin):
    seen = content_of(environment).get(Kind.HOST, "fra-cfg-01").digest()
    save(environment, admin, Kind.HOST, "fra-cfg-01", site="Berlin")
    with pytest.raises(OutOfTurn, match="Somebody has changed fra-cfg-01"):
        save(environment, admin, Kind.HOST, "fra-cfg-01", seen=seen, site="Bonn")


def test_every_mistake_of_a_form_is_told_at_its_field(environment, admin):
    with pytest.raises(BadFields) as refused:
        save(environment, admin, name=" ", type="", version="8,5", port="0", host="nowhere..")
    assert set(refused.value.mistakes) == {"name", "type", "version", "port", "host"}


def test_pairing_two_servers_sets_both_sides_and_parting_them_too(environment, admin):
    save(environment, admin, Kind.HOST, host="fra-scs-02")
    save(environment, admin, name="scs_b", type="SCS", host="fra-scs-02", role="backup", peer="scs")
    assert application(environment, "scs").standing == "primary"
    assert application(environment, "scs").peer.name == "scs_b"
    save(environment, admin, which="scs_b", peer="", role="standalone")
    assert (application(environment, "scs").peer, application(environment, "scs").standing) == (
        None,
        "standalone",
    )


def test_a_pair_on_one_host_is_refused_at_the_field(environment, admin):
    with pytest.raises(BadFields) as refused:
        save(environment, admin, which="confserv_b", host="fra-cfg-01")
    assert "on one host" in refused.value.mistakes["host"]


def test_a_server_can_be_renamed_and_its_peer_follows(environment, admin):
    kept = application(environment, "confserv_b").pk
    save(environment, admin, which="confserv_b", name="confserv_2")
    assert application(environment, "confserv_2").pk == kept
    assert application(environment, "confserv").peer_id == kept
    assert ("changed", "confserv_b") in [(one.act, one.name) for one in newest(environment).lines]


def test_a_host_can_be_renamed_and_keeps_agent_and_servers(environment, admin):
    agent = Agent.objects.get(host__name="fra-scs-01", environment=environment)
    save(environment, admin, Kind.HOST, "fra-scs-01", host="fra-scs-09")
    agent.refresh_from_db()
    assert agent.host.name == "fra-scs-09"
    assert application(environment, "scs").host.name == "fra-scs-09"


def test_what_was_seen_of_a_server_stays_with_the_host_it_was_seen_on(environment, admin):
    Application.objects.filter(name="stat").update(process_state="up", mode="primary")
    save(environment, admin, which="stat", version="8.5.2")
    assert application(environment, "stat").process_state == "up"
    save(environment, admin, which="stat", host="fra-cfg-01")
    moved = application(environment, "stat")
    assert (moved.process_state, moved.mode) == ("unknown", "")


def test_removing_a_host_on_which_servers_stand_is_refused(environment, admin):
    with pytest.raises(BadFields, match="fra-cfg-01 is not there"):
        remove(environment, admin, Kind.HOST, "fra-cfg-01")


def test_removing_one_of_a_pair_leaves_the_other_alone(environment, admin):
    remove(environment, admin, Kind.APPLICATION, "confserv_b")
    assert application(environment, "confserv").standing == "standalone"


# Open runs (E14).


@pytest.fixture
def run(environment):
    operator = make_user("operator", environment=environment)
    return start(environment, operator)


@pytest.mark.bad_input("E14")
def test_what_an_open_run_works_on_stays_as_it_is(environment, admin, run):
    for kind, name, texts in (
        (Kind.APPLICATION, "confserv", {"version": "9.0"}),
        (Kind.HOST, "fra-cfg-01", {"site": "Berlin"}),
    ):
        with pytest.raises(OutOfTurn, match=f"{name} belongs to run {run}, “.+”, which is under way"):
            save(environment, admin, kind, name, **texts)
    with pytest.raises(OutOfTurn, match=f"run {run}"):
        remove(environment, admin, Kind.APPLICATION, "confserv_b")
    host = Host.objects.get(environment=environment, name="fra-cfg-01")
    with pytest.raises(OutOfTurn, match=f"run {run}"):
        agents.rotate_key(environment_id=environment.pk, host_id=host.pk, by=admin, command_id=uuid4())
    save(environment, admin, which="stat", version="9.0")
    assert application(environment, "stat").version == "9.0"


@pytest.mark.bad_input("E14")
def test_an_import_that_touches_an_open_run_is_refused_as_a_whole_with_its_name(environment, admin, run):
    text = (
        exported(environment, "csv")
        .replace("8.1.3", "8.5.101")
        .replace("stat,StatServer,8.5.100", "stat,StatServer,9.0")
    )
    found, done = import_file(environment_id=environment.pk, file=file(text), by=admin)
    assert done is None
    assert [one.about for one in found.mistakes] == ["application", "application"]
    assert all(f"run {run}" in one.message and one.spot.line for one in found.mistakes)
    assert application(environment, "stat").version == "8.5.100"


def test_a_server_of_a_past_run_is_not_removed_for_its_log_is_evidence(environment, admin, run):
    Run.objects.filter(pk=run).update(status="aborted")
    Claim.objects.filter(run=run).update(released_at="2026-01-01T00:00:00Z")
    with pytest.raises(OutOfTurn, match=f"took part in run {run}"):
        remove(environment, admin, Kind.APPLICATION, "confserv")
    save(environment, admin, which="confserv", version="8.5.101")


# Making one.


def test_an_administrator_of_any_environment_makes_a_new_one_and_is_its_administrator(environment, admin):
    done = create_environment(name="Test lab", by=admin, command_id=uuid4())
    made = Environment.objects.get(pk=done.environment)
    assert list(made.memberships.values_list("user", "role")) == [(admin.pk, "administrator")]
    assert newest(made).what == "made the environment"


def test_whoever_runs_the_installation_makes_the_first_one(db):
    done = create_environment(name="First", by=make_user(is_superuser=True), command_id=uuid4())
    assert Environment.objects.get(pk=done.environment).name == "First"


def test_others_make_none_and_names_are_unique_whatever_their_case(environment, admin):
    with pytest.raises(NotAllowed):
        create_environment(name="X", by=make_user("operator", environment=environment), command_id=uuid4())
    with pytest.raises(BadFields, match="already"):
        create_environment(name="production · FRANKFURT", by=admin, command_id=uuid4())
    assert not Environment.objects.filter(name="X").exists()


# Files.


@pytest.mark.parametrize("form", ["csv", "yaml"])
def test_a_whole_environment_comes_over_into_a_new_one_without_loss(environment, admin, form):
    text = exported(environment, form)
    Environment.objects.filter(pk=environment.pk).update(name="Old")
    done = create_environment(name="Production · Frankfurt", by=admin, command_id=uuid4())
    other = Environment.objects.get(pk=done.environment)
    found, changed = import_file(environment_id=other.pk, file=file(text), by=admin)
    assert not found.mistakes
    assert changed.number == 2
    assert exported(other, form) == text


@pytest.mark.parametrize("form", ["csv", "yaml"])
@pytest.mark.bad_input("E13")
def test_importing_what_was_exported_changes_nothing_and_leaves_no_entry(environment, admin, form):
    found, done = import_file(
        environment_id=environment.pk, file=file(exported(environment, form), remove_unlisted=True), by=admin
    )
    assert (found.mistakes, found.changes, done.number) == ((), (), 0)
    assert not RegisterEntry.objects.filter(book=f"changes/{environment.pk}").exists()


def test_a_dry_run_changes_nothing(environment, admin):
    before = content_of(environment).digest()
    text = exported(environment, "csv").replace("8.1.3", "8.5.1")
    found = look(environment, file(text))
    assert [(one.act, one.name) for one in found.changes] == [
        ("changed", "confserv"),
        ("changed", "confserv_b"),
    ]
    assert content_of(environment).digest() == before


def test_a_file_with_one_mistake_changes_nothing_at_all(environment, admin):
    before = content_of(environment).digest()
    text = exported(environment, "csv").replace("8.1.3", "8.5.1").replace(",2030,", ",99999,")
    found, done = import_file(environment_id=environment.pk, file=file(text), by=admin)
    assert (len(found.mistakes), found.changes, done) == (1, (), None)
    assert content_of(environment).digest() == before


def test_a_file_about_another_environment_is_refused(environment, admin):
    text = exported(environment, "yaml").replace("Production", "Test")
    assert "This file is about “Test · Frankfurt”" in look(environment, file(text)).mistakes[0].message


def drafted(environment, admin, text, **values):
    found, draft = keep_draft(environment_id=environment.pk, file=file(text, **values), by=admin)
    return {"environment_id": environment.pk, "draft_id": draft, "shown": found.digest, "by": admin}


def test_what_is_applied_is_what_was_shown_and_the_file_is_named_in_the_record(environment, admin):
    text = exported(environment, "csv").replace("8.1.3", "8.5.1")
    draft, command = drafted(environment, admin, text), uuid4()
    done = apply_draft(**draft, command_id=command)
    assert application(environment, "confserv").version == "8.5.1"
    entry = newest(environment)
    assert (entry.what, entry.file, entry.sha256) == ("imported a file", "environment.csv", file(text).sha256)
    assert apply_draft(**draft, command_id=command) == type(done)(environment.pk, done.number, repeated=True)
    with pytest.raises(OutOfTurn, match="applied already"):
        apply_draft(**draft, command_id=uuid4())


def test_nothing_is_applied_when_the_environment_changed_since_it_was_shown(environment, admin):
    draft = drafted(environment, admin, exported(environment, "csv").replace("8.1.3", "8.5.1"))
    save(environment, admin, which="stat", version="9.0")
    with pytest.raises(OutOfTurn, match="has changed since this difference was shown"):
        apply_draft(**draft, command_id=uuid4())
    assert application(environment, "confserv").version == "8.1.3"


def test_a_draft_is_applied_by_who_made_it_only_and_a_newer_one_takes_its_place(environment, admin):
    draft = drafted(environment, admin, exported(environment, "csv").replace("8.1.3", "8.5.1"))
    other = make_user("administrator", environment=environment)
    with pytest.raises(OutOfTurn):
        apply_draft(**{**draft, "by": other}, command_id=uuid4())
    drafted(environment, admin, exported(environment, "csv"))
    assert ImportDraft.objects.filter(user=admin).count() == 1
    with pytest.raises(OutOfTurn, match="a newer one"):
        apply_draft(**draft, command_id=uuid4())


@pytest.mark.bad_input("E13")
def test_ten_thousand_rows_come_in(environment, admin):
    head = "name,type,version,host\r\n"
    rows = [f"s{place:05},SCS,8.5.{place % 900},h{place % 500:03}" for place in range(10_000)]
    found, done = import_file(environment_id=environment.pk, file=file(head + "\r\n".join(rows)), by=admin)
    assert not found.mistakes
    assert done.number == 1
    assert environment.applications.count() == 10_005
    assert environment.hosts.count() == 503


@pytest.mark.django_db(transaction=True)
@pytest.mark.bad_input("E13")
def test_of_two_imports_at_the_same_time_one_waits_and_both_are_whole(transactional_db):
    environment = make_environment()
    admin = make_user("administrator", environment=environment)
    texts = [exported(environment, "csv").replace("8.1.3", version) for version in ("8.5.1", "8.5.2")]
    done, barrier = [], threading.Barrier(2)

    def work(text):
        try:
            barrier.wait()
            done.append(import_file(environment_id=environment.pk, file=file(text), by=admin)[1].number)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [1, 2]
    assert (
        len(
            set(environment.applications.filter(type="ConfigurationServer").values_list("version", flat=True))
        )
        == 1
    )


def test_a_host_that_goes_is_taken_from_its_agent_before_its_servers_are_moved(transactional_db):
    """As whoever stores the news of the agent does: neither may wait for the other."""
    environment = make_environment()
    admin = make_user("administrator", environment=environment)
    moved = exported(environment, "csv").replace("fra-scs-01", "fra-cfg-01")
    bring_in = partial(
        import_file, environment_id=environment.pk, file=file(moved, remove_unlisted=True), by=admin
    )
    (_, done), stored = crossed(
        lambda: Agent.objects.select_for_update(of=("self",)).get(host__name="fra-scs-01"),
        bring_in,
        lambda: Application.objects.select_for_update().get(name="scs").name,
    )
    assert (done.number, stored) == (1, "scs")
    assert not Agent.objects.filter(environment=environment, host__name="fra-scs-01").exists()


@pytest.mark.django_db(transaction=True)
def test_whoever_waits_too_long_is_told_to_try_again(transactional_db):
    environment = make_environment()
    admin = make_user("administrator", environment=environment)
    held, over = threading.Event(), threading.Event()

    def hold():
        try:
            with transaction.atomic():
                Environment.objects.select_for_update().get(pk=environment.pk)
                held.set()
                over.wait(30)
        finally:
            connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '20ms'")
        with pytest.raises(Unavailable, match="Somebody else is changing this environment"):
            save(environment, admin, which="scs", version="9.0")
    finally:
        over.set()
        holder.join()
        connection.close()


# Agents.


def register_agent(environment, admin, host="fra-scs-01", **values):
    wishes = {
        "environment_id": environment.pk,
        "host_id": Host.objects.get(environment=environment, name=host).pk,
        "agent_id": host,
        "url": "https://10.1.2.3:7101",
        "by": admin,
        "command_id": uuid4(),
    }
    return agents.save_agent(**{**wishes, **values})


def test_a_new_address_gets_a_new_key_which_is_shown_once_and_never_recorded(environment, admin):
    old = Agent.objects.get(host__name="fra-scs-01", environment=environment).secret
    command = uuid4()
    made = register_agent(environment, admin, command_id=command)
    agent = Agent.objects.get(host__name="fra-scs-01", environment=environment)
    assert (agent.url, agent.secret, agent.key_id) == ("https://10.1.2.3:7101", made.secret, "k2")
    assert made.secret != old
    assert register_agent(environment, admin, command_id=command).secret == ""
    assert not RegisterEntry.objects.filter(text__contains=made.secret).exists()
    assert newest(environment).what == "changed an agent's address or id; it has a new key"


def test_a_key_is_renewed_and_an_agent_is_forgotten(environment, admin):
    host = Host.objects.get(environment=environment, name="fra-scs-01")
    made = agents.rotate_key(environment_id=environment.pk, host_id=host.pk, by=admin, command_id=uuid4())
    assert Agent.objects.get(host=host).secret == made.secret
    agents.remove_agent(environment_id=environment.pk, host_id=host.pk, by=admin, command_id=uuid4())
    assert not Agent.objects.filter(host=host).exists()


@pytest.mark.parametrize(
    "url",
    [
        "http://10.1.2.3:7101", "file:///etc/passwd", "gopher://a:7101", "javascript:alert(1)", "//host:7101", "https://:7101",
        "https://good@evil:7101", "https://good#@evil:7101", r"https:\\evil:7101", "https://evil\t.com:7101", "https://x\r\nHost:7101",
        "https://127.1:7101", "https://0x7f000001:7101", "https://2130706433:7101", "https://0.0.0.0:7101", "https://①②⑦.0.0.1:7101",
        "https://[::ffff:127.0.0.1]:7101", "https://[64:ff9b::7f00:1]:7101", "https://[2002:7f00:1::]:7101", "https://[fe80::1]:7101",
        "https://169.254.169.254:7101", "https://100.100.100.200:7101", "https://[fd00:ec2::254]:7101", "https://a:5432", "https://a:6379",
        "https://a:25", "https://a:22", "https://a:0", "https://a:99999", "https://a", "https://a:7101/path", "https://a:7101?q", "https://a..b:7101",
        "https://" + "x" * 64 + ":7101", "https://a。b:7101", "https://fra­1:7101",
    ],
)  # fmt: skip
def test_an_address_at_which_no_agent_can_be_is_refused(environment, admin, url):
    with pytest.raises(BadFields) as refused:
        register_agent(environment, admin, url=url)
    assert set(refused.value.mistakes) == {"url"}


@pytest.mark.parametrize("url", ["https://127.0.0.1:7101", "http://localhost:7101", "https://[::1]:7101"])
def test_this_machine_is_asked_only_where_nobody_else_reaches_the_installation(
    environment, admin, url, settings
):
    assert register_agent(environment, admin, url=url).secret
    settings.HTTPS = True
    with pytest.raises(BadFields):
        register_agent(environment, admin, url=url, agent_id="another")


def test_two_agents_of_an_environment_have_two_ids(environment, admin):
    with pytest.raises(BadFields, match="The agent on fra-cfg-01 has this id"):
        register_agent(environment, admin, agent_id="fra-cfg-01")


def test_a_try_tells_one_of_our_own_causes_and_is_on_record(environment, admin, unused_port):
    register_agent(environment, admin, url=f"http://127.0.0.1:{unused_port}")
    host = Host.objects.get(environment=environment, name="fra-scs-01")
    tried = agents.try_agent(environment_id=environment.pk, host_id=host.pk, by=admin)
    assert not tried.is_well
    assert "no connection, or it broke off" in tried.text
    assert newest(environment).what == "asked an agent for its health"


def test_agents_are_not_asked_without_end(environment, admin, unused_port):
    register_agent(environment, admin, url=f"http://127.0.0.1:{unused_port}")
    host = Host.objects.get(environment=environment, name="fra-scs-01")
    for _ in range(agents.TRIES_A_MINUTE):
        agents.try_agent(environment_id=environment.pk, host_id=host.pk, by=admin)
    with pytest.raises(Unavailable, match="ten times"):
        agents.try_agent(environment_id=environment.pk, host_id=host.pk, by=admin)


@pytest.fixture
def unused_port():
    """A port at which nobody listens for as long as the test lasts: bound, but not open."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["scs", "messageserver", "stat"], "knows every application"),
        (["scs"], "does not have messageserver, stat"),
    ],
)
def test_a_real_agent_is_tried(environment, admin, tmp_path, names, told):
    settings = agent_configuration(tmp_path, *names, agent="fra-scs-01")
    made = register_agent(environment, admin, url="https://127.0.0.1:7101")
    settings["keys"] = [{"id": made.key_id, "secret": made.secret}]
    path = tmp_path / "agent.json"
    path.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "agent", "--config", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().split()[-1]
            Agent.objects.filter(host__name="fra-scs-01", environment=environment).update(url=url)
            host = Host.objects.get(environment=environment, name="fra-scs-01")
            tried = agents.try_agent(environment_id=environment.pk, host_id=host.pk, by=admin)
        finally:
            process.terminate()
    assert told in tried.text
