"""The OpenAPI document: what it says is so, the copy in docs/ is the present one, and who may read it."""

import inspect
import json
from pathlib import Path
from typing import get_args

import pytest
from django.test import Client
from pydantic import BaseModel

from tests.api.caller import Caller, problem
from tests.factories import make_environment, make_user
from upgrades.api import acts, audit, environments, notices, procedures, runs, shapes, starting, times
from upgrades.api.document import document, text
from upgrades.queries import audit as pages

COPY = Path(__file__).parents[2] / "docs" / "openapi.json"
OPERATIONS = [
    (path, method, told) for path, methods in document()["paths"].items() for method, told in methods.items()
]


def test_the_copy_in_the_docs_is_current():
    assert COPY.read_text() == text(), "Run make openapi, and look at what has changed: it is a promise."


def test_it_is_openapi_3_1_and_every_reference_leads_somewhere():
    found = document()
    assert found["openapi"].startswith("3.1")
    names = set(found["components"]["schemas"])
    wanted = {part.split('"')[0] for part in json.dumps(found).split("#/components/schemas/")[1:]}
    assert wanted <= names
    for answer in found["components"]["responses"].values():
        assert list(answer["content"]) == ["application/problem+json"]


def test_no_two_shapes_have_one_name():
    """The document knows shapes by their names alone: a second one would silently take the place of the first."""
    modules = (acts, audit, environments, notices, procedures, runs, shapes, starting, times)
    found = {
        (name, one)
        for module in modules
        for name, one in vars(module).items()
        if inspect.isclass(one) and issubclass(one, BaseModel) and one.__module__ == module.__name__
    }
    names = sorted(name for name, _ in found)
    assert names == sorted(set(names))


@pytest.mark.parametrize(
    ("path", "method", "told"), OPERATIONS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_operation_says_what_it_needs(path, method, told):
    headers = {one["name"] for one in told.get("parameters", []) if one["in"] == "header"}
    never = told["x-scope"] == "none"
    assert told["security"] == [{"Token": []}]
    assert told["summary"]
    assert {"401", "403", "404", "405", "429"} <= set(told["responses"])
    assert ("Idempotency-Key" in headers) == (method == "post" and not never)
    assert ("If-Match" in headers) == ("428" in told["responses"])
    assert [code for code in told["responses"] if code.startswith("2")] != [] or never
    for code, answer in told["responses"].items():
        if int(code) >= 400:
            assert answer == {"$ref": f"#/components/responses/Problem{code}"}


@pytest.mark.django_db
def test_people_who_are_signed_in_and_tokens_read_it():
    user = make_user("operator", environment=make_environment())
    client = Client()
    answer = client.get("/api/v1/openapi.json")
    assert (answer.status_code, problem(answer)) == (401, "not-signed-in")
    assert Caller(user).read("openapi.json") == document()
    client.force_login(user)
    assert client.get("/api/v1/openapi.json").json() == document()
    assert client.post("/api/v1/openapi.json").status_code == 405


def test_lists_for_an_audit_are_narrowed_as_on_the_page():
    assert get_args(audit.Only) == tuple(name for name, _ in pages.ONLY)
    assert get_args(audit.Status) == tuple(name for name, _ in pages.STATUSES)
    assert get_args(audit.Kind) == tuple(name for name, _ in pages.KINDS)
