"""Where an agent may be: the form of its address, and which addresses and ports are never asked (trust.md 11.2)."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from upgrades.domain.environment_records import NotUsable, read_host

AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)

_FORM = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5})/?", re.ASCII)
# Below 1024 is the system's; the others are stores, directories and mail, which no agent is.
_NEVER = frozenset({1433, 1521, 2049, 2379, 3306, 3389, 5432, 5672, 6379, 9200, 11211, 27017})
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_METADATA_NAMES = frozenset(
    {"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"}
)
_EMBEDDING = tuple(map(ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "fec0::/10")))
_THIS_NETWORK = ip_network("0.0.0.0/8")
_METADATA = frozenset(map(ip_address, ("169.254.169.254", "100.100.100.200", "fd00:ec2::254")))


def read_agent_id(text: str) -> str:
    if not AGENT_ID.fullmatch(text.strip()):
        raise NotUsable(
            "The agent's id is what its configuration calls “agent”: letters, digits, dots, dashes and underscores, "
            "at most 100."
        )
    return text.strip()


def read_address(text: str, *, loopback: bool, taken_ports: Collection[int] = ()) -> str:
    """`https://host:port` in its one canonical form; plain http and loopback only where `loopback` allows both.

    `taken_ports` are those of our own stores.
    """
    found = _FORM.fullmatch(text.strip())
    if not found:
        raise NotUsable(
            "Write the address as https://host:port, for example https://fra-cfg-01:7101, and nothing else."
        )
    scheme, host, port = found[1].lower(), found[2].lower(), int(found[3])
    if loopback and host in _LOOPBACK_NAMES:
        return f"{scheme}://{host}:{_port(port, taken_ports)}"
    if scheme != "https":
        raise NotUsable("Log lines must not travel in the clear: the address begins with https.")
    name = read_host(host.strip("[]"))
    if name in _METADATA_NAMES:
        raise NotUsable("Nothing at this address is ever asked. Write the address of the agent's host.")
    try:
        address = ip_address(name)
    except ValueError:
        return f"https://{name}:{_port(port, taken_ports)}"
    if is_never_asked(address):
        raise NotUsable("Nothing at this address is ever asked. Write the address of the agent's host.")
    shown = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
    return f"https://{shown}:{_port(port, taken_ports)}"


def _port(port: int, taken: Collection[int]) -> int:
    if not (port == 443 or 1024 <= port <= 65535) or port in _NEVER or port in taken:
        raise NotUsable(
            f"Port {port} is no agent's. Agents listen on 443 or on one from 1024 to 65535, usually 7101."
        )
    return port


def is_never_asked(address: IPv4Address | IPv6Address) -> bool:
    """Whether no question may go there, whoever entered the name: this machine, metadata services, no one machine."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return (
        address.is_loopback or address.is_link_local or address in _METADATA or is_of_no_one_machine(address)
    )


def is_of_no_one_machine(address: IPv4Address | IPv6Address) -> bool:
    """Unspecified, multicast, reserved, or with another address inside (NAT64, 6to4, Teredo)."""
    return (
        address.is_unspecified
        or address in _THIS_NETWORK
        or address.is_multicast
        or (isinstance(address, IPv4Address) and address.is_reserved)
        or any(address in network for network in _EMBEDDING if network.version == address.version)
    )
