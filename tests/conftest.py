"""Fixtures that start meshes as processes."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.harness.processes import StartMesh, mesh_processes


@pytest.fixture
def start_mesh() -> Generator[StartMesh]:
    """Starts `mesh up` with the arguments it is called with; what it started ends with the test."""
    with mesh_processes() as start:
        yield start


@pytest.fixture(scope="module")
def start_shared_mesh() -> Generator[StartMesh]:
    """The same; what it started ends with the module."""
    with mesh_processes() as start:
        yield start
