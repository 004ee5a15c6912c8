"""The auditors' pages: complete, narrowed as asked, taken away as asked, and closed to everybody else."""

import csv
import io
import json
import re
import zipfile
import zlib
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from tests.api.caller import Caller, problem, token_for
from tests.factories import POLICIES, give, make_environment, make_user, proof_of, start
from tests.record.scene import note
from tests.record.tampering import as_owner
from tests.web.run_scene import Stage
from upgrades.adapters import event_store, register
from upgrades.adapters.report_pdf import pdf_of
from upgrades.domain import notices
from upgrades.domain.refusal import NotAllowed
from upgrades.domain.report import Report, Table
from upgrades.domain.run import Abort, AskDeviation, AskOverride, CorrectFact, ReviewOverride, SignDeviation
from upgrades.domain.run_events import DEVIATIONS, LogDoubtful
from upgrades.models import (
    Agent,
    ApiToken,
    CheckpointLeaf,
    Environment,
    Evidence,
    GroupRole,
    LogFile,
    RegisterEntry,
    Run,
    SavedSearch,
)
from upgrades.queries import audit_reports
from upgrades.queries.run_page import record
from upgrades.services import members, policies, retention, tokens
from upgrades.services.record import CHECK

pytestmark = pytest.mark.django_db
REASON = "The window closes in ten minutes and the step is done by hand."


@pytest.fixture
def auditor(client, stage):
    client.force_login(stage.auditor)
    return client


def text(client, path, **data):
    answer = client.get(path, data)
    assert answer.status_code == 200
    return answer.content.decode()


def refused_start(stage):
    with pytest.raises(NotAllowed):
        start(stage.environment, stage.auditor, change="=HYPERLINK(1)")


def deviation(stage):
    seen = stage.seen
    stage.act(AskDeviation(what="skip", reason=REASON, **seen))
    stage.act(SignDeviation(number=1), by=stage.approver)


PAGES = ("/audit/", "/audit/duties/", "/audit/access/", "/audit/reads/", "/audit/record/")


def test_pages_open_for_auditor_and_administrator_and_for_nobody_else(client, stage):
    administrator = make_user("administrator", environment=stage.environment)
    people = ((stage.auditor, 200), (administrator, 200), (stage.operator, 404), (stage.approver, 404))
    for who, status in people:
        client.force_login(who)
        for path in (*PAGES, f"/audit/runs/{stage.run_id}/"):
            assert client.get(path).status_code == status, (who, path)
        assert ('href="/audit/"' in client.get("/").content.decode()) == (status == 200)


def test_an_auditor_of_another_environment_sees_nothing_of_this_one(client, stage):
    elsewhere = make_user("auditor", environment=make_environment("Elsewhere"))
    client.force_login(elsewhere)
    assert "Nothing has been started yet" in text(client, "/audit/")
    assert stage.environment.name not in text(client, "/audit/access/")
    assert client.get(f"/audit/runs/{stage.run_id}/").status_code == 404
    assert client.get(f"/runs/{stage.run_id}/record.zip").status_code == 404


def test_the_list_has_every_start_numbered_without_holes(auditor, stage):
    refused_start(stage)
    page = text(auditor, "/audit/")
    assert "numbers 1 to 2, none missing" in page
    assert "Start refused" in page
    assert "Ruth Okafor (auditor)" in page
    assert f'href="/audit/runs/{stage.run_id}/"' in page


def test_an_entry_taken_out_shows_as_missing(auditor, stage):
    refused_start(stage)
    with as_owner() as sql:
        sql("DELETE FROM upgrades_registerentry WHERE kind = 'run.started'")
    assert "1 missing" in text(auditor, "/audit/")


NARROWED = [
    ({}, 2),
    ({"status": "refused"}, 1),
    ({"status": "running"}, 1),
    ({"status": "aborted"}, 0),
    ({"kind": "live"}, 2),
    ({"kind": "rehearsal"}, 0),
    ({"person": "adler"}, 1),
    ({"person": "okafor"}, 1),
    ({"person": "lindqvist"}, 1),
    ({"person": ".*"}, 0),
    ({"only": "deviations"}, 1),
    ({"only": "overrides"}, 1),
    ({"only": "refusals"}, 0),
    ({"since": "2100-01-01"}, 0),
    ({"until": "2000-01-01"}, 0),
    ({"since": "2000-01-01", "until": "2100-01-01"}, 2),
    ({"since": "0001-01-01", "until": "9999-12-31"}, 2),
    ({"status": "nonsense"}, 2),
    ({"since": "2100-02-30"}, 2),
]


