"""What the OpenAPI document promises, held against the application by generated requests, good and bad, on a real database.

Each operation gets requests that fit the document and requests that do not, in a real run and environment. The seed is fixed.
"""

from contextlib import suppress

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks

from tests.api.caller import Caller
from tests.factories import give, make_environment, make_user, publish, start
from tests.services.receiver import Receiver
from upgrades.models import Run
from upgrades.queries.calendar import plan_number, timed_items, times_version
from upgrades.queries.environment_export import host_record
from upgrades.queries.notices import endpoint_version
from upgrades.services.notice_endpoints import add_endpoint

EXAMPLES = 15  # for each operation; the long form is fuzz.py
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.allow_header_conformance,
]
# Whatever does not fit is refused by one of these, and by no other status.
REFUSALS = ["400", "401", "403", "404", "409", "412", "413", "415", "422", "428"]
FIXED = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def place(transactional_db, settings, monkeypatch):
    """An environment with a run, and somebody who may do everything there: most of the requests must come through."""
    settings.API_RATE = 100_000
    monkeypatch.setattr(
        "upgrades.services.runs.take_watermarks", lambda _environment, names: {n: {} for n in names}
    )
    environment = make_environment()
    publish()
    owner = make_user("operator", "administrator", environment=environment)
    give(make_user(), environment, "approver")
    receiver = Receiver()
    add_endpoint(
        environment_id=environment.pk,
        name="Desk",
        form="webhook",
        address=receiver.url,
        kinds=["countdown"],
        by=owner,
    )
    yield environment, start(environment, owner), Caller(owner)
    receiver.close()


def loaded(api):
    load_all_checks()
    schema = schemathesis.openapi.from_wsgi(
        "/api/v1/openapi.json",
        get_wsgi_application(),
        config=SchemathesisConfig(),
        headers={"Authorization": f"Bearer {api.token}"},
    )
    schema.config.checks.negative_data_rejection.expected_statuses = REFUSALS
    return schema


def ids(environment, run):
    host = environment.hosts.order_by("pk").first()
    endpoint = environment.notice_endpoints.get(name="Desk").pk
    return {
        "environment_id": environment.pk,
        "run_id": run,
        "record_id": host.pk,
        "endpoint_id": endpoint,
    }


def present_version(label, environment, run):
    """The ETag of what an operation changes, as it is now. An endpoint stays: others are asked of it, too."""
    if "/planned-times" in label:
        return f'"{times_version(plan_number(environment), timed_items(environment))}"'
    if label.startswith("PATCH") and "/endpoints/" in label:
        return f'"{endpoint_version(environment.notice_endpoints.get(name="Desk"))}"'
    if label.startswith("PATCH") and "/records/" in label:
        return f'"{host_record(environment.hosts.order_by("pk").first()).digest()}"'
    return f'"{Run.objects.get(pk=run).head}"'


# The generating client drops answers without closing them; a server closes the files in them.
@pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <function SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=str)
def test_every_operation_keeps_its_promises(place, mode):
    environment, run, api = place
    known = ids(environment, run)
    asked = set()
    for found in loaded(api).get_all_operations():
        operation = found.ok()
        named = {parameter.name for parameter in operation.path_parameters}
        fixed = {name: value for name, value in known.items() if name in named}
        asked |= _ask(operation, mode, fixed, api, environment, run)
    assert len(asked) >= (50 if mode is GenerationMode.POSITIVE else 25), asked


def _ask(operation, mode, fixed, api, environment, run):
    """Send generated requests for one operation; gives its label when any could be made."""
    sent = set()
    right = [checks.negative_data_rejection] if mode is GenerationMode.NEGATIVE else []

    @FIXED
    @given(case=operation.as_strategy(generation_mode=mode, path_parameters=fixed))
    def ask(case):
        headers = {"Authorization": f"Bearer {api.token}", "Accept-Encoding": "identity"}
        if mode is GenerationMode.POSITIVE and "If-Match" in (case.headers or {}):
            headers["If-Match"] = present_version(operation.label, environment, run)
        answer = case.call(headers=headers)
        sent.add(operation.label)
        case.validate_response(answer, checks=[*CHECKS, *right])

    with suppress(Unsatisfiable):  # nothing about it can be wrong
        ask()
    return sent
