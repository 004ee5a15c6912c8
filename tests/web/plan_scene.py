"""A large environment for the plan page: two sites, forty hosts, pairs of SCS, Message Servers and masters, six proxies."""

from upgrades.models import Application, Environment, Host, Target

OLD = "8.1.300.20"
TARGETS = {
    "SCS": "8.5.100.40",
    "MessageServer": "8.5.100.10",
    "LCA": "8.5.100.30",
    "RealDBServer": "8.5.100",
    "ConfigurationServer": "8.5.101",
    "ConfigurationServerProxy": "8.5.101",
}
SITES = {"fra": "Frankfurt", "ber": "Berlin"}


def hosts_of(environment, count=40):
    names = [f"{'fra' if number % 2 else 'ber'}-host-{number:02}" for number in range(1, count + 1)]
    return [
        Host.objects.create(
            environment=environment,
            name=name,
            site=SITES[name[:3]],
            host_type="Linux",
            os_name="Ubuntu",
            os_version="22.04",
            lca_version=OLD,
        )
        for name in names
    ]


def pair(environment, name, type_, hosts, **more):
    first, second = (
        Application.objects.create(
            environment=environment,
            host=host,
            name=own,
            type=type_,
            version=OLD,
            standing=standing,
            mode=mode,
            **more,
        )
        for host, own, standing, mode in zip(
            hosts,
            (name, f"{name}_b"),
            ("primary", "backup"),
            ("down", "down") if more.get("dormant") else ("primary", "backup"),
            strict=True,
        )
    )
    first.peer, second.peer = second, first
    first.save(update_fields=["peer"])
    second.save(update_fields=["peer"])
    return first, second


def single(environment, name, type_, host, **more):
    return Application.objects.create(
        environment=environment, host=host, name=name, type=type_, version=OLD, **more
    )


def large_environment(name="Production · two sites", targets=TARGETS, **more):
    environment = Environment.objects.create(
        name=name, disaster_recovery=True, schema_version="8.1.1", **more
    )
    hosts = hosts_of(environment)
    pair(environment, "scs", "SCS", hosts[0:2])
    pair(environment, "messageserver", "MessageServer", hosts[2:4])
    single(environment, "dbserver", "RealDBServer", hosts[4])
    pair(environment, "confserv", "ConfigurationServer", hosts[6:8])
    pair(environment, "proxy_fra", "ConfigurationServerProxy", hosts[8:10])
    pair(environment, "proxy_ber", "ConfigurationServerProxy", hosts[10:12])
    single(environment, "proxy_reports", "ConfigurationServerProxy", hosts[12])
    single(environment, "proxy_desktops_berlin_south", "ConfigurationServerProxy", hosts[13])
    pair(environment, "confserv_dr", "ConfigurationServer", hosts[14:16], dormant=True)
    Target.objects.bulk_create(
        Target(environment=environment, component=component, version=version)
        for component, version in targets.items()
    )
    return environment
