"""Figures for Prometheus: what this process counts, and what stands in the database, asked at each scrape.

What workers do is in the database, so one web process tells it for all. Only requests are counted in the processes;
with RUNBOOK_METRICS_FOLDER, the web processes of a machine share their counts. docs/observability.md lists the names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    Summary,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from upgrades.queries import operation
from upgrades.web.request_log import route_of
from upgrades.web.watchers import is_watching_program

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
REFUSAL = "X-Refusal"  # the header of an act that was refused (answers.py)

PROCESS = CollectorRegistry()
REQUESTS = Counter(
    "runbook_http_requests", "Requests answered.", ("route", "method", "status"), registry=PROCESS
)
TOOK = Histogram(
    "runbook_http_request_seconds",
    "From the request to its answer.",
    ("route",),
    buckets=SECONDS,
    registry=PROCESS,
)
DATABASE = Summary(
    "runbook_http_database_seconds",
    "Of that, waiting for the database; the count is that of the queries.",
    ("route",),
    registry=PROCESS,
)
REFUSED = Counter("runbook_refused_acts", "Acts of people that were refused.", ("status",), registry=PROCESS)

GetResponse = Callable[[HttpRequest], HttpResponse]


class Measured:
    """Counts each request by its route: names of urls.py, so the number of series is bounded."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        waited: list[float] = []

        def timed(execute: Callable[..., Any], *arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return execute(*arguments)
            finally:
                waited.append(time.perf_counter() - began)

        began = time.perf_counter()
        with connection.execute_wrapper(timed):
            response = self.get_response(request)
        route, status = route_of(request), str(response.status_code)
        method = request.method if request.method in METHODS else "other"
        REQUESTS.labels(route, method, status).inc()
        TOOK.labels(route).observe(time.perf_counter() - began)
        queries = DATABASE.labels(route)
        for seconds in waited:
            queries.observe(seconds)
        if REFUSAL in response.headers:
            REFUSED.labels(status).inc()
        return response


@login_not_required
@require_safe
@never_cache
def show_metrics(request: HttpRequest) -> HttpResponse:
    """All figures in Prometheus' text form. Without the database, those that do not come from it."""
    if not is_watching_program(request):
        text = "Show the token of RUNBOOK_METRICS_TOKEN (Authorization: Bearer …), or ask from an allowed network.\n"
        return HttpResponse(text, status=403, content_type="text/plain; charset=utf-8")
    stored = CollectorRegistry()
    stored.register(Stored())
    return HttpResponse(
        generate_latest(_counted()) + generate_latest(stored), content_type=CONTENT_TYPE_LATEST
    )


def _counted() -> CollectorRegistry:
    if settings.METRICS_FOLDER is None:
        return PROCESS
    shared = CollectorRegistry()
    MultiProcessCollector(shared, path=str(settings.METRICS_FOLDER))  # type: ignore[no-untyped-call]
    return shared


class Stored:
    """What stands in the database."""

    def describe(self) -> list[Metric]:
        return []  # so that nothing is asked when it is registered

    def collect(self) -> Iterator[Metric]:
        yield _gauge(
            "runbook_requests_shared",
            "1 when the requests of all web processes of the machine are counted together.",
            settings.METRICS_FOLDER is not None,
        )
        try:
            found = list(_stored())
        except DatabaseError:
            connection.close()
            yield _gauge("runbook_database_up", "1 when the database answers.", 0)
            return
        yield _gauge("runbook_database_up", "1 when the database answers.", 1)
        yield from found


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _labelled(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for value_of, value in values:
        family.add_metric((value_of,), float(value))
    return family


def _stored() -> Iterator[Metric]:
    now = timezone.now()
    yield from _agents(operation.agents(now))
    queues = operation.queues(now)
    yield _labelled(
        "runbook_queue_waiting",
        "Rows that are due.",
        "kind",
        ((queue.kind, queue.waiting) for queue in queues),
    )
    yield _labelled(
        "runbook_queue_oldest_seconds",
        "Since when the oldest of them is due.",
        "kind",
        ((queue.kind, queue.age(now)) for queue in queues),
    )
    opened = operation.openings(now)
    latency = GaugeMetricFamily(
        "runbook_gate_latency_seconds",
        "How long the event gates of the last hour took to open: since the line was written on its host, or since we had it.",
        labels=("since", "quantile"),
    )
    for since, values in (("written", opened.from_host), ("read", opened.from_news)):
        for quantile, seconds in values.items():
            latency.add_metric((since, quantile), seconds)
    yield latency
    yield _gauge("runbook_gates_opened_last_hour", "How many those are.", opened.count)
    runs = operation.runs(now)
    yield _labelled("runbook_runs_open", "Open runs, without rehearsals.", "status", runs.by_status.items())
    yield _gauge("runbook_exposures_open", "Exposures that stand.", runs.exposures)
    yield _gauge(
        "runbook_exposures_over_maximum", "Those that last longer than their run allows.", runs.over_maximum
    )
    logs = operation.logs(now)
    yield _gauge("runbook_log_lag_bytes", "Bytes of log files that are not read yet.", logs.lag)
    yield _gauge(
        "runbook_log_lag_worst_bytes", "The same for the file that is furthest behind.", logs.worst_lag
    )
    yield _gauge("runbook_log_gaps_last_hour", "Parts of log files that were lost to us.", logs.gaps)
    life = operation.life()
    yield _gauge("runbook_workers_seen", "Workers that gave a sign of life just now.", len(life.working(now)))
    if life.tick is not None:
        age = (now - life.tick).total_seconds()
        yield _gauge("runbook_tick_age_seconds", "Since the reconciler last went through.", age)


def _agents(agents: operation.Agents) -> Iterator[Metric]:
    states = {
        "answering": agents.known - agents.in_trouble - agents.never_heard - agents.silent,
        "in-trouble": agents.in_trouble,
        "silent": agents.silent,
        "never-heard": agents.never_heard,
    }
    yield _labelled("runbook_agents", "Agents by what is known of them.", "state", states.items())
    ages = [("worst", agents.worst_age), ("median", agents.median_age)]
    yield _labelled(
        "runbook_agent_poll_age_seconds",
        "Since the last answer: of the agent that is worst off, and of the one in the middle.",
        "of",
        ((name, age) for name, age in ages if age is not None),
    )
    yield _gauge(
        "runbook_agent_clock_skew_worst_seconds", "The clock that differs most from ours.", agents.most_skew
    )
    yield _labelled(
        "runbook_leases",
        "Agents that a worker follows, and those whose worker is gone.",
        "state",
        (("held", agents.leases_held), ("overrun", agents.leases_overrun)),
    )
    yield CounterMetricFamily(
        "runbook_leases_expired",
        "Agents taken over because their worker was gone.",
        value=float(agents.leases_expired),
    )