def test_the_list_is_narrowed(auditor, stage):
    refused_start(stage)
    deviation(stage)
    for query, count in NARROWED:
        shown = text(auditor, "/audit/", **query)
        assert f">{count} start{'' if count == 1 else 's'}" in shown, query


def test_a_corrected_value_is_no_overridden_gate(auditor, stage):
    stage.act(CorrectFact(name="target", value="8.5.102", reason=REASON))
    stage.act(SignDeviation(number=1), by=stage.approver)
    assert ">1 start" in text(auditor, "/audit/", only="deviations")
    assert ">0 starts" in text(auditor, "/audit/", only="overrides")


def test_a_search_is_saved_used_and_forgotten(auditor, stage):
    answer = auditor.post("/audit/searches/", {"name": "Refused", "query": "status=refused"})
    assert (answer.status_code, answer["Location"]) == (302, "/audit/?status=refused")
    assert 'href="/audit/?status=refused">Refused</a>' in text(auditor, "/audit/")
    auditor.post("/audit/searches/", {"name": " ", "query": ""})
    search = SavedSearch.objects.get()
    auditor.post("/audit/searches/", {"forget": f"{search.pk}"})
    assert not SavedSearch.objects.exists()


def test_a_day_has_all_of_its_moments_and_none_of_the_next(auditor, stage):
    for late, count in ((timedelta(days=1, microseconds=-1), 1), (timedelta(days=1), 0)):
        with as_owner("upgrades_registerentry") as sql:
            sql("UPDATE upgrades_registerentry SET at = %s", datetime(2026, 3, 1, tzinfo=UTC) + late)
        assert auditor.get("/audit/", {"until": "2026-03-01"}).context["shown"].count == count
    for path in ("/audit/duties/", "/audit/access/", "/audit/reads/"):
        assert auditor.get(path, {"since": "0001-01-01", "until": "9999-12-31"}).status_code == 200


@pytest.mark.parametrize(
    ("sent", "leads_to"),
    [
        ({"forget": "9" * 5000}, "/audit/"),
        ({"forget": "9" * 50}, "/audit/"),
        ({"name": "Two lines", "query": "a\nb"}, "/audit/?a%0Ab"),
        ({"name": "Umlaut", "query": "person=J\u00fcrgen"}, "/audit/?person=J%C3%BCrgen"),
    ],
)
def test_whatever_is_sent_as_a_search_leads_back_to_the_list(auditor, stage, sent, leads_to):
    answer = auditor.post("/audit/searches/", sent)
    assert (answer.status_code, answer["Location"]) == (302, leads_to)
    assert auditor.get(leads_to).status_code == 200


def test_nobody_forgets_the_search_of_another(auditor, client, stage):
    auditor.post("/audit/searches/", {"name": "Refused", "query": "status=refused"})
    client.force_login(make_user("auditor", environment=stage.environment))
    client.post("/audit/searches/", {"forget": f"{SavedSearch.objects.get().pk}"})
    assert SavedSearch.objects.exists()


def test_a_list_taken_as_csv_tells_how_it_was_made_and_runs_nothing(auditor, stage):
    refused_start(stage)
    answer = auditor.get("/audit/", {"export": "csv", "kind": "live"})
    assert answer["Content-Disposition"] == 'attachment; filename="runs-and-refused-starts.csv"'
    rows = list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"))))
    facts = {row[0]: row[1] for row in rows if len(row) == 2}
    assert facts["Filter"] == "kind Live"
    assert facts["Made"].endswith("by Ruth Okafor")
    assert facts["Numbers in the register"].endswith("1 to 2, none missing")
    header = next(place for place, row in enumerate(rows) if row[:2] == ["Environment", "No."])
    lines = [dict(zip(rows[header], row, strict=True)) for row in rows[header + 1 :]]
    assert [line["State"] for line in lines] == ["Start refused", "Running"]
    assert lines[0]["Change"] == "'=HYPERLINK(1)"


