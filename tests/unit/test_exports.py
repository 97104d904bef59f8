"""Every package says what is public, and importing one does nothing else."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mesh

MODULES = sorted(
    {
        "mesh",
        *(
            found.name
            for found in pkgutil.walk_packages(mesh.__path__, "mesh.")
            if not found.name.startswith("mesh.v1") and not found.name.endswith("__main__")
        ),
    }
)
PACKAGES = [name for name in MODULES if hasattr(importlib.import_module(name), "__path__")]


def _sorted(names: list[str]) -> list[str]:
    """Constants, classes, the rest, each by the alphabet: the order that ruff keeps."""

    def rank(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)

    return sorted(names, key=rank)


@pytest.mark.parametrize("name", MODULES)
def test_public_names_exist_once_each_in_their_order(name: str) -> None:
    module = importlib.import_module(name)
    public: list[str] = getattr(module, "__all__", [])
    assert public == _sorted(list(dict.fromkeys(public)))
    assert [name for name in public if not hasattr(module, name)] == []


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_offer_everything_that_they_import_from_inside(name: str) -> None:
    package = importlib.import_module(name)
    offered: list[str] = []
    for statement in ast.parse(inspect.getsource(package)).body:
        match statement:
            case ast.ImportFrom(module=str(module), names=imported) if module.partition(".")[0] == "mesh":
                offered += [alias.asname or alias.name for alias in imported]
            case ast.Assign(targets=[ast.Name(id=one)]) | ast.AnnAssign(target=ast.Name(id=one)):
                offered.append(one)
            case ast.FunctionDef(name=one) | ast.AsyncFunctionDef(name=one) | ast.ClassDef(name=one):
                offered.append(one)
            case _:
                pass
    assert _sorted([one for one in offered if not one.startswith("_")]) == list(getattr(package, "__all__", []))


_AUDIT = """
import os, sys, importlib, socket, threading, asyncio, numpy, grpc, google.protobuf, pydantic, rich

seen = []

class Watched(dict):
    "The environment: notes what this package reads of it. Others may read what they like."
    def _note(self, key):
        code = sys._getframe(2).f_code
        if os.path.join(os.sep, "mesh", "") in code.co_filename:
            seen.append(f"{key} in {code.co_filename}")
    def __getitem__(self, key):
        self._note(key)
        return dict.__getitem__(self, key)
    def __contains__(self, key):
        self._note(key)
        return dict.__contains__(self, key)
    def get(self, key, default=None):
        self._note(key)
        return dict.get(self, key, default)

def audit(event, args):
    if event.startswith(("socket.", "subprocess.")):
        seen.append(event)

os.environ = Watched(os.environ)
os.getenv = os.environ.get
sys.addaudithook(audit)
threads = []
threading.setprofile(lambda *_: threads.append("a thread") if not threads else None)
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(name)
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join()
print(seen + threads)
"""


def _seen_on_import(folder: Path, *modules: str) -> str:
    command = [sys.executable, "-c", _AUDIT, str(folder), *modules]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_importing_every_module_opens_no_socket_starts_no_thread_and_reads_no_environment() -> None:
    assert _seen_on_import(Path(mesh.__path__[0]).parent, *MODULES) == "[]"


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("import socket; socket.socket().close()", "socket.__new__"),
        ("import threading; threading.Thread(target=print).start()", "a thread"),
        ("import os; os.environ.get('HOME')", "HOME"),
        ("import os; os.getenv('HOME')", "HOME"),
        ("import os; 'HOME' in os.environ and os.environ['HOME']", "HOME"),
    ],
)
def test_the_check_of_imports_sees_what_it_is_there_for(line: str, seen: str, tmp_path: Path) -> None:
    (tmp_path / "mesh").mkdir()
    (tmp_path / "mesh" / "__init__.py").touch()
    (tmp_path / "mesh" / "bad.py").write_text(line)
    assert seen in _seen_on_import(tmp_path, "mesh.bad")
