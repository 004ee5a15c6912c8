"""The pages for changing an environment, and those of the import."""

import re
from uuid import uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from tests.factories import make_environment, make_user, start
from upgrades.models import Agent, Environment, Host
from upgrades.queries.environment_export import content_of, exported

pytestmark = pytest.mark.django_db


@pytest.fixture
def environment():
    return make_environment()


@pytest.fixture
def admin(environment):
    return make_user("administrator", environment=environment)


@pytest.fixture
def page(client, admin):
    client.force_login(admin)
    return client


def hidden(answer, name):
    return re.search(rf'name="{name}" value="([^"]*)"', answer.content.decode()).group(1)


def fields(answer):
    """All fields of the first form of the page that saves, as a browser would send them."""
    text = answer.content.decode()
    main = text[text.index("<main") :]
    form = next(
        part
        for part in re.findall(r"<form.*?</form>", main, re.DOTALL)
        if "command_id" in part and "do" not in re.findall(r'name="(\w+)"', part)
    )
    found = {}
    for tag in re.findall(r"<input[^>]*>", form):
        name = re.search(r'name="([^"]+)"', tag)
        if name and ("radio" not in tag or "checked" in tag):
            value = re.search(r'value="([^"]*)"', tag)
            found[name.group(1)] = value.group(1) if value else ""
    for name, options in re.findall(r'<select name="([^"]+)".*?>(.*?)</select>', form, re.DOTALL):
        chosen = re.search(r'value="([^"]*)" selected', options)
        found[name] = chosen.group(1) if chosen else ""
    return found


def url(name, environment, *more):
    return reverse(name, args=[environment.pk, *more])


def upload(page, environment, text, name="environment.csv", **more):
    data = text if isinstance(text, bytes) else text.encode()
    return page.post(url("import-environment", environment), {"file": SimpleUploadedFile(name, data), **more})


# Who sees what.


ADMIN_ONLY = ["edit-environment", "import-environment"]


@pytest.mark.parametrize("name", ADMIN_ONLY)
@pytest.mark.parametrize("role", ["operator", "auditor", "approver", "author"])
def test_without_the_role_the_pages_say_whom_to_ask(client, environment, name, role):
    client.force_login(make_user(role, environment=environment))
    answer = client.get(url(name, environment))
    assert answer.status_code == 403
    assert "takes the role administrator" in answer.content.decode()


@pytest.mark.parametrize("name", [*ADMIN_ONLY, "environment-changes"])
def test_an_environment_of_others_is_not_there(client, environment, name):
    client.force_login(make_user("administrator", environment=make_environment("Elsewhere")))
    assert client.get(url(name, environment)).status_code == 404
    assert client.get(url("export-environment", environment, "csv")).status_code == 404


def test_everybody_with_a_role_exports_and_reads_the_changes(client, environment):
    client.force_login(make_user("auditor", environment=environment))
    answer = client.get(url("export-environment", environment, "csv"))
    assert answer.content.decode() == exported(environment, "csv")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="production-frankfurt.csv"'
    assert "secret" not in answer.content.decode()
    assert client.get(url("environment-changes", environment)).status_code == 200
    assert client.get(url("export-environment", environment, "xlsx")).status_code == 404


def test_the_copy_of_a_rehearsal_is_not_changed(page, environment):
    copy = make_environment("Copy")
    Environment.objects.filter(pk=copy.pk).update(rehearsal_of=environment)
    assert page.get(url("edit-environment", copy)).status_code == 404


# By hand.


def test_the_page_lists_everything_that_can_be_changed_in_few_queries(
    page, environment, django_assert_max_num_queries
):
    with django_assert_max_num_queries(16):
        answer = page.get(url("edit-environment", environment))
    text = answer.content.decode()
    assert answer.status_code == 200
    assert all(name in text for name in ("confserv_b", "fra-scs-01", "ConfigurationServer", "8.5.101"))


