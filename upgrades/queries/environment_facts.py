"""An environment read from the database into the picture that the planner and the standing rules look at."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from statistics import median_low

from upgrades.domain.environment import LCA, Host, OpenRun, Picture, Server
from upgrades.domain.plan import Expectation
from upgrades.domain.procedure import Procedure
from upgrades.models import Application, Claim, Environment, ProcedureVersion, Run, RunBurden
from upgrades.queries.procedures import procedure_of

OVER = ("ended", "aborted")
LATEST = 20  # runs of a procedure that an expectation rests on


def picture_of(environment: Environment) -> Picture:
    """What is known of the environment now; three queries, one less when its targets were fetched with it.

    An LCA that is entered as an application of its own tells the version of its host where that is not stated.
    """
    applications = list(environment.applications.select_related("host", "peer"))
    lca = {item.host_id: item.version for item in applications if item.type == LCA and item.version}
    return Picture(
        hosts=tuple(
            Host(
                name=host.name,
                site=host.site,
                host_type=host.host_type,
                os_name=host.os_name,
                os_version=host.os_version,
                lca_version=host.lca_version or lca.get(host.pk, ""),
            )
            for host in environment.hosts.all()
        ),
        servers=tuple(_server(item) for item in applications if item.type != LCA),
        targets={target.component: target.version for target in environment.targets.all()},
        single_language=environment.single_language,
        schema_version=environment.schema_version,
        log_schema_version=environment.log_schema_version,
        uses_lrm=environment.uses_lrm,
        disaster_recovery=environment.disaster_recovery,
    )


def _server(application: Application) -> Server:
    return Server(
        name=application.name,
        type=application.type,
        host=application.host.name,
        version=application.version,
        standing=application.standing,
        peer=application.peer.name if application.peer is not None else "",
        mode=application.mode,
        process=application.process_state,
        dormant=application.dormant,
    )


def open_runs_of(environment: Environment) -> tuple[OpenRun, ...]:
    """The runs under way here with what they hold and where they stand; two queries."""
    runs = environment.runs.exclude(status__in=OVER).select_related("procedure").order_by("pk")
    found = list(runs)
    if not found:
        return ()
    servers: defaultdict[int, set[str]] = defaultdict(set)
    hosts: defaultdict[int, set[str]] = defaultdict(set)
    for claim in Claim.objects.filter(run__in=found, released_at=None).select_related("application", "host"):
        if claim.application is not None:
            servers[claim.run_id].add(claim.application.name)
        if claim.host is not None:
            hosts[claim.run_id].add(claim.host.name)
    return tuple(
        OpenRun(
            id=run.pk,
            title=run.title,
            procedure=run.procedure.procedure,
            servers=frozenset(servers[run.pk]),
            hosts=frozenset(hosts[run.pk]),
            sources=_sources_of_step(run),
        )
        for run in found
    )


def _sources_of_step(run: Run) -> frozenset[str]:
    """The requirement ids of the step that the run stands at. A step of a group carries its member behind “--”."""
    step = run.current_step.partition("--")[0]
    procedure = procedure_of(run.procedure)
    return frozenset(procedure.step(step).source) if procedure.has_step(step) else frozenset()


def expectations(versions: Iterable[ProcedureVersion], runs: Iterable[Run]) -> dict[str, Expectation]:
    """What to expect of a run by procedure id: the middle of the latest past ones, else what the text says.

    `runs` are candidates, of which those that were live and completed count; two queries.
    """
    texts = {version.procedure: procedure_of(version) for version in versions}
    found = {name: _as_stated(text) for name, text in texts.items()}
    past: defaultdict[str, list[Run]] = defaultdict(list)
    for run in runs:
        name = run.procedure.procedure
        if name in found and run.ended_at is not None and len(past[name]) < LATEST:
            past[name].append(run)
    stood = _exposures_of([run for group in past.values() for run in group])
    for name, group in past.items():
        seconds = [
            int((run.ended_at - run.started_at).total_seconds()) for run in group if run.ended_at is not None
        ]
        exposures: defaultdict[str, list[int]] = defaultdict(list)
        for run in group:
            for title, length in stood[run.pk].items():
                exposures[title].append(length)
        middle = tuple((title, median_low(lengths)) for title, lengths in sorted(exposures.items()))
        found[name] = Expectation(median_low(seconds), middle, runs=len(group))
    return found


def _exposures_of(runs: list[Run]) -> defaultdict[int, defaultdict[str, int]]:
    """Per run and exposure, how many seconds it stood in all."""
    stood: defaultdict[int, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    if runs:
        rows = RunBurden.objects.filter(run__in=runs, burden__startswith="exposure:", closed_at__isnull=False)
        for row in rows:
            if row.closed_at is not None:
                stood[row.run_id][row.title] += int((row.closed_at - row.opened_at).total_seconds())
    return stood


def _as_stated(procedure: Procedure) -> Expectation:
    """What the text says. Steps that are repeated count for each member, by the longest of the groups."""
    steps = [step for step in procedure.steps if step.numbered and not step.aside]
    groups: defaultdict[str, int] = defaultdict(int)
    for step in steps:
        if step.for_each is not None:
            groups[step.for_each] += step.expected or 0
    once = sum(step.expected or 0 for step in steps if step.for_each is None)
    exposures = tuple(
        (_named(kind.title), kind.expected) for kind in procedure.exposures if kind.expected is not None
    )
    return Expectation(once, exposures, each=max(groups.values(), default=0))


_PLACEHOLDER = re.compile(r"\{(each|beside)[a-z.]*\}|\{[a-z0-9.-]+\}")


def _named(title: str) -> str:
    """A title without a run: nobody knows yet what its placeholders stand for."""
    return _PLACEHOLDER.sub(lambda found: "each one" if found.group(1) else "…", title)