@pytest.mark.parametrize("cell", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "＝1"])
def test_no_cell_is_a_formula(cell):
    from upgrades.domain.report import without_formula

    assert without_formula(cell) == f"'{cell}"
    assert without_formula("10 - 1") == "10 - 1"


def test_a_list_taken_as_json_lines_or_pdf(auditor, stage):
    head, line = [
        json.loads(row) for row in auditor.get("/audit/", {"export": "jsonl"}).content.decode().splitlines()
    ]
    assert head["Filter"] == "no filter: every start"
    assert (line["Run"], line["By"]) == (f"{stage.run_id}", "Nina Adler")
    assert auditor.get("/audit/", {"export": "pdf"}).content.startswith(b"%PDF-")
    assert auditor.get("/audit/", {"export": "exe"}).status_code == 404


def test_a_list_too_long_for_a_pdf_is_refused_with_what_to_do_and_is_not_on_the_register(
    auditor, stage, monkeypatch
):
    refused_start(stage)
    monkeypatch.setattr("upgrades.services.exports.PDF_ROWS", 1)
    answer = auditor.get("/audit/", {"export": "pdf", "kind": "live"}, follow=True)
    assert answer.redirect_chain == [("/audit/?kind=live", 302)]
    assert "A PDF has room for 1 rows, and this list has 2. Narrow it down" in answer.text
    assert not RegisterEntry.objects.filter(kind="list.exported").exists()
    assert auditor.get("/audit/", {"export": "csv"}).status_code == 200
    asked = Caller(stage.auditor, environment=stage.environment).get("audit/exports/runs/pdf")
    assert (asked.status_code, asked.json()["detail"][:13]) == (400, "A PDF has roo")


def lines_of(pdf):
    """The texts that a PDF of ours shows in its ordinary font, in their order."""
    [font] = re.findall(rb"beginbfchar\n(.*?)endbfchar", pdf, re.DOTALL)[:1]
    letters = {
        bytes.fromhex(code.decode()): bytes.fromhex(letter.decode()).decode("utf-16-be")
        for code, letter in re.findall(rb"<(\w+)> <(\w+)>", font)
    }
    pages = re.findall(rb"stream\n(x.*?)\nendstream", pdf, re.DOTALL)
    shown = [
        re.sub(rb"\\(.)", lambda found: found[1].replace(b"r", b"\r"), text, flags=re.DOTALL)
        for page in pages
        for text in re.findall(rb"\((.*?)(?<!\\)\) Tj", zlib.decompress(page), re.DOTALL)
    ]
    return ["".join(letters.get(text[at : at + 2], "?") for at in range(0, len(text), 2)) for text in shown]


def test_a_pdf_says_what_was_written_whatever_it_looks_like():
    report = Report(
        kind="Kind",
        title="Title",
        facts=(("Reason", "approved by {nb} people, \0\0\0 and {nb}"),),
        tables=(Table("Heading", ("A",), (1,), tuple(("{nb}",) for _ in range(100)), "none"),),
        foot="Foot",
    )
    lines = lines_of(pdf_of(report))
    assert "approved by {nb} people, ⟦U+2400⟧⟦U+2400⟧⟦U+2400⟧ and {nb}" in lines
    assert lines.count("{nb}") == 100
    pages = [line for line in lines if re.fullmatch(r"\d+ / \d*", line)]
    assert pages == ["1 / ", "2 / ", "3 / "]
    assert lines.count("3") == 3


def test_taking_a_list_is_on_the_register(auditor, stage):
    taken = 0
    for path in ("/audit/", "/audit/duties/", "/audit/access/", "/audit/reads/"):
        for kind in ("csv", "jsonl", "pdf"):
            assert auditor.get(path, {"export": kind}).status_code == 200
            taken += 1
            told = json.loads(RegisterEntry.objects.filter(kind="list.exported").order_by("-number")[0].text)
            assert (told["number"], told["body"]["form"]) == (taken, kind)
    assert told["by"]["name"] == "Ruth Okafor"
    assert "list exported" in text(auditor, "/audit/reads/")


