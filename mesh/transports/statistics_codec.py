"""What Stats tells, to `mesh.v1` messages and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mesh.transports.codec import duration, seconds
from mesh.transports.statistics import (
    BUCKETS,
    ArmStatistics,
    BranchStatistics,
    CachedStatistics,
    CacheStatistics,
    GraphStatistics,
    MissingWorker,
    NodeStatistics,
    ShadowStatistics,
    Statistics,
    WorkerTold,
)
from mesh.transports.status import decode_error, encode_error
from mesh.v1 import graph_service_pb2, stats_pb2

__all__ = ["decode_statistics", "encode_statistics"]


def encode_statistics(told: Statistics) -> graph_service_pb2.GraphServiceStatsResponse:
    """Statistics as a message."""
    return graph_service_pb2.GraphServiceStatsResponse(
        graph=told.graph,
        graphs=map(_encode_graph, told.graphs),
        nodes=map(_encode_node, told.nodes),
        branches=map(_encode_branch, told.branches),
        shadows=(
            stats_pb2.ShadowStats(
                node=one.node,
                target=one.target,
                rows_alike=one.rows_alike,
                rows_unlike=one.rows_unlike,
                failed=one.failed,
                dropped=one.dropped,
            )
            for one in told.shadows
        ),
        arms=(stats_pb2.ArmStats(split=one.split, node=one.node, rows=one.rows) for one in told.arms),
        workers=(
            stats_pb2.WorkerStats(worker=one.worker, pid=one.pid, counting=duration(one.counting_s))
            for one in told.workers
        ),
        missing=(
            stats_pb2.MissingStats(worker=one.worker, replica=one.replica, error=encode_error(one.error))
            for one in told.missing
        ),
        cached=map(_encode_cached, told.cached),
        caches=map(_encode_cache, told.caches),
    )


def decode_statistics(message: graph_service_pb2.GraphServiceStatsResponse) -> Statistics:
    """The same, back."""
    return Statistics(
        graph=message.graph,
        graphs=tuple(map(_decode_graph, message.graphs)),
        nodes=tuple(map(_decode_node, message.nodes)),
        branches=tuple(map(_decode_branch, message.branches)),
        shadows=tuple(
            ShadowStatistics(
                node=one.node,
                target=one.target,
                rows_alike=one.rows_alike,
                rows_unlike=one.rows_unlike,
                failed=one.failed,
                dropped=one.dropped,
            )
            for one in message.shadows
        ),
        arms=tuple(ArmStatistics(split=one.split, node=one.node, rows=one.rows) for one in message.arms),
        workers=tuple(WorkerTold(one.worker, one.pid, seconds(one.counting)) for one in message.workers),
        missing=tuple(MissingWorker(one.worker, one.replica, decode_error(one.error)) for one in message.missing),
        cached=tuple(map(_decode_cached, message.cached)),
        caches=tuple(map(_decode_cache, message.caches)),
    )


def _encode_node(told: NodeStatistics) -> stats_pb2.NodeStats:
    # The last bucket has no bound.
    bounds = (*BUCKETS, None)
    return stats_pb2.NodeStats(
        node=told.node,
        requests=told.requests,
        rows=told.rows,
        rows_skipped=told.rows_skipped,
        in_flight=told.in_flight,
        errors=_encode_errors(told.errors),
        elapsed=duration(told.elapsed_s),
        queue=duration(told.queue_s),
        compute=duration(told.compute_s),
        wire=duration(told.wire_s),
        batches=told.batches,
        batch_rows=(
            stats_pb2.BatchBucket(max_rows=bound, batches=batches)
            for bound, batches in zip(bounds, told.batch_rows, strict=False)
        ),
    )


def _decode_node(message: stats_pb2.NodeStats) -> NodeStatistics:
    return NodeStatistics(
        node=message.node,
        requests=message.requests,
        rows=message.rows,
        rows_skipped=message.rows_skipped,
        in_flight=message.in_flight,
        errors=_decode_errors(message.errors),
        elapsed_s=seconds(message.elapsed),
        queue_s=seconds(message.queue),
        compute_s=seconds(message.compute),
        wire_s=seconds(message.wire),
        batches=message.batches,
        batch_rows=tuple(bucket.batches for bucket in message.batch_rows),
    )


def _encode_graph(told: GraphStatistics) -> stats_pb2.GraphStats:
    return stats_pb2.GraphStats(
        graph=told.graph,
        requests=told.requests,
        rows=told.rows,
        in_flight=told.in_flight,
        errors=_encode_errors(told.errors),
        elapsed=duration(told.elapsed_s),
    )


def _decode_graph(message: stats_pb2.GraphStats) -> GraphStatistics:
    return GraphStatistics(
        graph=message.graph,
        requests=message.requests,
        rows=message.rows,
        in_flight=message.in_flight,
        errors=_decode_errors(message.errors),
        elapsed_s=seconds(message.elapsed),
    )


def _encode_branch(told: BranchStatistics) -> stats_pb2.BranchStats:
    return stats_pb2.BranchStats(
        node=told.node,
        branch=told.branch,
        answered=told.answered,
        failed=told.failed,
        late=told.late,
        without_rows=told.without_rows,
        behind=duration(told.behind_s),
        max_behind=duration(told.max_behind_s),
    )


def _decode_branch(message: stats_pb2.BranchStats) -> BranchStatistics:
    return BranchStatistics(
        node=message.node,
        branch=message.branch,
        answered=message.answered,
        failed=message.failed,
        late=message.late,
        without_rows=message.without_rows,
        behind_s=seconds(message.behind),
        max_behind_s=seconds(message.max_behind),
    )


def _encode_cached(told: CachedStatistics) -> stats_pb2.CachedStats:
    return stats_pb2.CachedStats(
        node=told.node,
        cache=told.cache,
        hits=told.hits,
        misses=told.misses,
        coalesced=told.coalesced,
        stale=told.stale,
        negative=told.negative,
        refreshes=told.refreshes,
        broken=told.broken,
        recomputed=told.recomputed,
        saved=duration(told.saved_s),
    )


def _decode_cached(message: stats_pb2.CachedStats) -> CachedStatistics:
    return CachedStatistics(
        node=message.node,
        cache=message.cache,
        hits=message.hits,
        misses=message.misses,
        coalesced=message.coalesced,
        stale=message.stale,
        negative=message.negative,
        refreshes=message.refreshes,
        broken=message.broken,
        recomputed=message.recomputed,
        saved_s=seconds(message.saved),
    )


def _encode_cache(told: CacheStatistics) -> stats_pb2.CacheStats:
    return stats_pb2.CacheStats(
        cache=told.cache,
        backend=told.backend,
        holder=told.holder,
        hits=told.hits,
        misses=told.misses,
        kept=told.kept,
        evictions=told.evictions,
        expirations=told.expirations,
        failures=told.failures,
        entries=told.entries,
        bytes=told.nbytes,
        max_bytes=told.max_bytes,
        tier=told.tier,
    )


def _decode_cache(message: stats_pb2.CacheStats) -> CacheStatistics:
    return CacheStatistics(
        cache=message.cache,
        backend=message.backend,
        holder=message.holder,
        hits=message.hits,
        misses=message.misses,
        kept=message.kept,
        evictions=message.evictions,
        expirations=message.expirations,
        failures=message.failures,
        entries=message.entries if message.HasField("entries") else None,
        nbytes=message.bytes if message.HasField("bytes") else None,
        max_bytes=message.max_bytes if message.HasField("max_bytes") else None,
        tier=message.tier,
    )


def _encode_errors(errors: Mapping[str, int]) -> list[stats_pb2.ErrorCount]:
    return [stats_pb2.ErrorCount(code=code, count=count) for code, count in sorted(errors.items())]


def _decode_errors(messages: Iterable[stats_pb2.ErrorCount]) -> dict[str, int]:
    return {message.code: message.count for message in messages}
