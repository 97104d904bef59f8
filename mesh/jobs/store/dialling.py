"""Clients of nats-py: made, connected within a time, and let go of within one."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from mesh.errors import SetupError, Unavailable
from mesh.jobs.store.settings import StoreSettings, StoreTls

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.subscription import Subscription

__all__ = ["MAX_TEXT", "dial", "hang_up", "new_client", "shown", "unsubscribe"]

log = logging.getLogger("mesh.jobs")

MAX_TEXT = 200
"""Of what a server says is wrong."""
_RECONNECT_S = 0.2
"""Between two attempts to reach the same server."""
_CONNECT_S = 2.0
_PING_S = 5
_PINGS = 2
"""Without an answer: then the server is taken for gone."""
_PENDING_BYTES = 16 << 20
"""Of commands that were not written yet; whoever writes more waits."""
_CLOSE_S = 2.0

Callback = Callable[[], Coroutine[Any, Any, None]]


def shown(servers: tuple[str, ...]) -> str:
    """Addresses without who we are to them."""
    parts = [server.partition("://") for server in servers]
    return ", ".join(f"{scheme}{colon}{rest.rpartition('@')[2]}" for scheme, colon, rest in parts)


def new_client() -> Client:
    """A client that is not connected.

    Raises:
        SetupError: nats-py is not installed.
    """
    try:
        from nats.aio.client import Client
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "nats":
            raise
        raise SetupError("jobs need nats-py: pip install 'inference-mesh[nats]'") from error
    return Client()


async def dial(
    client: Client,
    settings: StoreSettings,
    timeout_s: float,
    *,
    lost: Callback,
    back: Callback,
    closed: Callback,
) -> None:
    """Connect a client. From then on it connects again by itself, for as long as nobody refuses it.

    Args:
        client: What `new_client` made.
        settings: Where the servers are, and who we are to them.
        timeout_s: How long it may take.
        lost: Called when the connection is lost.
        back: Called when it is there again, with all subscriptions.
        closed: Called when the client has given up.

    Raises:
        Unavailable: No server answers in time.
        SetupError: It refuses us, or a file is not readable.
    """
    from nats import errors

    address = shown(settings.servers)
    failed: list[BaseException] = []
    connecting = True

    async def errored(error: Exception) -> None:
        failed[:] = [error]
        log.debug("store at %s: %s %.*s", address, type(error).__name__, MAX_TEXT, error)
        if connecting and isinstance(refused := _refused(address, error), SetupError):
            raise refused  # which ends `connect`: it would try until its time is over

    async def disconnected() -> None:
        _forget_unsent(client)
        await lost()

    options = _options(settings)
    try:
        async with asyncio.timeout(timeout_s):
            await client.connect(
                list(settings.servers),
                error_cb=errored,
                disconnected_cb=disconnected,
                reconnected_cb=back,
                closed_cb=closed,
                **options,
            )
        connecting = False
    except ModuleNotFoundError as error:
        raise SetupError(f"credentials files need {error.name}: pip install {error.name}") from error
    except (TimeoutError, OSError, ValueError, errors.Error) as error:
        await hang_up(client)
        raise _refused(address, failed[0] if failed else error) from None
    except BaseException:
        await hang_up(client)
        raise


def _forget_unsent(client: Any) -> None:
    """Drop what was not written when the connection was lost.

    nats-py 2.16 would write it to the next one. A request for work would so be answered to whoever asked for it in
    vain, and the work be nobody's for a whole lease. What is listened to is not lost: it is asked for anew.
    """
    client._pending.clear()
    client._pending_data_size = 0


def _refused(address: str, error: BaseException) -> Unavailable | SetupError:
    text = f"{error!s:.{MAX_TEXT}}"
    if "authorization" in text.lower() or "authentication" in text.lower():
        return SetupError(f"the store at {address} refuses us: look at its user and password, or its credentials")
    if isinstance(error, ssl.SSLError):
        return SetupError(f"the store at {address}: TLS: {text}")
    return Unavailable(f"the store at {address} cannot be reached")


def _options(settings: StoreSettings) -> Any:
    options: dict[str, Any] = {
        "name": f"mesh {settings.graph}",
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": _RECONNECT_S,
        "connect_timeout": min(_CONNECT_S, settings.timeout_s),
        "ping_interval": _PING_S,
        "max_outstanding_pings": _PINGS,
        "pending_size": _PENDING_BYTES,
    }
    if settings.credentials:
        options["user_credentials"] = settings.credentials
    elif settings.user:
        options |= {"user": settings.user, "password": settings.password}
    if settings.tls is not None or any(server.startswith("tls://") for server in settings.servers):
        options["tls"] = _context(settings.tls or StoreTls())
    return options


def _context(tls: StoreTls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key or None)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(f"the TLS files of the store: {error}") from None
    return context


async def hang_up(client: Client) -> None:
    """Close a client, as far as it can be: on a server that takes no more bytes it would wait for ever."""
    try:
        async with asyncio.timeout(_CLOSE_S):
            await client.close()
    except Exception as error:
        log.debug("closing the connection to the store: %s", type(error).__name__)


async def unsubscribe(subscription: Subscription) -> None:
    """End a subscription, whatever its connection is like."""
    try:
        await subscription.unsubscribe()
    except Exception as error:  # it is closed, or its connection is: then it has ended
        log.debug("no more listening: %s", type(error).__name__)
