"""What a cache node is asked and answers, to `mesh.v1` messages and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from google.protobuf.message import Message

from mesh.errors import InvalidInput
from mesh.keeping import CacheAnswer, CacheCall, CacheEntry, CacheUse
from mesh.transports.codec import decode_tensors, duration, encode_tensors, seconds
from mesh.v1 import cache_service_pb2

__all__ = ["CACHE_VERBS", "Verb", "decode_answer", "decode_call", "encode_answer", "encode_call"]

_LONGEST_S = 10 * 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class Verb:
    """One method of CacheService."""

    method: str
    request: type[Message]
    response: type[Message]


CACHE_VERBS: Mapping[str, Verb] = {
    "get": Verb("Get", cache_service_pb2.GetRequest, cache_service_pb2.GetResponse),
    "put": Verb("Put", cache_service_pb2.PutRequest, cache_service_pb2.PutResponse),
    "delete": Verb("Delete", cache_service_pb2.DeleteRequest, cache_service_pb2.DeleteResponse),
    "clear": Verb("Clear", cache_service_pb2.ClearRequest, cache_service_pb2.ClearResponse),
    "stats": Verb("Stats", cache_service_pb2.StatsRequest, cache_service_pb2.StatsResponse),
    "prefetch": Verb("Prefetch", cache_service_pb2.PrefetchRequest, cache_service_pb2.PrefetchResponse),
}
"""Verb of a `CacheCall` -> method."""


def encode_call(call: CacheCall) -> Message:
    """A call as the message of its method."""
    namespace = call.namespace or ""
    whose: dict[str, Any] = {"node": call.node, "version": call.version, "namespace": namespace, "own": call.own}
    match call.verb:
        case "get":
            return cache_service_pb2.GetRequest(cache=call.cache, keys=call.keys, namespace=namespace)
        case "put":
            entries = [
                cache_service_pb2.PutEntry(key=one.key, value=one.value, time_to_live=_lasting(one.ttl_s))
                for one in call.entries
            ]
            return cache_service_pb2.PutRequest(cache=call.cache, entries=entries, namespace=namespace)
        case "delete":
            return cache_service_pb2.DeleteRequest(cache=call.cache, keys=call.keys, **whose)
        case "clear":
            return cache_service_pb2.ClearRequest(cache=call.cache, **whose)
        case "stats":
            return cache_service_pb2.StatsRequest(cache=call.cache, **whose)
        case "prefetch":
            return cache_service_pb2.PrefetchRequest(node=call.node, inputs=encode_tensors(call.inputs))


def decode_call(verb: Literal["get", "put", "delete", "clear", "stats", "prefetch"], message: Any) -> CacheCall:
    """The same, back.

    Raises:
        InvalidInput: Tensors that cannot be read.
    """
    if verb == "prefetch":
        return CacheCall(verb=verb, node=message.node, inputs=decode_tensors(message.inputs))
    common: dict[str, Any] = {"cache": message.cache, "namespace": message.namespace or None}
    if verb == "get":
        return CacheCall(verb=verb, keys=tuple(message.keys), **common)
    if verb == "put":
        entries = tuple(CacheEntry(one.key, one.value, _left(one)) for one in message.entries)
        return CacheCall(verb=verb, entries=entries, **common)
    common |= {"node": message.node, "version": message.version, "own": message.own}
    return CacheCall(verb=verb, keys=tuple(message.keys) if verb == "delete" else (), **common)


def encode_answer(verb: str, answer: CacheAnswer) -> Message:
    """An answer as the message of its method."""
    if verb == "get":
        return cache_service_pb2.GetResponse(
            entries=[
                cache_service_pb2.CacheEntry(index=index, value=entry.value, time_to_live=_lasting(entry.ttl_s))
                for index, entry in enumerate(answer.entries)
                if entry is not None
            ]
        )
    if verb == "stats":
        use = answer.use
        return cache_service_pb2.StatsResponse(
            hits=use.hits,
            misses=use.misses,
            entries=use.entries or 0,
            bytes=use.nbytes or 0,
            max_bytes=use.max_bytes or 0,
            evictions=use.evictions,
            expirations=use.expirations,
            kept=use.kept,
            failures=use.failures,
            backend=use.backend,
            measured=use.entries is not None,
        )
    counted: Mapping[str, Callable[[int], Message]] = {
        "put": lambda count: cache_service_pb2.PutResponse(stored=count),
        "delete": lambda count: cache_service_pb2.DeleteResponse(deleted=count),
        "clear": lambda count: cache_service_pb2.ClearResponse(cleared=count),
        "prefetch": lambda count: cache_service_pb2.PrefetchResponse(rows=count),
    }
    return counted[verb](answer.count)


def decode_answer(call: CacheCall, message: Any) -> CacheAnswer:
    """The same, back, as the answer to a call.

    Raises:
        InvalidInput: It is none.
    """
    match call.verb:
        case "get":
            entries: list[CacheEntry | None] = [None] * len(call.keys)
            for one in message.entries:
                if not 0 <= one.index < len(entries):
                    raise InvalidInput("the cache answered keys that it was not asked for")
                entries[one.index] = CacheEntry(call.keys[one.index], one.value, _left(one))
            return CacheAnswer(entries=tuple(entries))
        case "put":
            return CacheAnswer(count=message.stored)
        case "delete":
            return CacheAnswer(count=message.deleted)
        case "clear":
            return CacheAnswer(count=message.cleared)
        case "prefetch":
            return CacheAnswer(count=message.rows)
        case "stats":
            use = CacheUse(
                backend=message.backend,
                hits=message.hits,
                misses=message.misses,
                kept=message.kept,
                evictions=message.evictions,
                expirations=message.expirations,
                failures=message.failures,
                entries=message.entries if message.measured else None,
                nbytes=message.bytes if message.measured else None,
                max_bytes=message.max_bytes or None,
            )
            return CacheAnswer(use=use)


def _lasting(ttl_s: float | None) -> Any:
    # Written so that a NaN becomes 0.
    return None if ttl_s is None else duration(min(ttl_s, _LONGEST_S) if ttl_s > 0 else 0.0)


def _left(message: Any) -> float | None:
    return seconds(message.time_to_live) if message.HasField("time_to_live") else None
