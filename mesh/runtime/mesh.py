"""`LocalMesh`: a whole plan in this process, each worker behind its own link. For tests, notebooks and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Self

from mesh.context import Context
from mesh.runtime.executor import Executor
from mesh.runtime.worker import Transports, Worker, describe, limits_of
from mesh.tensors import Tensors
from mesh.topology.placement import Plan
from mesh.transports import GraphHandler, InprocTransport, Service, Transport
from mesh.transports.contract import GRAPH, Description

__all__ = ["LocalMesh"]


class LocalMesh:
    """Every worker of a plan in one process; an async context manager, and a handler for the whole graph.

    Args:
        plan: What to run.
        transport: What the workers are linked by; in-process by reference unless said otherwise.
        address: Address of a worker, by its name and replica: `inproc://{worker}-{replica}` unless said otherwise. Its
            scheme has to be the transport's.
        services: gRPC services that the gateway answers for beside the graph; not in-process.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        transport: Transport | None = None,
        address: str = "inproc://{}-{}",
        services: Sequence[Service] = (),
    ) -> None:
        self._plan = plan
        self._transport = transport or InprocTransport()
        self._address = address
        self._services = services
        self._lifetime = AsyncExitStack()
        self.gateway_address = ""
        """Where the gateway listens, once entered."""

    async def __aenter__(self) -> Self:
        """Start the workers, the gateway last.

        Raises:
            SetupError: A worker cannot be built.
        """
        scheme = self._address.partition(":")[0]
        transports: Transports = {scheme: self._transport}
        try:
            dial: dict[str, list[str]] = {}
            for worker in reversed(self._plan.workers):
                dial[worker.name] = []
                for replica in range(worker.replicas):
                    address = self._address.format(worker.name, replica)
                    made = Worker(
                        self._plan,
                        worker.name,
                        listen=[address],
                        dial=dial,
                        transports=transports,
                        services=self._services if worker is self._plan.gateway else (),
                        grace_s=1.0,
                    )
                    await self._lifetime.enter_async_context(made)
                    dial[worker.name].append(made.listeners[0].address)
                    if made.root is not None and made.counted is not None:
                        self._root, self._counted = made.root, made.counted
                        self.gateway_address = made.listeners[0].address
            link = await self._transport.dial(self.gateway_address, limits_of(self._plan.graph))
            self._lifetime.push_async_callback(link.close)
            self._gateway = link.handler(GRAPH, self._plan.graph.name)
        except BaseException:
            await self._lifetime.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop the gateway, then the others. Calls in flight from `__call__` end as Unavailable."""
        await self._lifetime.aclose()

    @property
    def description(self) -> Description:
        """What the whole graph takes, gives and is made of."""
        return describe(self._plan)

    @property
    def root(self) -> Executor:
        """The whole graph, called without the gateway's own listener."""
        return self._root

    @property
    def counted(self) -> GraphHandler:
        """The same, with each call counted."""
        return self._counted

    async def __call__(self, request: Tensors, context: Context | None = None, /) -> Tensors:
        """Ask the gateway, through its listener as a caller from outside would.

        Raises:
            RequestError: Why it could not be answered.
        """
        return await self._gateway(request, context or Context())