def test_a_new_environment_is_made_and_leads_to_its_page(page, admin):
    answer = page.get(reverse("new-environment"))
    answer = page.post(reverse("new-environment"), {**fields(answer), "name": "Test lab"})
    made = Environment.objects.get(name="Test lab")
    assert (answer.status_code, answer.url) == (303, url("edit-environment", made))
    assert page.get(answer.url).status_code == 200


def test_a_taken_name_is_told_at_its_field_and_kept(page, environment):
    answer = page.post(reverse("new-environment"), {"name": environment.name, "command_id": uuid4()})
    assert answer.status_code == 400
    assert "There is an environment named" in answer.content.decode()
    assert f'value="{environment.name}"' in answer.content.decode()


def test_a_new_environment_is_not_for_everybody(client, environment):
    client.force_login(make_user("operator", environment=environment))
    assert client.get(reverse("new-environment")).status_code == 403


def test_the_environments_own_fields_are_saved(page, environment):
    at = url("edit-environment", environment)
    answer = page.post(at, {**fields(page.get(at)), "schema_version": "8.1.3", "single_language": "yes"})
    assert answer.status_code == 303
    environment.refresh_from_db()
    assert (environment.schema_version, environment.single_language) == ("8.1.3", True)


def record_url(environment, kind, name):
    rows = {"host": environment.hosts, "application": environment.applications}
    return url("edit-record", environment, kind, rows[kind].get(name=name).pk)


def test_a_server_is_changed_and_the_change_is_shown(page, environment):
    at = record_url(environment, "application", "scs")
    answer = page.post(at, {**fields(page.get(at)), "version": "8.5.200", "port": "4000"})
    assert answer.status_code == 303
    scs = environment.applications.get(name="scs")
    assert (scs.version, scs.port) == ("8.5.200", 4000)
    text = page.get(url("environment-changes", environment)).content.decode()
    assert "<del>8.5.100</del>" in text
    assert "<ins>8.5.200</ins>" in text


def test_saving_without_a_change_records_nothing(page, environment):
    at = record_url(environment, "application", "scs")
    page.post(at, fields(page.get(at)))
    assert "Nothing was changed by hand" in page.get(url("environment-changes", environment)).content.decode()


def test_a_new_server_with_mistakes_keeps_what_was_typed(page, environment):
    at = url("new-record", environment, "application")
    typed = {
        **fields(page.get(at)),
        "name": "proxy",
        "type": "SCS",
        "version": "08. Mai",
        "port": "٣",
        "host": "fra-scs-01",
    }
    answer = page.post(at, typed)
    text = answer.content.decode()
    assert answer.status_code == 400
    assert "looks like a date" in text
    assert "is not a port" in text
    assert 'value="proxy"' in text
    answer = page.post(at, {**typed, "version": "8.5.1", "port": "3000"})
    assert answer.status_code == 303


@pytest.mark.bad_input("FM05")
def test_a_choice_that_is_not_in_the_list_is_refused(page, environment):
    at = record_url(environment, "application", "scs")
    for change in ({"host": "nowhere"}, {"peer": "nobody"}, {"role": "master"}, {"dormant": "perhaps"}):
        assert page.post(at, {**fields(page.get(at)), **change}).status_code == 400


@pytest.mark.bad_input("FM03")
def test_fields_that_the_form_does_not_have_change_nothing(page, environment):
    at = record_url(environment, "application", "scs")
    page.post(at, {**fields(page.get(at)), "mode": "down", "environment": "7", "process_state": "up"})
    assert environment.applications.get(name="scs").process_state == "unknown"


def test_a_stale_form_is_told_and_changes_nothing(page, environment):
    at = record_url(environment, "host", "fra-scs-01")
    stale = fields(page.get(at))
    page.post(at, {**fields(page.get(at)), "site": "Bonn"})
    answer = page.post(at, {**stale, "site": "Berlin"})
    assert answer.status_code == 409
    assert "Somebody has changed fra-scs-01" in answer.content.decode()
    assert environment.hosts.get(name="fra-scs-01").site == "Bonn"


