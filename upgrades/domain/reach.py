"""Which addresses this installation may connect to (docs/environments.md, “Agents”).

Agents sit in private networks, so a list of forbidden networks would be wrong for them: what is not listed is not
asked. Special addresses (this machine, link-local with the metadata services of clouds) are not part of any larger
network: only an entry that names nothing else lets them in. Addresses that carry another one inside (NAT64, 6to4,
Teredo), and those of no one machine, are never asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from upgrades.domain.agent_address import is_never_asked, is_of_no_one_machine

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_THIS_MACHINE = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_LINK = (
    ip_network("169.254.0.0/16"),
    ip_network("fe80::/10"),
    ip_network("100.100.100.200/32"),
    ip_network("fd00:ec2::254/128"),
)


def plain(address: Address) -> Address:
    """The address that a packet goes to: IPv4 written as IPv6 (::ffff:10.1.2.3) is IPv4."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@dataclass(frozen=True, slots=True)
class Reach:
    """The networks that may be asked."""

    networks: tuple[Network, ...]

    def allows(self, address: Address) -> bool:
        """Whether a connection to this address may be made."""
        address = plain(address)
        if not is_never_asked(address):
            return any(_holds(network, address) for network in self.networks)
        if is_of_no_one_machine(address):
            return False
        return any(_holds(network, address) for network in self._special())

    @property
    def has_this_machine(self) -> bool:
        """Whether the list names loopback addresses."""
        return any(_is_part(network, _THIS_MACHINE) for network in self.networks)

    def _special(self) -> Iterable[Network]:
        return (network for network in self.networks if _is_part(network, (*_THIS_MACHINE, *_LINK)))

    def __str__(self) -> str:
        return ", ".join(map(str, self.networks))


def _holds(network: Network, address: Address) -> bool:
    return network.version == address.version and address in network


def _is_part(network: Network, wholes: Iterable[Network]) -> bool:
    for whole in wholes:
        if isinstance(network, IPv4Network) and isinstance(whole, IPv4Network) and network.subnet_of(whole):
            return True
        if isinstance(network, IPv6Network) and isinstance(whole, IPv6Network) and network.subnet_of(whole):
            return True
    return False
