"""Requests for signatures in the browser: the inbox, one request on one page, what has changed, emergencies, policies."""

import re
from html import unescape
from uuid import uuid4

import pytest

from tests.factories import POLICIES, show_who
from tests.web.run_scene import REASON, Stage, no_agents
from upgrades.domain import run as core
from upgrades.models import PolicyChange, RunEvent

pytestmark = pytest.mark.django_db

GATE = "approval"
OVERRIDE = {"point-of-no-return": {"role": "approver", "signatures": 1, "override": True}}


@pytest.fixture
def stage(monkeypatch):
    no_agents(monkeypatch)
    return Stage().reach("stop-old")


@pytest.fixture
def as_(client):
    """Signs a person in, with a fresh proof."""

    def sign_in(user):
        client.force_login(user)
        show_who(client, user)
        return client

    return sign_in


def address(stage, step="stop-old"):
    return f"/approvals/{stage.run_id}/{step}/{GATE}/"


def attribute(tag, name):
    found = re.search(rf'\b{name}="([^"]*)"', tag)
    return unescape(found[1]) if found else ""


def sent_by(form):
    """What a form would send as it stands: its fields, chosen boxes and texts."""
    fields = {}
    for tag in re.findall(r"<input\b[^>]*>", form):
        if attribute(tag, "type") not in ("checkbox", "radio") or " checked" in tag:
            on = "on" if attribute(tag, "type") == "checkbox" else ""
            fields[attribute(tag, "name")] = attribute(tag, "value") or on
    for tag, text in re.findall(r"(<textarea\b[^>]*>)([^<]*)</textarea>", form):
        fields[attribute(tag, "name")] = unescape(text).strip()
    return fields


def fields_of(answer, verb):
    """What the form of `verb` on the page would send."""
    forms = re.findall(r"<form\b.*?</form>", answer.text, re.DOTALL)
    return sent_by(next(form for form in forms if f'name="verb" value="{verb}"' in form))


def part(answer, name):
    """The text of the section with that id."""
    return words(re.search(rf'<section[^>]*id="{name}".*?</section>', answer.text, re.DOTALL)[0])


def words(html):
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def kinds(stage):
    return list(RunEvent.objects.filter(run=stage.run_id).order_by("seq").values_list("kind", flat=True))


def text_of(answer):
    return words(answer.text)


def change_a_fact(stage):
    stage.environment.targets.filter(component="SCS").update(version="8.5.999")
    stage.advance()


# One request.


def test_a_request_shows_everything_that_is_needed_to_decide(stage, as_):
    page = text_of(as_(stage.approver).get(address(stage)))
    for part in ("What is done", "On which servers", "Exposures", "Way back", "Evidence", "Who decides"):
        assert part in page
    assert "confserv on fra-cfg-01" in page
    assert "Nina Adler" in page
    assert "whoever started the run may not approve it" in page
    assert "Could sign: Tomas Lindqvist" in page


def test_a_request_is_signed_without_script_and_leads_back_to_the_inbox(stage, as_):
    client = as_(stage.approver)
    answer = client.post(address(stage), fields_of(client.get(address(stage)), "sign"))
    assert (answer.status_code, answer["Location"]) == (303, "/approvals/")
    assert kinds(stage)[-1] == "approval.signed"
    assert "Nothing waits for you" in client.get("/approvals/").text


def test_the_same_form_sent_twice_signs_once(stage, as_):
    client = as_(stage.approver)
    fields = fields_of(client.get(address(stage)), "sign")
    answers = [client.post(address(stage), fields).status_code for _ in range(2)]
    assert answers == [303, 303]
    assert kinds(stage).count("approval.signed") == 1


def test_a_request_is_rejected_with_a_reason_and_asked_again(stage, as_):
    client = as_(stage.approver)
    fields = fields_of(client.get(address(stage)), "reject")
    refused = client.post(address(stage), {**fields, "reason": "no"})
    assert refused.status_code == 400
    assert "no</textarea>" in refused.text
    client.post(address(stage), {**fields, "reason": REASON})
    assert "You cannot decide this now" in text_of(client.get(address(stage)))
    client = as_(stage.operator)
    again = fields_of(client.get(address(stage)), "ask-again")
    assert client.post(address(stage), {**again, "reason": REASON}).status_code == 303
    assert kinds(stage)[-1] == "approval.asked"


