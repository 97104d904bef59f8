"""Argument parsing, and what every command does about errors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version

from mesh.errors import RequestError, SetupError
from mesh.units import format_duration

__all__ = ["main"]

COMMANDS = ("up", "check", "graph", "call", "job", "batch", "load", "stats", "cache", "schema", "worker")
"""Modules of this package, in the order in which they are told of."""
EXIT_FAILED = 1
EXIT_SETUP = 2
EXIT_INTERRUPTED = 130
QUIET = {
    # gRPC's own log lines name sockets and tell nobody anything; the errors that are raised say it all.
    "GRPC_VERBOSITY": "NONE",
    # onnxruntime reports to its maker from 1.29 on, unless told not to: names of models, and where it runs.
    "ORT_DISABLE_TELEMETRY": "1",
}
"""What libraries are told by the environment, theirs and the workers'; whoever set it already knows better."""


def parser(command: str = "") -> argparse.ArgumentParser:
    """The command line: all of it, or with one command only, whose modules are then the only ones that are loaded.

    Every worker is a command, and half of what it would load else is for others.
    """
    made = argparse.ArgumentParser(
        prog="mesh",
        description="Serve machine-learning models as a graph of nodes, written in one topology file.",
        epilog="Exit status: 0 done, 1 a request or a worker failed, 2 something is set up wrongly, 130 interrupted.",
    )
    made.add_argument("--version", action="version", version=f"mesh {version('inference-mesh')}")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in [command] if command in COMMANDS else COMMANDS:
        import_module(f"mesh.cli.{name}").add(commands)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = sys.argv[1:] if argv is None else argv
    arguments = parser(given[0] if given else "").parse_args(given)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    command: Callable[[argparse.Namespace], int] = arguments.run
    try:
        code = command(arguments)
        # Here and not when Python exits, where nobody could catch what goes wrong.
        sys.stdout.flush()
    except SetupError as error:
        return _told(str(error), EXIT_SETUP)
    except RequestError as error:
        after_s: float = getattr(error, "retry_after_s", 0.0)
        hint = f"; try again after {format_duration(after_s)}" if after_s else ""
        return _told(f"{error.code}: {error}{hint}", EXIT_FAILED)
    except BrokenPipeError:
        # Whoever read our output has seen enough. What Python still holds of it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _told(f"{where}{error.strerror or error}", EXIT_SETUP)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def _told(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code