def test_the_report_of_duties_has_deviations_refusals_and_what_is_open(auditor, stage):
    deviation(stage)
    with pytest.raises(NotAllowed):
        stage.act(AskDeviation(what="skip", reason=REASON, **stage.seen), by=stage.auditor)
    page = text(auditor, "/audit/duties/")
    assert "step skipped" in page
    assert "signed by Tomas Lindqvist" in page
    assert "AskDeviation" in page
    assert "Nothing is open and nothing is owed." in page
    assert "step skipped" not in text(auditor, "/audit/duties/", since="2100-01-01")


def test_the_access_review_tells_who_has_what_since_when_and_what_is_odd(auditor, stage):
    with connection.cursor() as cursor:  # what only the owner of the database could bring about
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE upgrades_membership DISABLE TRIGGER an_auditor_has_no_other_role")
    odd = make_user("auditor", "operator", environment=stage.environment, first_name="Odd", is_active=False)
    page = text(auditor, "/audit/access/")
    assert "An auditor reads all and changes nothing" in page
    assert "The account is switched off" in page
    assert "before the register began" not in page
    odd.memberships.all().delete()
    page = text(auditor, "/audit/access/")
    assert "role taken" in page
    assert "What to look at" not in page


def test_the_access_review_names_who_gave_a_role_to_a_group(auditor, stage):
    admin = make_user("administrator", environment=stage.environment, first_name="Greta", last_name="Voss")
    members.give_group(environment_id=stage.environment.pk, group="ops-night", role="approver", by=admin)
    member = make_user(first_name="Nora")
    stage.environment.memberships.create(
        user=member, role="approver", group="ops-night", given_by=f"user:{admin.pk}"
    )
    stage.environment.memberships.create(user=make_user(), role="operator", group="of old")
    page = text(auditor, "/audit/access/")
    assert "Greta Voss, to the group “ops-night”" in page
    assert "nobody knows who, to the group “of old”" in page


def test_whoever_administers_what_he_operates_is_something_to_look_at(auditor, stage):
    make_user("administrator", "operator", environment=stage.environment)
    assert "Nobody gives a role to himself; still, ask" in text(auditor, "/audit/access/")


