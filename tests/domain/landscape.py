"""Pictures of environments for the tests of the planner and of the standing rules."""

from dataclasses import replace

from hypothesis import strategies as st

from upgrades.domain.environment import (
    DB_SERVER,
    MASTER,
    MESSAGE_SERVER,
    PROXY,
    SCS,
    Host,
    Picture,
    Server,
)

TARGETS = {
    SCS: "8.5.100.40",
    MESSAGE_SERVER: "8.5.100.10",
    "LCA": "8.5.100.30",
    DB_SERVER: "8.5.100",
    MASTER: "8.5.101",
    PROXY: "8.5.101",
}
OLD = "8.1.300.20"
ALL_PROCEDURES = frozenset(
    {
        "lca",
        "management-layer",
        "config-server-standalone",
        "config-server-ha-same-schema",
        "config-server-ha",
        "config-server-proxy",
        "database-migration",
        "log-database-schema",
        "disaster-recovery",
        "lrm-removal",
    }
)


def server(name, type_, host, version=OLD, **more):
    return Server(name=name, type=type_, host=host, version=version, **more)


def pair(name, type_, hosts, version=OLD, modes=("primary", "backup"), **more):
    """A primary and its backup, `<name>_b`."""
    other = f"{name}_b"
    return (
        server(name, type_, hosts[0], version, standing="primary", peer=other, mode=modes[0], **more),
        server(other, type_, hosts[1], version, standing="backup", peer=name, mode=modes[1], **more),
    )


def picture(*servers, targets=None, lca=OLD, **more):
    """The servers, and a host for each that they name."""
    names = sorted({item.host for item in servers})
    hosts = tuple(Host(name=name, host_type="Linux", lca_version=lca) for name in names)
    return Picture(hosts=hosts, servers=servers, targets=TARGETS if targets is None else targets, **more)


def whole(**more):
    """Two sites: a pair of each kind, two proxy pairs, two single proxies, a dormant pair, a DB Server."""
    servers = (
        *pair("scs", SCS, ("a-scs", "b-scs")),
        *pair("ms", MESSAGE_SERVER, ("a-ms", "b-ms")),
        server("dbs", DB_SERVER, "a-db"),
        *pair("confserv", MASTER, ("a-cfg", "a-cfg2")),
        *pair("proxy1", PROXY, ("a-p1", "b-p1")),
        *pair("proxy2", PROXY, ("a-p2", "b-p2")),
        server("proxy3", PROXY, "a-p3"),
        server("proxy4", PROXY, "b-p3"),
        *pair("dr", MASTER, ("b-cfg", "b-cfg2"), modes=("down", "down"), dormant=True),
    )
    made = picture(*servers, **more)
    hosts = tuple(replace(host, site="A" if host.name.startswith("a") else "B") for host in made.hosts)
    return replace(made, hosts=hosts)


versions = st.sampled_from(["", "7.6", "8.1.200", OLD, "8.1.3", "8.5.000", "8.5.101", "8.5.101.38", "9.0"])
# Mostly what the rules are about, and targets that mostly ask for something: else little is planned.
types = st.sampled_from(
    [MASTER, PROXY, SCS, MASTER, PROXY, MESSAGE_SERVER, DB_SERVER, "StatServer", "TServer"]
)
wanted = st.sampled_from(["8.5.101", "9.0", "8.5.101.38", "8.1.300.40"])


@st.composite
def pictures(draw):
    """Any environment: odd pairs, unknown versions, targets missing, servers ahead of them, hosts shared."""
    host_names = draw(st.lists(st.sampled_from([f"h{n}" for n in range(8)]), min_size=1, unique=True))
    names = [f"s{n}" for n in range(draw(st.integers(0, 12)))]
    servers = tuple(
        Server(
            name=name,
            type=draw(types),
            host=draw(st.sampled_from(host_names)),
            version=draw(versions),
            standing=draw(st.sampled_from(["primary", "backup", "standalone"])),
            peer=draw(st.sampled_from(["", *names])),
            mode=draw(st.sampled_from(["", "primary", "backup", "upgrade-mode", "down"])),
            dormant=draw(st.sampled_from([False, False, False, True])),
        )
        for name in names
    )
    hosts = tuple(
        Host(name=name, site=draw(st.sampled_from(["", "A", "B"])), lca_version=draw(versions))
        for name in host_names
    )
    components = [*TARGETS, "StatServer", "ConfigurationDatabase", "LogDatabase"]
    left_out = draw(st.sets(st.sampled_from(components), max_size=3))
    targets = {component: draw(wanted) for component in components if component not in left_out}
    return Picture(
        hosts=hosts,
        servers=servers,
        targets=targets,
        single_language=draw(st.sampled_from([None, True, False])),
        schema_version=draw(st.sampled_from(["", "8.1.1", "8.1.100.05", "8.5"])),
        log_schema_version=draw(versions),
        uses_lrm=draw(st.booleans()),
        disaster_recovery=draw(st.booleans()),
    )
