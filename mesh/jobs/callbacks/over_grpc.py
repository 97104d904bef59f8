"""Callbacks to a `JobListenerService`."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import grpc

from mesh import wire
from mesh.errors import InvalidInput, Unavailable
from mesh.jobs.callbacks.targets import Target
from mesh.v1 import job_listener_service_pb2, job_listener_service_pb2_grpc

__all__ = ["tell_listener"]

_OPTIONS = [
    # The answer is empty.
    ("grpc.max_receive_message_length", 16 << 10),
    ("grpc.enable_retries", 0),
]


async def tell_listener(
    target: Target,
    request: job_listener_service_pb2.JobEndedRequest,
    metadata: list[tuple[str, str]],
    timeout_s: float,
) -> None:
    """Call it once, and wait until it was heard, but no longer than the timeout.

    Raises:
        InvalidInput: It stands at an address that callbacks do not go to.
        Unavailable: It may be heard the next time.
    """
    addresses = await _addresses(target)
    # Numeric from here on: no name can be resolved anew in between.
    version, family = ("ipv6", 6) if ":" in addresses[0] else ("ipv4", 4)
    same = [address for address in addresses if (":" in address) == (family == 6)]
    places = ",".join(f"[{one}]:{target.port}" if family == 6 else f"{one}:{target.port}" for one in same)
    async with wire.insecure_channel(f"{version}:{places}", options=_OPTIONS) as channel:
        # The published stubs leave the method out of the type.
        stub: Any = job_listener_service_pb2_grpc.JobListenerServiceStub(channel)
        try:
            await stub.JobEnded(request, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"{target} answered {error.code().name}") from error


async def _addresses(target: Target) -> list[str]:
    """Where it is, in the order in which to try."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host.strip("[]"), target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"{target} has a name that cannot be resolved now") from error
    addresses = [str(where[0]) for _, _, _, _, where in found]
    reached = [address for address in dict.fromkeys(addresses) if target.reaches(address)]
    if not reached:
        raise InvalidInput(f"{target} is at an address that callbacks do not go to unless the list spells it out")
    return reached