def written_by_triggers():
    """The kinds of entries that the database itself makes in the books of access."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
        sources = "\n".join(source for (source,) in cursor.fetchall())
    return set(re.findall(r"append_register\('access/' \|\| [\w.]+, '([a-z.]+)'", sources))


WRITTEN_BY_ACTS = {
    policies: (policies.PROPOSED, policies.CONFIRMED, policies.REJECTED),
    tokens: (tokens.MADE, tokens.REVOKED),
    retention: (retention.KEPT_LONGER, retention.PRUNED),
}


@pytest.fixture
def deviating(stage, monkeypatch):
    """A run in which every kind of deviation was asked for."""
    monkeypatch.setitem(
        POLICIES, "point-of-no-return", {"role": "approver", "signatures": 1, "override": True}
    )
    stage = Stage()
    stage.reach("launch-new", begun=True)
    stage.log("confserv_b", "00-05060", "21-22911")
    stage.gap("confserv_b")
    doubt = next(item.seq for item in event_store.load(stage.run_id) if isinstance(item.event, LogDoubtful))
    stage.act(AskDeviation(what="doubt", doubt=doubt, reason=REASON, **stage.seen))
    stage.act(AskDeviation(what="override", gate="initialized", reason=REASON, **stage.seen))
    stage.act(AskDeviation(what="skip", reason=REASON, **stage.seen))
    stage.act(SignDeviation(number=3), by=stage.approver)
    stage.reach("stop-old")
    stage.act(AskOverride(gate="approval", reason=REASON, **stage.seen))
    stage.act(CorrectFact(name="target", value="8.5.102", reason=REASON))
    return stage


def test_the_report_of_duties_tells_every_kind_of_deviation_in_words(client, deviating):
    assert {item.what for item in deviating.state.deviations.values()} == set(DEVIATIONS)
    client.force_login(deviating.auditor)
    report = client.get("/audit/duties/").context["report"]
    (asked,) = (table for table in report.tables if table.heading == "Deviations and overrides")
    assert sorted(row[2] for row in asked.rows) == [
        "answer corrected: stop-old, target to “8.5.102”",
        "begun in an emergency without the approval: stop-old / approval",
        "doubt set aside: launch-new",
        "gate overridden: launch-new / initialized",
        "step skipped: launch-new",
    ]


def test_every_kind_of_deviation_has_its_words_wherever_it_is_told():
    for words in (audit_reports.WHAT, record.WHAT, notices.ASKED_FOR):
        assert set(words) == set(DEVIATIONS)


class Office:
    """Everything that leaves an entry in the book of an environment's access, done once at least."""

    def __init__(self, environment):
        self.environment = environment
        self.anna, self.berta = (make_user("administrator", environment=environment) for _ in range(2))
        for _ in range(2):
            make_user("approver", environment=environment)
        self.roles()
        self.groups()
        self.rules()
        self.tokens()
        self.reports()

    def roles(self):
        make_user(name="nora", first_name="Nora", last_name="Quist")
        where = {"environment_id": self.environment.pk}
        given = members.give_role(**where, username="nora", role="approver", by=self.anna)
        members.confirm_role(**where, membership_id=given.pk, by=self.berta)
        members.take_role(**where, membership_id=given.pk, by=self.berta)

    def groups(self):
        where = {"environment_id": self.environment.pk}
        members.give_group(**where, group="night-shift", role="approver", by=self.anna)
        rule = GroupRole.objects.get(environment=self.environment)
        members.take_group(**where, group_role_id=rule.pk, by=self.berta)

    def propose(self, signatures):
        needs = [{"role": "approver", "signatures": signatures}]
        document = POLICIES | {"point-of-no-return": {"needs": needs}}
        where = {"environment_id": self.environment.pk}
        return policies.propose(**where, document=document, reason=REASON, by=self.anna)

    def decide(self, change, by, **how):
        policies.decide(
            environment_id=self.environment.pk, change_id=change.pk, by=by, proof=proof_of(by), **how
        )

    def rules(self):
        self.decide(self.propose(2), self.berta, confirm=False, comment="Two are too many at night.")
        self.decide(self.propose(2), self.anna, confirm=False, comment="")
        self.decide(self.propose(2), self.berta, confirm=True, comment="")

    def tokens(self):
        token_for(self.anna, environment=self.environment)
        tokens.revoke_own(token_id=ApiToken.objects.get(user=self.anna).pk, by=self.anna)

    def reports(self):
        retention.keep(self.environment.pk, 800, by=self.anna)
        application = self.environment.applications.first()
        LogFile.objects.create(application=application, identity="dev1:1", name="old.log", state="gone")
        LogFile.objects.update(seen_at=timezone.now() - timedelta(days=1000))
        retention.prune(self.environment.pk, timezone.now())


TOLD = (
    ("role confirmed", "approver: Nora Quist (nora)"),
    ("role taken", "approver: Nora Quist (nora)"),
    ("role of a group given", "approver: the provider's group night-shift"),
    ("role of a group taken", "approver: the provider's group night-shift"),
    ("change of approval rules proposed", f"from 1 approver to 2 approvers\nreason: {REASON}"),
    ("change of approval rules rejected", "comment: Two are too many at night."),
    ("change of approval rules withdrawn", f"reason: {REASON}"),
    ("change of approval rules confirmed", "Point of no return: from 1 approver to 2 approvers"),
    ("approval rules changed", "Point of no return: from 1 approver to 2 approvers"),
    ("API token made", "for: read"),
    ("API token revoked", "for: read"),
    ("retention changed", " to 800 days"),
    ("old reports removed", "0 log lines, 0 process changes, 1 files"),
)


def test_the_access_review_tells_every_kind_of_entry_in_words(auditor, stage):
    Office(stage.environment)
    written = RegisterEntry.objects.filter(book=register.access_book(stage.environment.pk))
    by_acts = {kind for kinds in WRITTEN_BY_ACTS.values() for kind in kinds}
    assert set(written.values_list("kind", flat=True)) == written_by_triggers() | by_acts
    rows = auditor.get("/audit/access/").context["report"].tables[-1].rows
    assert len(rows) == written.count()
    for kind, told in TOLD:
        assert any(row[2] == kind and told in row[3] for row in rows), kind
    assert not any("None" in row[3] or "{" in row[3] for row in rows)
    for form in ("csv", "jsonl", "pdf"):
        assert auditor.get("/audit/access/", {"export": form}).status_code == 200
        taken = Caller(stage.auditor, environment=stage.environment).get(f"audit/exports/access/{form}")
        assert taken.status_code == 200