def test_what_changed_since_the_page_was_opened_is_shown_and_nothing_is_signed(stage, as_):
    """D05, F42."""
    client = as_(stage.approver)
    fields = fields_of(client.get(address(stage)), "sign")
    change_a_fact(stage)
    answer = client.post(address(stage), {**fields, "comment": "As agreed."})
    assert answer.status_code == 409
    said = part(answer, "difference")
    assert "Fact environment.target.scs" in said
    assert "8.5.100" in said
    assert "8.5.999" in said
    assert "approval.signed" not in kinds(stage)
    assert "As agreed." in answer.text
    again = client.post(address(stage), fields_of(answer, "sign"))
    assert again.status_code == 303


def test_the_run_page_shows_the_difference_too(stage, as_):
    client = as_(stage.approver)
    sent = {**stage.seen, "gate": GATE, "digest": stage.digest(stage.step.gate(GATE)), "command_id": uuid4()}
    change_a_fact(stage)
    answer = client.post(f"/runs/{stage.run_id}/sign/", sent, headers={"HX-Request": "true"})
    assert answer.status_code == 409
    assert "8.5.999" in part(answer, "difference")


def test_a_digest_that_never_was_shows_no_difference(stage, as_):
    client = as_(stage.approver)
    fields = fields_of(client.get(address(stage)), "sign")
    answer = client.post(address(stage), {**fields, "digest": "0" * 64})
    assert answer.status_code == 409
    assert "difference" not in answer.text


@pytest.mark.parametrize("who", ["operator", "second", "auditor"])
def test_who_may_not_sign_finds_no_form(stage, as_, who):
    answer = as_(getattr(stage, who)).get(address(stage))
    assert answer.status_code == 200
    assert 'value="sign"' not in answer.text


def test_a_stranger_finds_no_request(stage, as_):
    other = Stage()
    assert as_(other.approver).get(address(stage)).status_code == 404


@pytest.mark.parametrize("step", ["prerequisites", "nothing", "start-former"])
def test_where_there_is_no_such_approval_there_is_no_page(stage, as_, step):
    assert as_(stage.approver).get(address(stage, step)).status_code == 404


def test_a_request_that_is_over_has_no_buttons(stage, as_):
    client = as_(stage.approver)
    fields = fields_of(client.get(address(stage)), "sign")
    client.post(address(stage), fields)
    stage.act(core.Begin(**stage.seen))
    answer = client.get(address(stage))
    assert 'value="sign"' not in answer.text
    late = client.post(address(stage), {**fields, "command_id": uuid4()})
    assert late.status_code == 409


def test_the_page_asks_a_bounded_number_of_questions(stage, as_, django_assert_max_num_queries):
    client = as_(stage.approver)
    with django_assert_max_num_queries(16):
        client.get(address(stage))


# Live.


def test_the_number_falls_without_loading_the_page_again(stage, as_):
    client = as_(stage.approver)
    assert "1<span" in client.get("/approvals/count/").text
    client.post(address(stage), fields_of(client.get(address(stage)), "sign"))
    assert "chip" not in client.get("/approvals/count/").text


def test_the_inbox_answers_304_while_nothing_has_changed(stage, as_):
    client = as_(stage.approver)
    first = client.get("/approvals/board/")
    assert client.get("/approvals/board/", headers={"If-None-Match": first["ETag"]}).status_code == 304
    client.post(address(stage), fields_of(client.get(address(stage)), "sign"))
    assert client.get("/approvals/board/", headers={"If-None-Match": first["ETag"]}).status_code == 200


def test_the_page_of_a_run_says_who_else_has_it_open(stage, as_):
    url = f"/runs/{stage.run_id}/presence/"
    assert "Also here" not in text_of(as_(stage.operator).get(url))
    assert "Also here: Nina Adler" in text_of(as_(stage.approver).get(url))


# Emergencies and holding.


