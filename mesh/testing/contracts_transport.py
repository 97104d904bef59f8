"""`check_transport`: everything that a mesh expects of a transport, tried on a real one.

The rules are the functions of `TRANSPORT_RULES`, each with its own name and docstring, so that a test suite can run and
report them one by one. Every rule opens its own listener and link, and closes them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from mesh.testing.transport_bench import TransportBench
from mesh.testing.transport_lives import LIFE_RULES
from mesh.testing.transport_messages import MESSAGE_RULES
from mesh.transports import Transport

__all__ = ["TRANSPORT_RULES", "TransportBench", "check_transport"]

TRANSPORT_RULES: Mapping[str, Callable[[TransportBench], Awaitable[None]]] = {
    rule.__name__.replace("_", " "): rule for rule in (*MESSAGE_RULES, *LIFE_RULES)
}
"""Every rule by its name."""


async def check_transport(make_transport: Callable[[], Transport], address_for: Callable[[str], str]) -> None:
    """Hold a transport against every rule; the first one broken is raised.

    Args:
        make_transport: Makes a transport. Listeners and links of one rule share one.
        address_for: An address to listen at, by a name that is another one each time. A TCP address may leave the port
            to the operating system.

    Raises:
        AssertionError: A rule is broken; names it.
    """
    for name, rule in TRANSPORT_RULES.items():
        await rule(TransportBench(name, make_transport(), address_for))