def test_no_other_module_writes_into_the_books_of_access():
    folder = Path(members.__file__).parent
    writers = {path for path in folder.rglob("*.py") if "access_book(" in path.read_text()}
    assert writers == {Path(module.__file__) for module in WRITTEN_BY_ACTS}


def test_an_entry_that_nobody_can_read_does_not_shut_the_access_review(auditor, stage):
    book = register.access_book(stage.environment.pk)
    register.enter(book, "badge.lost", by=register.SYSTEM, body={"badge": "B-17"})
    register.enter(book, "retention.changed", by=register.SYSTEM, body={"left": "out"})
    Environment.objects.filter(pk=stage.environment.pk).update(policies={"start": {"signatures": "many"}})
    page = text(auditor, "/audit/access/")
    assert "badge lost" in page
    assert "B-17" in page


def test_the_page_of_a_run_tells_rights_as_they_were_then(auditor, stage, vault):
    vault.sign()
    stage.operator.memberships.all().delete()
    page = text(auditor, f"/audit/runs/{stage.run_id}/")
    assert "The record holds." in page
    assert "Who acted, with the rights as they were then" in page
    assert f"user:{stage.operator.pk}" in page
    assert "Sealed by" in page


def test_the_page_of_a_run_says_when_its_record_does_not_hold(auditor, stage, vault):
    vault.sign()
    note(stage)
    assert "The chain holds." in text(auditor, f"/audit/runs/{stage.run_id}/")
    with as_owner() as sql:
        sql("DELETE FROM upgrades_runevent WHERE seq = 4")
    page = text(auditor, f"/audit/runs/{stage.run_id}/")
    assert "The record of this run is not what was written." in page
    assert "Event 4: event 4 is missing" in page


def test_decisions_tell_how_long_they_took_and_whether_evidence_was_opened(auditor, client, stage):
    evidence = stage.run.evidence_files.first()
    client.force_login(stage.approver)
    b"".join(client.get(f"/runs/{stage.run_id}/evidence/{evidence.pk}/").streaming_content)
    deviation(stage)
    client.force_login(stage.auditor)
    page = text(client, f"/audit/runs/{stage.run_id}/")
    assert "signs deviation 1" in page
    assert "Read and taken away by" in page


def test_the_record_is_taken_from_its_page_and_checked_there(auditor, stage, vault, tmp_path, verify):
    vault.sign()
    answer = auditor.get(f"/runs/{stage.run_id}/record.zip")
    assert answer["Content-Disposition"] == f'attachment; filename="run-{stage.run_id}-record.zip"'
    path = tmp_path / "taken.zip"
    path.write_bytes(b"".join(answer.streaming_content))
    assert verify(path)[0] == 0
    assert zipfile.is_zipfile(path)
    page = text(auditor, "/audit/record/")
    assert vault.key.public.text in page
    assert "All of it is what was written." in auditor.post("/audit/record/check/").content.decode()
    with as_owner() as sql:
        sql("DELETE FROM upgrades_runevent WHERE seq = 4")
    assert "broken at event 4" in auditor.post("/audit/record/check/").content.decode()


def test_the_check_names_what_is_broken_where_one_audits_and_counts_the_rest(auditor, stage):
    evidence = Evidence.objects.filter(run_id=stage.run_id).first()
    evidence.file.storage.delete(evidence.file.name)
    note(stage)
    with as_owner() as sql:
        sql("DELETE FROM upgrades_registerentry WHERE book = %s", register.runs_book(stage.environment.pk))
    CheckpointLeaf.objects.create(position=0, subject="run 999999", seq=1, hash="0" * 64)
    page = auditor.post("/audit/record/check/").text
    assert f"evidence “{evidence.name}”" in page
    assert f"run {stage.run_id}: no book of the register has its start" in page
    assert "run 999999" not in page
    assert "1 more in environments that you do not audit" in page
    elsewhere = make_environment("Elsewhere")
    strange = make_user("auditor", environment=elsewhere)
    give(strange, stage.environment, "auditor")
    limited = Caller(strange, environment=elsewhere).post("audit/record/check").json()
    strange.memberships.filter(environment=stage.environment).delete()
    auditor.force_login(strange)
    page = auditor.post("/audit/record/check/").text
    assert "3 more in environments that you do not audit" in page
    for answer in (page, f"{limited}"):
        assert evidence.name not in answer
        assert f"run {stage.run_id}:" not in answer
        assert "no checkpoint covers it" in answer  # of the whole installation
    assert limited["elsewhere"] == 3