def test_an_emergency_stays_on_the_page_in_the_list_and_in_the_report(monkeypatch, as_):
    no_agents(monkeypatch)
    monkeypatch.setitem(POLICIES, "point-of-no-return", OVERRIDE["point-of-no-return"])
    stage = Stage().reach("stop-old")
    run = f"/runs/{stage.run_id}/"
    client = as_(stage.operator)
    sent = {**stage.seen, "gate": GATE, "reason": REASON, "command_id": uuid4()}
    assert client.post(f"{run}ask-override/", sent).status_code == 303
    client = as_(stage.second)
    agreed = {"number": 1, "comment": REASON, "command_id": uuid4()}
    assert client.post(f"{run}sign-deviation/", agreed).status_code == 303
    assert "Emergency override 1." in text_of(client.get(run))
    assert "emergency" in text_of(client.get("/runs/"))
    assert "review open" in text_of(client.get("/runs/"))
    stage.finish()
    page = text_of(as_(stage.auditor).get(run))
    assert "Emergency override 1." in page
    assert "Its review is open" in page
    review = {"number": 1, "text": REASON, "command_id": uuid4()}
    assert client.post(f"{run}review-override/", review).status_code == 303
    page = text_of(client.get(run))
    assert "Emergency override 1." in page
    assert "Reviewed by Ruth Okafor" in page
    assert "review open" not in text_of(client.get("/runs/"))


def test_a_step_is_taken_and_handed_over_on_the_page(stage, as_):
    client, run = as_(stage.operator), f"/runs/{stage.run_id}/"
    client.post(f"{run}take-step/", {**stage.seen, "command_id": uuid4()})
    page = client.get(run)
    assert "held by you" in text_of(page)
    choices = re.findall(r'<option value="(user:\d+)"', page.text)
    assert choices == [f"user:{stage.second.pk}"]
    sent = {**stage.seen, "to": choices[0], "command_id": uuid4()}
    assert client.post(f"{run}hand-over/", sent).status_code == 303
    assert "held by Oskar Brandt" in text_of(client.get(run))


# Policies.


def test_policies_are_proposed_and_confirmed_on_their_page(stage, as_):
    administrator = stage.person("administrator", "Sofia", "Costa")
    url = f"/environments/{stage.environment.pk}/policies/"
    client = as_(administrator)
    fields = sent_by(re.search(r'id="propose".*?</form>', client.get(url).text, re.DOTALL)[0])
    fields |= {"do": "propose", "reason": REASON, "groups": f"database: {stage.approver.username}"}
    fields |= {"point-of-no-return-needs": "1 group database", "point-of-no-return-override": "on"}
    wrong = client.post(url, {**fields, "point-of-no-return-needs": "2 group database"})
    assert wrong.status_code == 400
    assert "can never sign: it has 1" in text_of(wrong)
    assert client.post(url, fields).status_code == 303
    assert "another administrator or an approver confirms it" in text_of(client.get(url))
    change = PolicyChange.objects.get()
    client = as_(stage.approver)
    assert "1 of the group database; emergency override allowed" in text_of(client.get(url))
    assert client.post(url, {"do": "confirm", "change": change.pk, "comment": ""}).status_code == 303
    stage.environment.refresh_from_db()
    assert stage.environment.policies["point-of-no-return"] == {
        "needs": [{"group": "database", "signatures": 1}],
        "override": True,
    }
    assert "Confirmed" in text_of(client.get(url))


@pytest.mark.parametrize(
    ("field", "typed"),
    [
        ("point-of-no-return-needs", f"{'9' * 5000} role approver"),
        ("deputies", "{approver} by {second} from 2026-12-01 to 9999-12-31"),
    ],
)
def test_a_number_or_day_beyond_all_bounds_is_told_at_its_field(stage, as_, field, typed):
    administrator = stage.person("administrator", "Ada", "Moor")
    url = f"/environments/{stage.environment.pk}/policies/"
    people = {name: getattr(stage, name).username for name in ("approver", "second")}
    sent = {
        "do": "propose",
        "point-of-no-return-stated": "on",
        "point-of-no-return-needs": "1 role approver",
        "reason": REASON,
        "holder": "shown",
        field: typed.format(**people),
    }
    answer = as_(administrator).post(url, sent)
    assert answer.status_code == 400
    assert field in answer.context["propose"].errors
    assert REASON in answer.text


def test_a_line_that_is_not_understood_is_told_at_its_field(stage, as_):
    administrator = stage.person("administrator", "Sofia", "Costa")
    url = f"/environments/{stage.environment.pk}/policies/"
    sent = {"do": "propose", "reason": REASON, "holder": "shown", "groups": "database nina"}
    answer = as_(administrator).post(url, sent)
    assert answer.status_code == 400
    assert "Write a line like" in answer.text
    assert "database nina" in answer.text
