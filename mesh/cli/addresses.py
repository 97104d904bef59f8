"""Where each worker of a plan listens, and whether it can."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

from mesh.errors import PlacementError
from mesh.topology import Plan, Worker
from mesh.transports.grpc import target_of

__all__ = ["Addresses", "addresses_of", "check_free", "socket_address"]

Addresses = dict[str, tuple[str, ...]]
"""Worker -> an address a replica."""

LONGEST_SOCKET_PATH = 103
"""Bytes of a unix socket's path that every system takes (macOS 103, Linux 107)."""


def addresses_of(plan: Plan, chosen: Sequence[Worker], folder: Path, front: str, *, jobs: bool = False) -> Addresses:
    """Give every worker its addresses: the file's and the ports that follow it, else unix sockets in `folder`.

    Args:
        plan: Whose workers.
        chosen: Those that are launched here.
        folder: Of this mesh alone.
        front: The gateway's address.
        jobs: Whether workers on jobs are launched here: they call the others, as the gateway does.

    Raises:
        PlacementError: A worker could not be called by the gateway, or an address cannot be given.
    """
    found: Addresses = {}
    called = jobs or plan.gateway in chosen
    for worker in plan.workers:
        address = front if worker is plan.gateway else worker.address
        if address is None:
            if (worker in chosen) != called:
                text = f"worker {worker.name} has no address in placement {plan.placement}"
                raise PlacementError(f"{text}: it has to be launched together with the gateway, {plan.gateway.name}")
            found[worker.name] = tuple(
                socket_address(folder / f"{worker.name}-{replica}.sock") for replica in range(worker.replicas)
            )
        else:
            found[worker.name] = tuple(_following(address, replica) for replica in range(worker.replicas))
    return found


def socket_address(path: Path) -> str:
    """The address of a unix socket.

    Raises:
        PlacementError: Its path is longer than some systems take.
    """
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        text = f"{path} is longer than the {LONGEST_SOCKET_PATH} bytes of a socket's path"
        raise PlacementError(f"{text}: set TMPDIR to a folder with a shorter name")
    return f"unix:{path}"


def _following(address: str, replica: int) -> str:
    """The address of a replica: as written, or that many ports further."""
    target_of(address)
    matched = re.fullmatch(r"(grpc://.+:)(\d+)", address)
    if replica == 0 or (matched and matched[2] == "0"):
        return address
    if matched is None:
        raise PlacementError(f"{address} cannot be shared by replicas")
    return f"{matched[1]}{int(matched[2]) + replica}"


def check_free(addresses: Iterable[str]) -> None:
    """Find out about taken ports before anything is started. Workers check again, by binding them.

    Raises:
        PlacementError: An address is in use, or none of this host.
    """
    for address in addresses:
        if address.startswith("grpc://") and not address.endswith(":0"):
            _check_port(address)


def _check_port(address: str) -> None:
    host, _, port = address.removeprefix("grpc://").rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = found[0]
        with socket.socket(family, kind, protocol) as probe:
            # As gRPC does: what the system still holds of closed connections is no reason to refuse.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        why = "it is in use" if in_use else error.strerror or "it is no address of this host"
        raise PlacementError(f"{address} cannot be bound: {why}") from None
