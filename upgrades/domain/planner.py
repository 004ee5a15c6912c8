"""The planner: an environment and the versions it is to reach, turned into ordered runs, each with its reason.

    SCS → Message Server → LCA → DB Server, License Reporting Manager → master → proxies → dormant copies → the rest

The stages are only how a plan is read. What really holds a run are its needs: other runs of the plan, each with the
requirement that says so, and what nobody knows yet. A component at its target asks for nothing and appears nowhere,
so a plan shrinks as the work is done, and the same picture always gives the same plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from upgrades.domain.environment import (
    CONFIGURATION_DATABASE,
    DB_SERVER,
    LCA,
    LOG_DATABASE,
    MASTER,
    MESSAGE_SERVER,
    PROXY,
    SCS,
    SERVING,
    Host,
    OpenRun,
    Picture,
    Server,
    Unit,
    is_release,
    reaches,
)
from upgrades.domain.feature_freeze import freeze
from upgrades.domain.plan import (
    DATABASES,
    STAGES,
    Blocker,
    Expectation,
    Item,
    Need,
    Notice,
    Part,
    Plan,
    Sources,
    Stage,
    counted,
    listed,
)
from upgrades.domain.version import NotAVersion, Version

_STAGE_OF = {
    SCS: "scs",
    MESSAGE_SERVER: "message-server",
    DB_SERVER: "db-server",
    MASTER: "master",
    PROXY: "proxy",
}
_PLAIN = (SCS, MESSAGE_SERVER, DB_SERVER, MASTER, PROXY)


def plan(
    picture: Picture,
    targets: Mapping[str, str] | None = None,
    procedures: Iterable[str] = (),
    history: Mapping[str, Expectation] | None = None,
    open_runs: Sequence[OpenRun] = (),
) -> Plan:
    """The plan for `picture`. `targets` are those of the picture when they are not given.

    `procedures` are the ids that are published, `history` what to expect of a run by its procedure's id.
    """
    if targets is not None:
        picture = replace(picture, targets=dict(targets))
    return _Planner(picture, frozenset(procedures), history or {}, open_runs).plan()


class _Planner:
    """The work of one call of `plan`."""

    def __init__(
        self,
        picture: Picture,
        procedures: frozenset[str],
        history: Mapping[str, Expectation],
        open_runs: Sequence[OpenRun],
    ) -> None:
        self.picture = picture
        self.procedures = procedures
        self.history = history
        self.open_runs = open_runs
        self.items: list[Item] = []
        self.unknown: list[Part] = []

    def plan(self) -> Plan:
        # Each line may need what stands above it, never what stands below: so the order has no cycles.
        self._scs()
        self._message_servers()
        self._log_database()
        self._lca()
        self._db_servers()
        self._lrm()
        self._masters()
        self._configuration_database()
        self._proxies()
        self._dormant()
        self._others()
        stages = tuple(
            Stage(stage, title, _side_by_side([item for item in self.items if item.stage == stage]))
            for stage, title in STAGES.items()
            if any(item.stage == stage for item in self.items)
        )
        return Plan(stages, tuple(self.unknown), tuple(self._notices()), freeze(self.picture, self.open_runs))

    # What is outdated, and what nobody knows.

    def _target(self, component: str) -> str:
        return self.picture.targets.get(component, "")

    def _outdated(self, unit: Unit) -> tuple[Part, ...]:
        """The servers of the unit that are below their target; those of unknown version are noted beside."""
        target = self._target(unit.type)
        if not target:
            return ()
        parts = []
        for server in unit.servers:
            part = Part("server", server.name, server.version, target)
            match reaches(server.version, target):
                case False:
                    parts.append(part)
                case None:
                    self.unknown.append(part)
        return tuple(parts)

    def _unknown_servers(self, servers: Iterable[Server], what: str, sources: Sources) -> Iterator[Blocker]:
        """What must be known of `servers` before anything can rest on them."""
        for server in servers:
            target = self._target(server.type)
            if not target:
                yield Blocker(
                    f"No target version is set for {server.type}, so nobody can tell whether {what}. Set it.",
                    sources,
                )
                return
            if reaches(server.version, target) is None:
                yield Blocker(
                    f"The version of {server.name} is not known: {what} cannot be told. Enter it.", sources
                )

    def _needs(self, stages: Iterable[str], reason: str, *sources: str) -> list[Need]:
        return [Need(item.key, reason, sources) for item in self.items if item.stage in stages]

    def _scs_first(self, source: str) -> tuple[list[Need], list[Blocker]]:
        needs = self._needs(["scs"], "The latest Solution Control Server comes first.", source)
        servers = self.picture.servers_of(SCS)
        return needs, list(self._unknown_servers(servers, "Solution Control Server is the latest", (source,)))

    def _lca_first(self, hosts: frozenset[str]) -> tuple[list[Need], list[Blocker]]:
        """CS-P2: the latest LCA on these hosts."""
        needs = [
            Need(item.key, "The latest LCA must be on the hosts of these servers.", ("CS-P2",))
            for item in self.items
            if item.stage == "lca" and hosts & {part.name for part in item.parts}
        ]
        target, blockers = self._target(LCA), []
        if not target:
            blockers.append(
                Blocker(
                    "No target version is set for LCA, so nobody can tell whether it is the latest. Set it.",
                    ("CS-P2",),
                )
            )
        else:
            blockers = [
                Blocker(f"The version of the LCA on {host.name} is not known. Enter it.", ("CS-P2",))
                for host in self.picture.hosts
                if host.name in hosts and reaches(host.lca_version, target) is None
            ]
        return needs, blockers

    def _add(self, item: Item) -> None:
        run, blockers = self._claims(item)
        known = self.history.get(item.procedure)
        self.items.append(
            replace(
                item,
                published=item.procedure in self.procedures,
                expected=known.of(len(item.parts)) if known is not None else None,
                run=run,
                blockers=item.blockers + blockers,
            )
        )

    def _claims(self, item: Item) -> tuple[OpenRun | None, tuple[Blocker, ...]]:
        """The open run that does this item; any other open run on its servers or hosts blocks it."""
        mine = frozenset(item.pair)
        hosts = frozenset(part.name for part in item.parts if part.kind == "host")
        on_hosts = frozenset(server.name for server in self.picture.servers if server.host in hosts)
        doing, blockers = None, []
        for run in self.open_runs:
            held = (mine | on_hosts) & run.servers | hosts & run.hosts
            same = run.procedure and run.procedure in (item.procedure, *item.alternatives)
            if same and doing is None and (held or not (mine or hosts)):
                doing = run
            elif held:
                blockers.append(
                    Blocker(
                        f"{listed(sorted(held))} belong{'s' * (len(held) == 1)} to run {run.id} (“{run.title}”)."
                    )
                )
        return doing, tuple(blockers)

    # The stages.

    def _scs(self) -> None:
        for unit in self.picture.units_of(SCS):
            if parts := self._outdated(unit):
                before = self._needs(
                    ["scs"],
                    "One Solution Control Server after the other, so that one keeps control.",
                    "ML-N1",
                    "ML-N2",
                )
                how = (
                    "The backup first, then the other; one of them keeps control all the time."
                    if unit.is_pair
                    else "It stands alone: without it nothing can be controlled, and it is started on its host by hand."
                )
                sources = ("LCA-P2", "CS-P3") if unit.is_pair else ("LCA-P2", "CS-P3", "ML-N3")
                self._add(
                    _of_unit(
                        unit,
                        parts,
                        procedure="management-layer",
                        reason=f"First, because LCA and Configuration Server ask for the latest one. {how}",
                        sources=sources,
                        needs=tuple(before),
                    )
                )

    def _message_servers(self) -> None:
        for unit in self.picture.units_of(MESSAGE_SERVER):
            if parts := self._outdated(unit):
                needs = self._needs(
                    ["scs"], "It is stopped and started through Solution Control Server.", "ML-N1", "ML-N2"
                )
                self._add(
                    _of_unit(
                        unit,
                        parts,
                        procedure="management-layer",
                        reason="After Solution Control Server, through which it is stopped and started; before LCA, which wants "
                        "no alarm on its host.",
                        sources=("ML-N1", "ML-N2", "LCA-P3"),
                        needs=tuple(needs),
                    )
                )

    def _log_database(self) -> None:
        self._database(
            LOG_DATABASE,
            self.picture.log_schema_version,
            stage="message-server",
            procedure="log-database-schema",
            used_by=MESSAGE_SERVER,
            reason="Between the installation of the new Message Server and its start, if that version asks for it.",
            sources=("ML-5",),
        )

    def _database(
        self,
        component: str,
        version: str,
        *,
        stage: str,
        procedure: str,
        used_by: str,
        reason: str,
        sources: Sources,
    ) -> None:
        """The item of a schema. It belongs into the run of the first server that is upgraded with it."""
        target = self._target(component)
        if not target or not self.picture.servers_of(used_by):
            return
        part = Part("database", DATABASES[component], version, target)
        at_target = reaches(version, target)
        if at_target is None:
            self.unknown.append(part)
        if at_target is not False:
            return
        outer = next((item for item in self.items if item.stage == stage), None)
        # What holds the outer run holds this one too: nothing inside may begin before it.
        needs = outer.needs if outer is not None else tuple(self._needs(["db-server"], _DB_FIRST, "CS-W3"))
        self._add(
            Item(
                key=f"database:{component}",
                stage=stage,
                procedure=procedure,
                title=f"{part.name}, schema {version} → {target}",
                reason=reason
                if outer is not None
                else "Its software is at its target, so the schema is upgraded by itself.",
                sources=sources if outer is not None else ("GEN-1",),
                parts=(part,),
                needs=needs,
                inside=outer.key if outer is not None else "",
            )
        )

    def _lca(self) -> None:
        for key, title, hosts, reason, sources in self._lca_waves():
            needs, blockers = self._scs_first("LCA-P2")
            needs += self._needs(
                ["message-server"],
                "No alarm may stand on the host; a Message Server that is down raises some.",
                "LCA-P3",
            )
            needs += self._needs(["lca"], "One host at a time, hosts of an SCS pair last.", "LCA-2", "LCA-3a")
            target = self._target(LCA)
            parts = tuple(Part("host", host.name, host.lca_version, target) for host in hosts)
            self._add(
                Item(
                    key=key,
                    stage="lca",
                    procedure="lca",
                    title=title,
                    reason=reason,
                    sources=sources,
                    parts=parts,
                    hosts=frozenset(host.name for host in hosts),
                    needs=tuple(needs),
                    blockers=tuple(blockers),
                )
            )

    def _lca_waves(self) -> Iterator[tuple[str, str, list[Host], str, Sources]]:
        """Hosts in the order of LCA-2 to LCA-4: those without a pair of SCS by site, then the hosts of each pair."""
        left = {host.name: host for host in self._hosts_to_do()}
        pairs = [unit for unit in self.picture.units_of(SCS) if unit.is_pair]
        alone = {unit.first.host for unit in self.picture.units_of(SCS) if not unit.is_pair}
        in_pairs = {host for unit in pairs for host in unit.hosts}
        free = [host for host in left.values() if host.name not in in_pairs]
        for site in sorted({host.site for host in free}):
            hosts = sorted(
                (host for host in free if host.site == site), key=lambda h: (h.name in alone, h.name)
            )
            single = (
                "; the host of the single SCS last, with that SCS shut down"
                if alone & {h.name for h in hosts}
                else ""
            )
            yield (
                f"lca:{site}",
                f"LCA on {counted(len(hosts), 'host')}{f' in {site}' if site else ''}",
                hosts,
                f"Hosts that run no Solution Control Server of a pair, one at a time{single}.",
                ("LCA-2", "LCA-2a", "LCA-W") if single else ("LCA-2", "LCA-W"),
            )
        for unit in pairs:
            names = dict.fromkeys(server.host for server in _primary_first(unit))
            hosts = [left.pop(name) for name in names if name in left]
            if hosts:
                yield (
                    f"lca:pair:{unit.first.name}",
                    f"LCA on {'the hosts' if len(hosts) > 1 else 'the host'} of {listed(unit.names)}",
                    hosts,
                    "Hosts of a pair of Solution Control Servers come last: the primary's host first, after a switchover.",
                    ("LCA-3a", "LCA-4a", "LCA-W"),
                )

    def _hosts_to_do(self) -> list[Host]:
        target = self._target(LCA)
        if not target:
            return []
        found = []
        for host in sorted(self.picture.hosts, key=lambda host: host.name):
            match reaches(host.lca_version, target):
                case False:
                    found.append(host)
                case None:
                    self.unknown.append(Part("host", host.name, host.lca_version, target))
        return found

    def _db_servers(self) -> None:
        for unit in self.picture.units_of(DB_SERVER):
            if parts := self._outdated(unit):
                self._add(
                    _of_unit(
                        unit,
                        parts,
                        procedure="",
                        reason="The new Configuration Server asks for this version. The source document has no procedure for it: "
                        "follow its own deployment guide.",
                        sources=("CS-W3",),
                    )
                )

    def _lrm(self) -> None:
        target = self._target(MASTER)
        if not self.picture.uses_lrm or reaches(target, "8.5") is not True:
            return
        self._add(
            Item(
                key="lrm",
                stage="lrm",
                procedure="lrm-removal",
                title="Uninstall License Reporting Manager 8.5",
                reason="Configuration Server of the new version is no longer integrated with it.",
                sources=("INT-6",),
                parts=(Part("software", "License Reporting Manager", "8.5", "uninstalled"),),
            )
        )

    def _before_configuration_server(self, hosts: frozenset[str]) -> tuple[list[Need], list[Blocker]]:
        needs, blockers = self._scs_first("CS-P3")
        lca_needs, lca_blockers = self._lca_first(hosts)
        return needs + lca_needs + self._management_stays(lca_needs), blockers + lca_blockers

    def _management_stays(self, known: Sequence[Need]) -> list[Need]:
        """LCA-2b: an LCA run that shuts the one SCS down leaves nobody to switch Configuration Servers over."""
        alone = {unit.first.host for unit in self.picture.units_of(SCS) if not unit.is_pair}
        keys = {need.key for need in known}
        reason = "A Solution Control Server that has no peer is shut down in its course, and nothing could be switched over."
        return [
            Need(item.key, reason, ("LCA-2b",))
            for item in self.items
            if item.stage == "lca" and item.key not in keys and alone & item.hosts
        ]

    def _masters(self) -> None:
        for unit in self.picture.units_of(MASTER, dormant=False):
            parts = self._outdated(unit)
            if not parts:
                continue
            needs, blockers = self._before_configuration_server(unit.hosts)
            needs += self._needs(["db-server"], _DB_FIRST, "CS-W3")
            needs += self._needs(["lrm"], "License Reporting Manager 8.5 has to go first.", "INT-6")
            if self._target(DB_SERVER):
                servers = self.picture.servers_of(DB_SERVER)
                blockers += self._unknown_servers(servers, "DB Server is as required", ("CS-W3",))
            procedure, alternatives, how, source = self._master_procedure(unit, parts)
            self._add(
                _of_unit(
                    unit,
                    parts,
                    procedure=procedure,
                    alternatives=alternatives,
                    reason=f"The master goes before every proxy. {how}",
                    sources=("INT-1", "CS-P2", "CS-P3", source),
                    needs=tuple(needs),
                    blockers=tuple(blockers),
                )
            )

    def _master_procedure(self, unit: Unit, parts: tuple[Part, ...]) -> tuple[str, tuple[str, ...], str, str]:
        if not unit.is_pair:
            return (
                "config-server-standalone",
                (),
                "It stands alone, so its clients have a downtime.",
                "CSS-4x",
            )
        if len(parts) < len(unit.servers):
            how = "Its peer is at the target already, and both servers of a pair must run the same version."
            return "config-server-ha", (), how, "CS-W2"
        if self._same_schema(unit):
            how = "Both run 8.1.3 on schema 8.1.1, which stays: the pair can keep its redundancy and its sessions."
            return "config-server-ha-same-schema", ("config-server-ha",), how, "CSM-0"
        return "config-server-ha", (), "The backup is replaced first.", "CS-W2"

    def _same_schema(self, unit: Unit) -> bool:
        """CSM-0: both servers run 8.1.3, the schema is 8.1.1 and stays, and the target is 8.5.101."""
        schema, wanted = self.picture.schema_version, self._target(CONFIGURATION_DATABASE)
        return (
            all(is_release(server.version, "8.1.3") for server in unit.servers)
            and is_release(schema, "8.1.1")
            and (not wanted or reaches(schema, wanted) is True)
            and is_release(self._target(MASTER), "8.5.101")
        )

    def _configuration_database(self) -> None:
        self._database(
            CONFIGURATION_DATABASE,
            self.picture.schema_version,
            stage="master",
            procedure="database-migration",
            used_by=MASTER,
            reason="In the course of the master's run, before the new server starts on the migrated database.",
            sources=("CSS-3", "CSH-4"),
        )

    def _proxies(self) -> None:
        units = [(unit, self._outdated(unit)) for unit in self.picture.units_of(PROXY)]
        for unit, parts in units:
            if not parts:
                continue
            needs, blockers = self._before_configuration_server(unit.hosts)
            if self.proxies_may_go_first:
                reason = "Masters of 8.1.3 in single-language mode serve proxies of 8.5, so it need not wait for the master."
                sources: Sources = ("PRX-1",)
            else:
                reason = "After the master, and then as soon as possible: different versions stand only while this lasts."
                sources = ("INT-1", "PRX-1")
                needs += self._needs(["master"], "The master goes before its proxies.", "INT-1", "PRX-1")
                blockers += self._old_masters()
            self._add(
                _of_unit(
                    unit,
                    parts,
                    procedure="config-server-proxy-ha" if unit.is_pair else "config-server-proxy",
                    reason=reason,
                    sources=(*sources, "PRX-0"),
                    needs=tuple(needs),
                    blockers=tuple(blockers),
                )
            )

    @property
    def _active_masters(self) -> list[Server]:
        return [server for server in self.picture.servers_of(MASTER) if not server.dormant]

    @property
    def proxies_may_go_first(self) -> bool:
        """PRX-1, the one exception: the master is 8.1.3 and in single-language mode, the proxies are to be 8.5."""
        return (
            self.picture.single_language is True
            and _is_line(self._target(PROXY), (8, 5))
            and bool(self._active_masters)
            and all(is_release(server.version, "8.1.3") for server in self._active_masters)
        )

    def _old_masters(self) -> Iterator[Blocker]:
        """Masters that the plan does not upgrade although a proxy would overtake them, or of unknown version."""
        planned = {
            part.name: part.target for item in self.items if item.stage == "master" for part in item.parts
        }
        wanted = self._target(PROXY)
        for server in self._active_masters:
            match reaches(planned.get(server.name, server.version), wanted):
                case None:
                    yield Blocker(
                        f"The version of the master {server.name} is not known. Enter it.", ("INT-1",)
                    )
                case False:
                    yield Blocker(
                        f"The master {server.name} ({server.version}) would be older than its proxies: its own target does not "
                        f"bring it to {wanted}. Set that target first.",
                        ("INT-1",),
                    )

    def _dormant(self) -> None:
        for unit in self.picture.units_of(MASTER, dormant=True):
            parts = self._outdated(unit)
            if not parts:
                continue
            needs, blockers = self._before_configuration_server(unit.hosts)
            masters = [
                item for item in self.items if item.stage == "master" and not item.key.startswith("database:")
            ]
            needs += [Need(item.key, "The active master comes first.", ("INT-4",)) for item in masters]
            needs += [
                Need(
                    item.key,
                    "The upgraded database is replicated before a dormant server starts.",
                    ("INT-5",),
                )
                for item in self.items
                if item.key == f"database:{CONFIGURATION_DATABASE}"
            ]
            self._add(
                replace(
                    _of_unit(
                        unit,
                        parts,
                        procedure="disaster-recovery",
                        reason="The copies at the other site are upgraded too, so that they can take over.",
                        sources=("INT-4", "INT-5"),
                        needs=tuple(needs),
                        blockers=tuple(blockers),
                    ),
                    stage="dormant",
                )
            )

    def _others(self) -> None:
        for unit in self.picture.units:
            if unit.type not in _PLAIN and (parts := self._outdated(unit)):
                self._add(
                    _of_unit(
                        unit,
                        parts,
                        procedure="",
                        reason="No requirement gives it a place. It comes last, by its own guide.",
                        sources=(),
                    )
                )

    # What the reader should know beside the order.

    def _notices(self) -> Iterator[Notice]:
        if not self.picture.targets:
            yield Notice(
                "No target version is set, so there is nothing to plan. Set the versions to reach first."
            )
        stages = {item.stage for item in self.items}
        keys = {item.key for item in self.items}
        migrates = f"database:{CONFIGURATION_DATABASE}" in keys
        if migrates and "master" in stages:
            yield Notice(
                "Software and schema are two upgrades. Do both together only where a feature that you want needs both.",
                ("GEN-1",),
            )
        if migrates:
            yield Notice(
                "Keep the former Configuration Database for a while: without it there is no way back.",
                ("CS-R1",),
            )
            yield Notice("Client sessions do not survive the change of database.", ("CS-L1",))
        yield from self._about_masters()
        yield from self._about_proxies(stages)
        yield from self._about_dormant(migrates)
        yield from self._about_targets()

    def _about_masters(self) -> Iterator[Notice]:
        for item in self.items:
            if item.procedure == "config-server-ha-same-schema":
                yield Notice(
                    f"{listed(item.pair)} can take the shorter way without read-only mode. If the expected messages do not "
                    "come, the run goes over to the general procedure and keeps what is done.",
                    ("CSM-0", "CSM-4b"),
                )

    def _about_proxies(self, stages: set[str]) -> Iterator[Notice]:
        if "proxy" not in stages:
            return
        yield Notice(
            "Proxies ask for no read-only mode, but no change of the configuration may be pending or scheduled.",
            ("PRX-2",),
        )
        if self.proxies_may_go_first and "master" in stages:
            yield Notice(
                "Here proxies may be upgraded before their master, during the migration only.", ("PRX-1",)
            )
        elif (
            self.picture.single_language is None
            and "master" in stages
            and self._active_masters
            and all(is_release(server.version, "8.1.3") for server in self._active_masters)
        ):
            yield Notice(
                "Nobody has stated whether the Configuration Database is in single-language mode. In that mode proxies of "
                "8.5 may go before a master of 8.1.3; until it is stated, the master goes first.",
                ("PRX-1",),
            )

    def _about_dormant(self, migrates: bool) -> Iterator[Notice]:
        copies = self.picture.units_of(MASTER, dormant=True)
        if self.picture.disaster_recovery and not copies:
            yield Notice(
                "Disaster recovery is set up, but no dormant Configuration Server is among the servers. Add it.",
                ("INT-4",),
            )
        if copies and migrates:
            yield Notice(
                "Replicate the upgraded database to the other site before any dormant server starts.",
                ("INT-5",),
            )

    def _about_targets(self) -> Iterator[Notice]:
        for part in self.unknown:
            what = (
                "LCA on " if part.kind == "host" else "the schema of the " if part.kind == "database" else ""
            )
            source = {"host": ("LCA-P1",), "database": ("GEN-1",)}.get(part.kind, ())
            yield Notice(
                f"The version of {what}{part.name} is not known, so it is not planned. Enter it.", source
            )
        for component, target in sorted(self.picture.targets.items()):
            ahead = [s.name for s in self.picture.servers_of(component) if _is_beyond(s.version, target)]
            if ahead:
                yield Notice(
                    f"{listed(ahead)} already run{'s' * (len(ahead) == 1)} a later version than the target {target}."
                )


_DB_FIRST = "Related servers that the new version requires come first."


def _of_unit(
    unit: Unit,
    parts: tuple[Part, ...],
    *,
    procedure: str,
    reason: str,
    sources: Sources,
    needs: tuple[Need, ...] = (),
    blockers: tuple[Blocker, ...] = (),
    alternatives: tuple[str, ...] = (),
) -> Item:
    return Item(
        # Of the whole unit, so that the key stays when one of a pair is done.
        key="server:" + "+".join(sorted(unit.names)),
        stage=_STAGE_OF.get(unit.type, "other"),
        procedure=procedure,
        title=listed([part.name for part in parts]),
        reason=reason,
        sources=sources,
        parts=parts,
        pair=unit.names,
        hosts=unit.hosts,
        needs=needs,
        blockers=blockers,
        alternatives=alternatives,
    )


def _side_by_side(items: list[Item]) -> tuple[Item, ...]:
    """The items with their groups: no two of a group need each other, share a host, or run inside another."""
    groups: list[list[Item]] = []
    for item in items:
        if item.inside:
            continue
        needed = {need.key for need in item.needs}
        for group in groups:
            if not any(other.key in needed or other.hosts & item.hosts for other in group):
                group.append(item)
                break
        else:
            groups.append([item])
    number = {item.key: place for place, group in enumerate(groups, 1) if len(group) > 1 for item in group}
    return tuple(replace(item, group=number.get(item.key, 0)) for item in items)


def _primary_first(unit: Unit) -> list[Server]:
    """The server that runs as primary now comes first; where no mode is known, the one configured as primary."""
    return sorted(unit.servers, key=lambda server: server.mode not in SERVING)


def _is_line(version: str, line: tuple[int, int]) -> bool:
    try:
        return Version.parse(version).parts[:2] == line
    except NotAVersion:
        return False


def _is_beyond(version: str, target: str) -> bool:
    return reaches(version, target) is True and reaches(target, version) is False
