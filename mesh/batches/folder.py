"""`OutputFolder`: where the results of a batch lie, and how far it is.

    parts/part-00000.parquet   the rows of a shard: there as a whole once it is written, and never changed again
    errors.parquet             the rows that failed, of all shards
    manifest.json              what was run over what, and which rows are where: written last
    .mesh/                     while it is not done: the plan, and the errors of each shard

Several workers may have the same shard (one was thought dead): the first to link its part to the part's name has
written it. The errors of a shard lie in a file that its part names, so both become visible at once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mesh.batches.durable import force, give_name, replace_file, unique, write_new
from mesh.batches.inputs import Marks
from mesh.batches.plan import BatchPlan
from mesh.errors import SetupError

__all__ = ["OutputFolder"]

_PART = re.compile(r"part-(\d{5,9})\.parquet")


class OutputFolder:
    """The folder of one batch.

    Args:
        root: Where.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.parts = root / "parts"
        self.work = root / ".mesh"
        self.writing = self.work / "writing"
        """Where files are written before they have a name."""
        self.errors = self.work / "errors"
        """The errors of each shard."""
        self.manifest_path = root / "manifest.json"
        self.errors_path = root / "errors.parquet"

    def part(self, number: int) -> Path:
        """The results of a shard."""
        return self.parts / f"part-{number:05d}.parquet"

    def check(self, source: Path, *, resume: bool) -> None:
        """See that results can be written here.

        Args:
            source: The input.
            resume: Whether what is here may be that of the same batch.

        Raises:
            SetupError: It is no folder, something is in it, it cannot be written to, or input and output lie in one
                another.
        """
        here, there = self.root.resolve(), source.resolve()
        if here == there or there in here.parents or here in there.parents:
            raise SetupError(f"output {self.root}: the input lies in it, or it lies in the input")
        if self.root.exists() and not self.root.is_dir():
            raise SetupError(f"output {self.root}: it is a file, where a folder is needed")
        try:
            found = sorted(os.listdir(self.root)) if self.root.exists() else []
        except OSError as error:
            raise SetupError(f"output {self.root}: {error.strerror or error}") from None
        ours = resume and (found == [".mesh"] or self.plan() is not None or self.manifest() is not None)
        if found and not ours:
            hint = "resume it, or name another folder" if ".mesh" in found or "manifest.json" in found else ""
            other = f"it is not empty: there is {found[0]} in it"
            raise SetupError(f"output {self.root}: {other}{f' ({hint})' if hint else ''}")

    def begin(self, plan: BatchPlan, marks: Marks | None) -> BatchPlan:
        """Write the plan down, unless one is there.

        Returns:
            The plan that is there now: whoever comes second gets the one of the first.

        Raises:
            SetupError: The folder cannot be written to, or has no hard links.
        """
        try:
            for folder in (self.root, self.parts, self.work, self.writing, self.errors):
                folder.mkdir(parents=True, exist_ok=True)
            self._probe()
            if marks is not None:
                with (self.writing / unique("marks.npy")).open("xb") as file:
                    np.save(file, marks)
                    file.flush()
                    os.fsync(file.fileno())
                Path(file.name).replace(self.work / f"marks-{plan.digest}.npy")
            force(self.work)
            force(self.root)
            write_new(self.work / "plan.json", json.dumps(plan.to_json(), indent=1).encode())
            force(self.root.parent)
        except OSError as error:
            raise SetupError(f"output {self.root}: {error.strerror or error}") from None
        written = self.plan()
        if written is None:
            raise SetupError(f"output {self.root}: the plan was taken away as soon as it was written")
        return written

    def _probe(self) -> None:
        probe, link = self.writing / unique("probe"), self.writing / unique("linked")
        probe.touch()
        give_name(probe, link)
        link.unlink()

    def plan(self) -> BatchPlan | None:
        """The plan of the batch that is being written here, if any.

        Raises:
            SetupError: What is there is no plan.
        """
        path = self.work / "plan.json"
        try:
            return BatchPlan.from_json(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SetupError(f"output {self.root}: its plan cannot be read: {error}") from None

    def marks(self, plan: BatchPlan) -> Marks | None:
        """What opening the input of a plan goes by, where it is kept."""
        try:
            found: Marks = np.load(self.work / f"marks-{plan.digest}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return found

    def committed(self) -> set[int]:
        """The shards that are written."""
        try:
            found = [_PART.fullmatch(name) for name in os.listdir(self.parts)]
        except FileNotFoundError:
            return set()
        return {int(one[1]) for one in found if one is not None}

    def manifest(self) -> dict[str, Any] | None:
        """What is told of the batch once it is done; None before. Raises SetupError where it cannot be read."""
        try:
            found: dict[str, Any] = json.loads(self.manifest_path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise SetupError(f"output {self.root}: its manifest cannot be read: {error}") from None
        return found

    def finish(self, manifest: dict[str, Any]) -> None:
        """The batch is done: the manifest appears, and what was needed on the way goes. Raises OSError."""
        replace_file(self.manifest_path, json.dumps(manifest, indent=1).encode())
        self.clean()

    def clean(self) -> None:
        """Take away what was needed on the way."""
        shutil.rmtree(self.work, ignore_errors=True)
