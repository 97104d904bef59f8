"""`jobs:`: what it says goes together, and the files and folders that it names are there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path as FilePath

from mesh.errors import Problem
from mesh.topology.graph_jobs import GraphCallbacks, GraphJobs, GraphTls
from mesh.topology.source import Path, shown
from mesh.topology.spec import Topology
from mesh.topology.spec_jobs import JobsFile, TlsFile
from mesh.units import format_duration

__all__ = ["JOB_WORKER", "STORE", "check_jobs", "placed"]

JOB_WORKER = "jobs"
"""What job workers are called: `jobs-0`, `jobs-1` and so on."""
STORE = "nats-server"
"""What the mesh's own store is called."""
_TAKEN = re.compile(rf"{JOB_WORKER}(-\d+)?|{STORE}")
_ELSEWHERE = ("credentials", "tls", "replicas")


def check_jobs(topology: Topology, folder: FilePath, problems: list[Problem]) -> GraphJobs | None:
    """Look at the `jobs:` of a file; what is wrong is added to `problems`.

    Args:
        topology: What the file says.
        folder: Where it lies; what it names is relative to that.
        problems: Where mistakes are added.

    Returns:
        What it says; None where there is none.
    """
    return None if topology.jobs is None else _JobsCheck(topology, topology.jobs, folder, problems).run()


def placed(folder: FilePath, name: str) -> str:
    """The absolute path of a file that a topology in `folder` names."""
    try:
        return str((folder / name).resolve())
    except (OSError, RuntimeError):  # links in a circle, which whoever opens it will tell
        return str(folder / name)


class _JobsCheck:
    def __init__(self, topology: Topology, part: JobsFile, folder: FilePath, problems: list[Problem]) -> None:
        self._topology = topology
        self._part = part
        self._folder = folder
        self._problems = problems

    def run(self) -> GraphJobs:
        part = self._part
        self._store()
        self._names()
        if part.backoff.first > part.backoff.most:
            most = format_duration(part.backoff.most)
            self._wrong(("backoff", "first"), f"the first wait is longer than the longest, {most}")
        folder = part.folder or f".mesh/{self._topology.header.name}"
        self._folder_to_be(("folder",), folder)
        callbacks, batches = part.callbacks, part.batches
        if callbacks.key_file is not None:
            self._file(("callbacks", "key_file"), callbacks.key_file)
            if not callbacks.allow and not self._topology.doubts("jobs", "callbacks"):
                self._wrong(("callbacks", "key_file"), "a key, and nobody is told anything", "write callbacks.allow")
        self._folders_there(("batches", "inputs"), batches.inputs)
        for index, name in enumerate(batches.outputs):
            self._folder_to_be(("batches", "outputs", index), name)
        return self._made(folder)

    def _wrong(self, path: Path, text: str, hint: str = "", *, at_key: bool = False) -> None:
        self._problems.append(self._topology.source.problem(("jobs", *path), text, hint, at_key=at_key))

    def _store(self) -> None:
        part = self._part
        if isinstance(part.store, str):
            written: dict[str, object] = self._topology.source.value["jobs"]
            for key in _ELSEWHERE if not self._topology.doubts("jobs", "store") else ():
                if key in written and getattr(part, key) != JobsFile.model_fields[key].default:
                    text = f"{key!r} is for a store elsewhere, and this one is the mesh's own"
                    self._wrong((key,), text, "write store: [nats://host:4222], or take it out", at_key=True)
            return
        for index, address in enumerate(part.store):
            if address in part.store[:index]:
                self._wrong(("store", index), f"{shown(address)} comes twice")
        if part.credentials is not None:
            self._file(("credentials",), part.credentials)
        if part.tls is not None:
            self._tls(part.tls)

    def _tls(self, part: TlsFile) -> None:
        for key, name in (("ca", part.ca), ("cert", part.cert), ("key", part.key)):
            if name is not None:
                self._file(("tls", key), name)
        for key, other in (("cert", "key"), ("key", "cert")):
            if getattr(part, key) is not None and getattr(part, other) is None:
                self._wrong(("tls", key), f"{key!r} goes with {other!r}, which is missing")

    def _names(self) -> None:
        """No worker is called as a process of jobs will be; `processes` calls workers as the nodes are called."""
        topology = self._topology
        places: list[Path] = [("nodes", node) for node in topology.nodes]
        places += [("placements", place, name) for place, workers in topology.placements.items() for name in workers]
        for path in places:
            if _TAKEN.fullmatch(str(path[-1])):
                text = f"{path[-1]!r} is what a process for jobs is called"
                self._problems.append(topology.source.problem(path, text, "choose another name", at_key=True))

    # What is there.

    def _file(self, path: Path, name: str) -> None:
        found = self._looked_at(path, name)
        if found is not None and not found.is_file():
            what = "a folder" if found.is_dir() else "no file" if found.exists() else "not there"
            self._wrong(path, f"{shown(name)} is {what}")

    def _folders_there(self, path: Path, names: Iterable[str]) -> None:
        for index, name in enumerate(names):
            found = self._looked_at((*path, index), name)
            if found is not None and not found.is_dir():
                self._wrong((*path, index), f"{shown(name)} is {'no folder' if found.exists() else 'not there'}")

    def _folder_to_be(self, path: Path, name: str) -> None:
        """A folder that is made when it is needed: nothing else may be where it, or a folder on the way, will be."""
        found = self._looked_at(path, name)
        while found is not None and not found.is_dir():
            if found.exists():
                self._wrong(path, f"{shown(name)} cannot be made: {shown(found.name)} is no folder")
                return
            found = found.parent

    def _looked_at(self, path: Path, name: str) -> FilePath | None:
        try:
            found = (self._folder / name).resolve()
            found.exists()
        except (OSError, ValueError, RuntimeError) as error:
            why = (isinstance(error, OSError) and error.strerror) or "it is no path"
            self._wrong(path, f"{shown(name)} cannot be looked at: {why}")
            return None
        return found

    def _made(self, folder: str) -> GraphJobs:
        part = self._part
        return GraphJobs(
            servers=() if isinstance(part.store, str) else tuple(part.store),
            credentials=self._absolute(part.credentials),
            tls=None
            if part.tls is None
            else GraphTls(
                ca=self._absolute(part.tls.ca), cert=self._absolute(part.tls.cert), key=self._absolute(part.tls.key)
            ),
            replicas=part.replicas,
            folder=self._absolute(folder),
            payloads=part.payloads or "",
            workers=part.workers,
            concurrency=part.concurrency,
            lease_s=part.lease,
            attempts=part.attempts,
            backoff_first_s=part.backoff.first,
            backoff_most_s=part.backoff.most,
            ttl_s=part.ttl,
            dead_ttl_s=part.dead_letter.ttl,
            dead_max_bytes=part.dead_letter.max_bytes,
            max_queued=part.max_queued,
            max_queued_bytes=part.max_queued_bytes,
            max_payload_bytes=part.max_payload,
            callbacks=GraphCallbacks(
                allow=tuple(part.callbacks.allow),
                key_file=self._absolute(part.callbacks.key_file),
                attempts=part.callbacks.attempts,
                timeout_s=part.callbacks.timeout,
            ),
            batch_inputs=tuple(self._absolute(name) for name in part.batches.inputs),
            batch_outputs=tuple(self._absolute(name) for name in part.batches.outputs),
        )

    def _absolute(self, name: str | None) -> str:
        return placed(self._folder, name) if name else ""
