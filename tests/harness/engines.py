"""Every pair of engines: who listens, and who dials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mesh.transports import ENGINES, Endpoint, GrpcTransport, Limits, Link, Listener, Service, Transport
from mesh.transports.statistics import Tell

__all__ = ["PAIRS"]


class _Pair:
    """A transport that listens by one engine and dials by another."""

    def __init__(self, listening: str, dialling: str) -> None:
        self._listening = GrpcTransport(listening)
        self._dialling = GrpcTransport(dialling)

    async def listen(
        self,
        address: str,
        endpoints: Sequence[Endpoint],
        limits: Limits,
        tell: Tell | None = None,
        services: Sequence[Service] = (),
    ) -> Listener:
        return await self._listening.listen(address, endpoints, limits, tell, services)

    async def dial(self, address: str, limits: Limits) -> Link:
        return await self._dialling.dial(address, limits)


PAIRS: Mapping[str, Callable[[], Transport]] = {
    dialling if listening == dialling else f"{dialling}-to-{listening}": partial(_Pair, listening, dialling)
    for listening in ENGINES
    for dialling in ENGINES
}
"""By name: `wire`, `grpcio`, `wire-to-grpcio`, `grpcio-to-wire`."""
