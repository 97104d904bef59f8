"""Which IP addresses belong to the public internet."""

from __future__ import annotations

import ipaddress

__all__ = ["is_public"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# https://www.iana.org/assignments/iana-ipv4-special-registry, multicast and class E; a table of our own, because
# that of `ipaddress` differs from one Python to the next.
_NOT_PUBLIC_4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers; Alibaba's metadata service is 100.100.100.200
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's WireServer, from every virtual machine
        "169.254.0.0/16",  # link-local; the metadata service of most clouds is 169.254.169.254
        "172.16.0.0/12",
        "192.0.0.0/24",  # Oracle's metadata service is 192.0.0.192
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Only 2000::/3 is given out as global unicast, so loopback, fc00::/7 (Amazon's metadata service is fd00:ec2::254),
# fe80::/10, ff00::/8 and IPv4 addresses mapped into IPv6 are outside by themselves.
_GIVEN_OUT_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments; Teredo carries an IPv4 address
        "2001:db8::/32",
        "2002::/16",  # 6to4 carries an IPv4 address
        "3fff::/20",
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: how hosts without IPv4 reach IPv4 ones; the last 32 bits are the address."""


def is_public(text: str) -> bool:
    """Whether a numeric address is unicast on the public internet. What cannot be read is not."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        if address not in _NAT64:
            return address in _GIVEN_OUT_6 and not any(address in network for network in _NOT_PUBLIC_6)
        address = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return not any(address in network for network in _NOT_PUBLIC_4)