@pytest.mark.django_db(transaction=True)
def test_one_check_runs_at_a_time(auditor, stage):
    first, here = connection.copy(), connection.cursor()
    here.execute("SET lock_timeout = '50ms'")
    with closing(first), first.cursor() as there:
        there.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [CHECK])
        answer = auditor.post("/audit/record/check/")
        assert answer.status_code == 503
        assert "Another check of the record is at work" in answer.text
        api = Caller(stage.auditor)
        assert problem(api.post("audit/record/check")) == "unavailable"
    here.execute("RESET lock_timeout")
    assert "All of it is what was written." in auditor.post("/audit/record/check/").text


def test_an_alarm_stands_on_the_list_while_nothing_is_signed(auditor, stage, vault):
    assert "No checkpoint is signed." in text(auditor, "/audit/")
    vault.sign()
    assert "No checkpoint is signed." not in text(auditor, "/audit/")
    vault.key_file.unlink()
    note(stage)
    vault.sign(timezone.now() + timedelta(minutes=5))
    assert "manage.py make_checkpoint_key" in text(auditor, "/audit/")


def test_the_list_costs_the_same_however_many_runs_there_are(auditor, stage, django_assert_max_num_queries):
    for _ in range(3):
        refused_start(stage)
    with django_assert_max_num_queries(20):
        auditor.get("/audit/")


def test_what_others_wrote_is_shown_harmlessly(auditor, stage):
    note(stage, '<img src=x onerror=alert(1)> hx-get="/x" \u202e')
    page = text(auditor, f"/audit/runs/{stage.run_id}/")
    assert "<img src=x" not in page
    assert "⟦U+202E⟧" in page


def test_an_emergency_change_is_marked_from_its_start_and_its_review_becomes_overdue(auditor, stage):
    wish = {"category": "emergency", "reason": "The primary fails every hour; calls are lost."}
    stage.act(Abort(reason=REASON))
    stage.run_id = run_id = start(stage.environment, stage.operator, **wish)
    stage.act(Abort(reason=REASON))
    assert [line.run for line in auditor.get("/audit/", {"only": "reviews"}).context["shown"].lines] == [
        run_id
    ]
    page = text(auditor, f"/audit/runs/{run_id}/")
    assert "CHG0042317 (emergency)" in page
    assert wish["reason"] in page
    assert "no rehearsal of this text in this environment ended before" in page
    duties = text(auditor, "/audit/duties/")
    assert "Emergencies without a review" in duties
    assert "overdue" not in duties.partition("Emergencies without a review")[2].partition("Deviations")[0]
    Run.objects.filter(pk=run_id).update(ended_at=timezone.now() - timedelta(days=8))
    duties = text(auditor, "/audit/duties/")
    assert "overdue" in duties.partition("Emergencies without a review")[2].partition("Deviations")[0]
    stage.act(ReviewOverride(number=0, text=REASON), by=stage.auditor)
    assert "Every emergency has been looked into." in text(auditor, "/audit/duties/")
    assert auditor.get("/audit/", {"only": "reviews"}).context["shown"].count == 0
    assert auditor.get("/audit/", {"only": "emergencies"}).context["shown"].count == 1


def test_the_report_names_the_rehearsal_before_it_and_the_clocks_of_the_hosts(auditor, stage):
    Agent.objects.filter(host__name="fra-cfg-01").update(seen_at=timezone.now(), clock_skew=-1.3)
    copy = Environment.objects.create(name="copy", rehearsal_of=stage.environment)
    Run.objects.create(
        environment=copy,
        procedure=stage.run.procedure,
        title="before",
        rehearsal=True,
        status="ended",
        ending="completed",
        started_at=timezone.now(),
        ended_at=timezone.now(),
    )
    stage.act(Abort(reason=REASON))
    run_id = start(stage.environment, stage.operator)
    page = text(auditor, f"/audit/runs/{run_id}/")
    assert "as “completed”" in page
    assert "fra-cfg-01 -1.3 s" in page