def test_a_server_in_an_open_run_is_shown_as_such_and_refused(page, environment):
    at = record_url(environment, "application", "confserv")
    sent = fields(page.get(at))
    run = start(environment, make_user("operator", environment=environment))
    assert f"in run {run}" in page.get(url("edit-environment", environment)).content.decode()
    answer = page.post(at, {**sent, "version": "9.0"})
    assert answer.status_code == 409
    assert f"belongs to run {run}" in answer.content.decode()


def test_removing_asks_first_and_says_why_not(page, environment):
    at = record_url(environment, "host", "fra-scs-01")
    seen = hidden(page.get(at), "seen")
    answer = page.post(at, {"do": "remove", "seen": seen, "command_id": uuid4()})
    assert answer.status_code == 400
    assert "fra-scs-01 is not there" in answer.content.decode()
    at = record_url(environment, "application", "messageserver")
    seen = hidden(page.get(at), "seen")
    assert page.post(at, {"do": "remove", "seen": seen, "command_id": uuid4()}).status_code == 303
    assert not environment.applications.filter(name="messageserver").exists()


@pytest.mark.parametrize(
    "path", ["edit/agent/new/", "edit/host/999999/", "edit/application/0/", "edit/host/9223372036854775808/"]
)
def test_what_is_not_there_is_not_found(page, environment, path):
    assert page.get(f"/environments/{environment.pk}/{path}").status_code == 404


# Agents.


def agent_url(environment, host="fra-scs-01"):
    return url("edit-agent", environment, environment.hosts.get(name=host).pk)


def test_a_new_key_is_shown_once(page, environment):
    at = agent_url(environment)
    command = uuid4()
    answer = page.post(at, {"do": "rotate", "command_id": command})
    secret = Agent.objects.get(host__name="fra-scs-01", environment=environment).secret
    assert answer.status_code == 200
    assert secret in answer.content.decode()
    assert "no-store" in answer.headers["Cache-Control"]
    again = page.post(at, {"do": "rotate", "command_id": command}).content.decode()
    assert secret not in again
    assert "A key is shown once only" in again
    assert secret not in page.get(at).content.decode()
    assert secret not in page.get(url("environment-changes", environment)).content.decode()


def test_an_agent_is_registered_where_there_was_none(page, environment):
    Agent.objects.filter(host__name="fra-scs-01").delete()
    at = agent_url(environment)
    answer = page.post(
        at, {"do": "save", "command_id": uuid4(), "agent_id": "scs", "url": "https://10.1.2.3:7101"}
    )
    assert Agent.objects.get(agent_id="scs").secret in answer.content.decode()


def test_a_wrong_address_is_told_at_its_field(page, environment):
    answer = page.post(
        agent_url(environment),
        {"do": "save", "command_id": uuid4(), "agent_id": "scs", "url": "http://169.254.169.254:80/latest"},
    )
    assert answer.status_code == 400
    assert "Write the address as https://host:port" in answer.content.decode()


def test_a_button_nobody_knows_does_nothing(page, environment):
    assert page.post(agent_url(environment), {"do": "explode"}).status_code == 400


# Files.


def test_a_file_with_mistakes_is_told_with_line_column_and_cell_and_changes_nothing(page, environment):
    before = content_of(environment).digest()
    text = exported(environment, "csv").replace("8.1.3", "08. Mai").replace("2020", "0")
    answer = upload(page, environment, text)
    shown = answer.content.decode()
    assert answer.status_code == 400
    assert "Nothing was changed." in shown
    assert "6 mistakes" in shown
    assert re.search(r"<td>D\d+</td>", shown)
    assert "looks like a date" in shown
    assert content_of(environment).digest() == before


