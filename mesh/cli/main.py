"""Argument parsing, and what every command does about errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from mesh.cli import call, check, graph, load, schema, up, worker
from mesh.errors import RequestError, SetupError

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_SETUP = 2
EXIT_INTERRUPTED = 130


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    made = argparse.ArgumentParser(
        prog="mesh",
        description="Serve machine-learning models as a graph of nodes, written in one topology file.",
        epilog="Exit status: 0 done, 1 a request or a worker failed, 2 something is set up wrongly.",
    )
    made.add_argument("--version", action="version", version=f"mesh {version('inference-mesh')}")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (up, check, graph, call, load, schema, worker):
        module.add(commands)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return command(arguments)
    except SetupError as error:
        print(error, file=sys.stderr)
        return EXIT_SETUP
    except RequestError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more when it flushes at exit.
        sys.stderr.close()
        return EXIT_FAILED
