"""What is known of the models, in two files.

`MODELS.json`: digest, size, licence, source and measured figures of every file that a script here has made.
`MEASURED.json`: how good models are together, as the measure_*.py found it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fetch import write_atomically

if TYPE_CHECKING:
    from onnx import ModelProto

FOLDER = Path(__file__).resolve().parent
MANIFEST = FOLDER / "MODELS.json"
MEASURED = FOLDER / "MEASURED.json"


@dataclass(frozen=True, kw_only=True)
class Made:
    """One file to keep, and what is known of it."""

    name: str
    data: bytes
    made_by: str
    licence: str
    source: str
    measured: Mapping[str, float | int | str] = field(default_factory=dict)


def serialize(model: ModelProto) -> bytes:
    """The bytes of a model: the same for the same model."""
    # skl2onnx walks a set of domains, whose order changes from run to run.
    model.opset_import.sort(key=lambda opset: opset.domain)
    return model.SerializeToString(deterministic=True)


def keep(files: list[Made], folder: Path = FOLDER) -> None:
    """Write the files and their entries; entries of other scripts stay as they are."""
    manifest = folder / MANIFEST.name
    entries: dict[str, object] = json.loads(manifest.read_text()) if manifest.exists() else {}
    for made in files:
        write_atomically(folder / made.name, made.data)
        digest = hashlib.sha256(made.data).hexdigest()
        changed = entries.get(made.name, {}).get("sha256") != digest
        entries[made.name] = {
            "sha256": digest,
            "bytes": len(made.data),
            "made_by": made.made_by,
            "licence": made.licence,
            "source": made.source,
            "measured": dict(made.measured),
        }
        print(f"{made.name:26} {len(made.data):>8} bytes  {'changed' if changed else 'same'}  {dict(made.measured)}")
    write_atomically(manifest, (json.dumps(dict(sorted(entries.items())), indent=2) + "\n").encode())


def record(subject: str, found: Mapping[str, object], path: Path = MEASURED) -> None:
    """Print what was measured, and keep it; what was found of other subjects stays."""
    print(json.dumps(found, indent=2))
    known: dict[str, object] = json.loads(path.read_text()) if path.exists() else {}
    known[subject] = found
    write_atomically(path, (json.dumps(dict(sorted(known.items())), indent=2) + "\n").encode())