@pytest.mark.parametrize("form", ["csv", "yaml"])
def test_the_difference_is_shown_first_and_then_applied(
    page, environment, form, django_assert_max_num_queries
):
    text = exported(environment, form).replace("8.1.3", "8.5.1")
    answer = upload(page, environment, text, f"x.{form}")
    assert answer.status_code == 303
    draft = answer.url
    with django_assert_max_num_queries(16):
        answer = page.get(draft)
    shown = answer.content.decode()
    assert "0 added, 2 changed, 0 removed" in shown
    assert "<del>8.1.3</del>" in shown
    assert environment.applications.filter(version="8.5.1").count() == 0
    sent = {"command_id": hidden(answer, "command_id"), "shown": hidden(answer, "shown")}
    assert page.post(draft, sent).status_code == 303
    assert environment.applications.filter(version="8.5.1").count() == 2
    assert page.post(draft, sent).status_code == 303  # the same again: answered the same
    assert page.get(draft).status_code == 404
    assert "imported a file" in page.get(url("environment-changes", environment)).content.decode()


def test_what_was_shown_is_not_applied_to_something_else(page, environment):
    draft = upload(page, environment, exported(environment, "csv").replace("8.1.3", "8.5.1")).url
    answer = page.get(draft)
    Host.objects.filter(name="fra-scs-01").update(site="Bonn")
    sent = {"command_id": hidden(answer, "command_id"), "shown": hidden(answer, "shown")}
    answer = page.post(draft, sent)
    assert answer.status_code == 409
    assert "has changed since this difference was shown" in answer.content.decode()
    assert environment.applications.filter(version="8.5.1").count() == 0


def test_removing_what_is_not_listed_takes_a_tick_and_is_announced(page, environment):
    text = "\r\n".join(
        line for line in exported(environment, "csv").split("\r\n") if "messageserver" not in line
    )
    assert "Nothing to change" in page.get(upload(page, environment, text).url).content.decode()
    answer = page.get(upload(page, environment, text, remove_unlisted="on").url)
    assert "1 will be removed" in answer.content.decode()


def test_a_draft_is_of_one_person(page, client, environment):
    draft = upload(page, environment, exported(environment, "csv").replace("8.1.3", "8.5.1")).url
    client.force_login(make_user("administrator", environment=environment))
    assert client.get(draft).status_code == 404


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("x.csv", b"\x89PNG\r\n\x1a\n" + b"\x00" * 100, "PNG picture"),
        ("x.csv", b"a" * (1024 * 1024 + 1), "at most 1048576"),
        ("x.yaml", "name: x".encode("utf-16"), "UTF-16"),
        ("../../etc/passwd", b"<html><script>alert(1)</script>", "HTML or XML"),
        ("<script>alert(1)</script>.csv", b"nonsense", "keys"),
        ("x.csv", b"", "empty"),
    ],
)
def test_hostile_files_are_refused_with_the_reason(page, environment, name, data, told):
    answer = upload(page, environment, data, name)
    text = answer.content.decode()
    assert answer.status_code == 400
    assert told in text
    assert "<script>alert" not in text


def test_a_form_without_a_file_asks_for_one(page, environment):
    answer = page.post(url("import-environment", environment), {})
    assert answer.status_code == 400
    assert "Choose a file." in answer.content.decode()


def test_hostile_values_are_shown_as_texts(page, environment):
    text = exported(environment, "csv").replace("messageserver", "<img src=x onerror=alert(1)>")
    shown = page.get(upload(page, environment, text).url).content.decode()
    assert "<img" not in shown
    assert "&lt;img src=x" in shown


@pytest.mark.parametrize("name", ["edit-environment", "import-environment"])
@pytest.mark.bad_input("FM08")
def test_a_post_without_the_token_is_refused(environment, admin, name):
    from django.test import Client

    strict = Client(enforce_csrf_checks=True)
    strict.force_login(admin)
    assert strict.post(url(name, environment), {}).status_code == 403


def test_the_pages_of_environments_lead_here(page, client, environment):
    assert url("edit-environment", environment) in page.get(url("environment", environment)).content.decode()
    assert reverse("new-environment") in page.get(reverse("environments")).content.decode()
    client.force_login(make_user("auditor", environment=environment))
    shown = client.get(url("environment", environment)).content.decode()
    assert url("edit-environment", environment) not in shown
    assert url("environment-changes", environment) in shown
    assert reverse("new-environment") not in client.get(reverse("environments")).content.decode()
