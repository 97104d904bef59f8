"""Fail where a file asks for a split: over 400 lines, or a function over 70 (as TigerBeetle's TIGER_STYLE has it)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70


def oversized(path: Path) -> list[str]:
    """What is too long in one file. Tests may be longer files: a table of cases is read one case at a time."""
    text = path.read_text()
    found: list[str] = []
    if text.count("\n") > MAX_FILE_LINES and path.parts[0] != "tests":
        found.append(f"{path}: {text.count(chr(10))} lines; at most {MAX_FILE_LINES}")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                found.append(f"{path}:{node.lineno}: {node.name} has {lines} lines; at most {MAX_FUNCTION_LINES}")
    return found


def main() -> None:
    """Look at every Python file that git knows, less generated ones."""
    listed = subprocess.run(["git", "ls-files", "*.py"], capture_output=True, text=True, check=True).stdout.split()
    found = [line for name in listed if not name.startswith("mesh/v1/") for line in oversized(Path(name))]
    print("\n".join(found))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
