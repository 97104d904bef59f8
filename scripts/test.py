"""Every test, in two runs side by side: those that start meshes as processes mostly wait for them.

What the second run printed is printed once the first is over. Arguments go to both.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import IO

# Property tests take the same examples each time here, so that a change is judged by what it changed; plain `pytest`
# tries new ones.
PYTEST = (sys.executable, "-m", "pytest", "--hypothesis-profile=ci")
OF_PROCESSES = ("tests/e2e", "tests/topologies")


def of_processes(arguments: list[str], told: IO[bytes]) -> int:
    """Those that start meshes, over the wire; then what hangs on the engine over grpcio, and both together."""
    apart = ("-o", "cache_dir=.pytest_cache/processes", *arguments)
    over_wire = [*PYTEST, *OF_PROCESSES, *apart]
    over_grpcio = [*PYTEST, "--engine", "grpcio", "-m", "not one_engine", "tests/e2e", *apart]
    codes = [
        subprocess.run(command, stdout=told, stderr=subprocess.STDOUT, check=False).returncode
        for command in (over_wire, over_grpcio)
    ]
    return max(codes)


def main(arguments: list[str]) -> int:
    """Run both; 0 where every test passed."""
    others = [f"--ignore={folder}" for folder in OF_PROCESSES]
    with tempfile.TemporaryFile() as told, ThreadPoolExecutor(1) as beside:
        processes = beside.submit(of_processes, arguments, told)
        code = subprocess.run([*PYTEST, *others, *arguments], check=False).returncode
        code = max(code, processes.result())
        told.seek(0)
        sys.stdout.write(told.read().decode(errors="replace"))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
