"""At which addresses hosts may be told of a job's end. Pure.

The list stands in the topology; a request only chooses from it. A name on the list does not open the machine itself,
nor what a cloud keeps at fixed addresses: those are for entries that spell them out, so that nobody who may change a
name in the DNS can turn a callback against the mesh's own hosts.
"""

from __future__ import annotations

import ipaddress

__all__ = ["is_guarded"]

# Of https://www.iana.org/assignments/iana-ipv4-special-registry, what is no other host, and metadata services of
# clouds. Private networks are not guarded: most of those who are told live there, and the list names them.
_GUARDED_4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "100.100.100.200/32",  # Alibaba's metadata service
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's WireServer, from every virtual machine
        "169.254.0.0/16",  # link-local; the metadata service of most clouds is 169.254.169.254
        "192.0.0.0/24",  # Oracle's metadata service is 192.0.0.192
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_GUARDED_6 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "::/128",
        "::1/128",
        "2001::/32",  # Teredo carries an IPv4 address in its own way
        "fd00:ec2::/32",  # Amazon's metadata service is fd00:ec2::254
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
# Prefix -> by how many bits the IPv4 address in it is shifted.
_CARRIES_4 = {
    ipaddress.IPv6Network("::/96"): 0,
    ipaddress.IPv6Network("::ffff:0:0/96"): 0,
    ipaddress.IPv6Network("::ffff:0:0:0/96"): 0,
    ipaddress.IPv6Network("64:ff9b::/96"): 0,
    ipaddress.IPv6Network("64:ff9b:1::/48"): 0,
    ipaddress.IPv6Network("2002::/16"): 80,
}


def is_guarded(text: str) -> bool:
    """Whether a numeric address is for those alone who spell it out.

    So it is with loopback, link-local, multicast and metadata services of clouds, and with what cannot be read.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return True
    if isinstance(address, ipaddress.IPv4Address):
        return any(address in network for network in _GUARDED_4)
    if address.scope_id is not None or any(address in network for network in _GUARDED_6):
        return True
    carried = [
        ipaddress.IPv4Address((int(address) >> shift) & 0xFFFF_FFFF)
        for network, shift in _CARRIES_4.items()
        if address in network
    ]
    return any(one in network for one in carried for network in _GUARDED_4)
