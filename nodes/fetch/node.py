"""`Fetch`: from references to bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Self

import numpy as np

from mesh import (
    Array,
    Context,
    DeadlineExceeded,
    Duration,
    InvalidInput,
    Preprocess,
    RequestError,
    SetupError,
    Signature,
    Size,
    Tensors,
    Unavailable,
    rows_failed,
)
from mesh.hosts import PORTS, AllowedHosts
from mesh.units import format_duration
from nodes.fetch.files import Roots
from nodes.fetch.intake import Allowance, Intake
from nodes.fetch.ordered import in_order
from nodes.fetch.references import FileReference, Reference, WebReference, reference_of
from nodes.fetch.settings import Bucket, Root
from nodes.threads import Threaded, check_threads

if TYPE_CHECKING:
    from nodes.fetch.objects import Objects
    from nodes.fetch.web import Web

__all__ = ["Fetch"]

_TENSOR = "reference"


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What there is from load to unload."""

    slots: asyncio.Semaphore
    web: Web | None
    objects: Objects | None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One thing to fetch, and the rows that it answers, the first one first."""

    reference: Reference
    rows: list[int]


class Fetch(Threaded, Preprocess):
    """One reference a row to the bytes it stands for. What is not allowed by an argument is refused.

    A request has one answer, so a row that cannot be had fails the request, with the error of the first such row, and
    names it: InvalidInput for what will not get better, Unavailable for what may (the server's 5xx, 408, 425 and 429,
    a connection that fails, no answer within `timeout`), DeadlineExceeded where the request's time ran out. All
    references are read before the first is fetched, and nothing is fetched beside one that failed; but where a layer
    has a use for the other rows (a cache, or a batch of several requests), they are fetched all the same. A reference
    that stands in several rows is fetched once.

    Args:
        roots: Folders that `file:` references may lead into. In a topology file a relative one counts from the model
            root.
        hosts: Who `http:` and `https:` references may name, and redirects lead to: `host`, `host:port` or
            `*.example.com`. Without a port, that of the scheme. Needs aiohttp (`pip install inference-mesh[fetch]`).
        buckets: Those that `s3:` references may name. Needs obstore (`pip install inference-mesh[s3]`).
        allow_private: Connect also to addresses that are not public: private, loopback, link-local, those of
            metadata services.
        max_redirects: Redirects followed from one reference, from 0 to 20.
        timeout: Seconds for one reference, with its redirects; the request's deadline bounds it further.
        max_bytes: The largest body, in bytes.
        max_total: The most that one call gives, in bytes, all rows together. The mesh carries no more on an edge than
            `limits: max_message` says.
        max_rows: The most references in one call.
        concurrency: Fetches at once, of all calls. Others wait in order.

    Raises:
        SetupError: An argument is out of range, nothing is allowed, or a package is not installed.
    """

    signature = Signature.parse("reference: BYTES[rows] -> data: BYTES[rows]")

    def __init__(
        self,
        *,
        roots: Sequence[Root] = (),
        hosts: Sequence[str] = (),
        buckets: Mapping[str, Bucket] | None = None,
        allow_private: bool = False,
        max_redirects: int = 5,
        timeout: Duration = 10.0,
        max_bytes: Size = 16 << 20,
        max_total: Size = 64 << 20,
        max_rows: int = 4096,
        concurrency: int = 16,
    ) -> None:
        for name, bound in (("max_bytes", max_bytes), ("max_total", max_total), ("max_rows", max_rows)):
            if bound < 1:
                raise SetupError(f"{name} is {bound}: it has to be at least 1")
        if not 0 <= max_redirects <= 20:
            raise SetupError(f"max_redirects is {max_redirects}: it has to be from 0 to 20")
        if not 0 < timeout <= 3600:
            raise SetupError(f"timeout is {timeout:g} seconds: it has to be above 0 and at most an hour")
        if not roots and not hosts and not buckets:
            raise SetupError("nothing is allowed: give roots, hosts or buckets")
        super().__init__(check_threads(concurrency, "concurrency"), "fetch")
        self._roots = Roots(roots, max_bytes) if roots else None
        self._hosts = AllowedHosts(hosts) if hosts else None
        self._buckets = dict(buckets or {})
        self._allow_private, self._max_redirects, self._timeout_s = allow_private, max_redirects, timeout
        self._max_bytes, self._max_total, self._max_rows = max_bytes, max_total, max_rows
        self._concurrency = concurrency
        self._loaded: _Loaded | None = None
        _check_installed(hosts=bool(hosts), buckets=bool(buckets))

    async def __aenter__(self) -> Self:
        """Load.

        Raises:
            SetupError: A root is missing, or a bucket's settings are wrong.
        """
        if self._roots is not None:
            self._roots.check()
        objects = self._objects()
        await super().__aenter__()
        self._loaded = _Loaded(asyncio.Semaphore(self._concurrency), self._web(), objects)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Unload."""
        loaded, self._loaded = self._loaded, None
        try:
            if loaded is not None and loaded.web is not None:
                await loaded.web.close()
        finally:
            await super().__aexit__(*exc_info)

    def _web(self) -> Web | None:
        if self._hosts is None:
            return None
        from nodes.fetch.web import Web

        return Web(
            self._hosts,
            allow_private=self._allow_private,
            max_redirects=self._max_redirects,
            connections=self._concurrency,
        )

    def _objects(self) -> Objects | None:
        if not self._buckets:
            return None
        from nodes.fetch.objects import Objects

        return Objects(self._buckets, self._timeout_s)

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        loaded = self._loaded
        if loaded is None:
            raise RuntimeError("the node is not loaded: use `async with node:`")
        references: list[bytes] = inputs[_TENSOR].tolist()
        if len(references) > self._max_rows:
            raise InvalidInput(f"{len(references)} rows; at most {self._max_rows} are taken at once", tensor=_TENSOR)
        wanted, errors = self._wanted(references)
        if errors and not context.partial:
            raise errors[min(errors)]
        allowance = Allowance(self._max_total, _TENSOR)

        async def fetch(one: _Wanted) -> bytes | RequestError:
            try:
                return await self._fetch(loaded, one, allowance, context)
            except RequestError as error:
                if error.row is None or not context.partial:
                    raise
                return error

        bodies = await context.run(in_order(fetch, wanted, self._concurrency))
        found: dict[int, bytes] = {}
        for one, body in zip(wanted, bodies, strict=True):
            if isinstance(body, RequestError):
                errors.update(dict.fromkeys(one.rows, body))
            else:
                found.update(dict.fromkeys(one.rows, body))
        rows = sorted(found)
        data = Tensors({"data": _bytes_of([found[row] for row in rows])})
        if errors:
            raise rows_failed(errors, rows, data, context)
        return data

    def _wanted(self, references: list[bytes]) -> tuple[list[_Wanted], dict[int, RequestError]]:
        """What to fetch, and by row why something is not."""
        rows: dict[Reference, list[int]] = {}
        errors: dict[int, RequestError] = {}
        for row, data in enumerate(references):
            try:
                reference = reference_of(data)
                self._check_allowed(reference)
            except InvalidInput as error:
                errors[row] = _of_row(error, row)
            else:
                rows.setdefault(reference, []).append(row)
        return [_Wanted(reference, of) for reference, of in rows.items()], errors

    def _check_allowed(self, reference: Reference) -> None:
        if isinstance(reference, FileReference):
            if self._roots is None:
                raise InvalidInput("references of file: are not taken")
        elif isinstance(reference, WebReference):
            if self._hosts is None:
                raise InvalidInput(f"references of {reference.scheme}: are not taken")
            if not self._hosts.allow(reference.host, reference.port, PORTS[reference.scheme]):
                raise InvalidInput(f"{reference}: the host is not allowed")
        elif reference.bucket not in self._buckets:
            raise InvalidInput(f"{reference}: the bucket is not allowed")

    async def _fetch(self, loaded: _Loaded, wanted: _Wanted, allowance: Allowance, context: Context) -> bytes:
        reference, row = wanted.reference, wanted.rows[0]
        intake = Intake(self._max_bytes, allowance, len(wanted.rows))
        async with loaded.slots:
            limited = context.within(self._timeout_s)
            try:
                return await limited.run(self._body(loaded, reference, intake))
            except DeadlineExceeded as error:
                if limited is context:
                    raise
                late = Unavailable(f"{reference}: no answer within {format_duration(self._timeout_s)}")
                raise _of_row(late, row) from error
            except (InvalidInput, Unavailable) as error:
                raise _of_row(error, row, reference) from error.__cause__

    async def _body(self, loaded: _Loaded, reference: Reference, intake: Intake) -> bytes:
        if isinstance(reference, WebReference):
            assert loaded.web is not None  # `_check_allowed` let it through
            return await loaded.web.get(reference, intake)
        if isinstance(reference, FileReference):
            roots = self._roots
            assert roots is not None
            intake.add(await self.in_thread(lambda: roots.read(reference)))
            return intake.body()
        assert loaded.objects is not None
        return await loaded.objects.get(reference, intake)


def _check_installed(*, hosts: bool, buckets: bool) -> None:
    for argument, given, package, extra in (
        ("hosts", hosts, "aiohttp", "fetch"),
        ("buckets", buckets, "obstore", "s3"),
    ):
        try:
            if given:
                import_module(package)
        except ImportError as error:
            raise SetupError(f"{argument} needs {package}: pip install 'inference-mesh[{extra}]'") from error


def _bytes_of(bodies: Sequence[bytes]) -> Array:
    data = np.empty(len(bodies), object)
    data[:] = bodies
    return data


def _of_row(error: InvalidInput | Unavailable, row: int, reference: Reference | None = None) -> RequestError:
    """The same error, naming tensor and row, and the reference where it has not been named.

    One that names the tensor already is of all rows together.
    """
    if error.tensor:
        return error
    text = f"{reference}: {error.text}" if reference is not None else error.text
    text = f"tensor {_TENSOR!r}: {text}"
    if isinstance(error, Unavailable):
        return Unavailable(text, tensor=_TENSOR, row=row, retry_after_s=error.retry_after_s)
    return InvalidInput(text, tensor=_TENSOR, row=row)
