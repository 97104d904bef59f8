"""Fixtures that start meshes as processes."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from mesh.transports import ENGINES
from tests.harness.processes import StartMesh, mesh_processes


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tests that start meshes may do so over the other engine."""
    parser.addoption(
        "--engine", choices=sorted(ENGINES), default="", help="what speaks gRPC in meshes that are started"
    )


@pytest.fixture
def start_mesh(request: pytest.FixtureRequest) -> Generator[StartMesh]:
    """Starts `mesh up` with the arguments it is called with; what it started ends with the test."""
    with mesh_processes(str(request.config.getoption("engine"))) as start:
        yield start


@pytest.fixture(scope="module")
def start_shared_mesh(request: pytest.FixtureRequest) -> Generator[StartMesh]:
    """The same; what it started ends with the module."""
    with mesh_processes(str(request.config.getoption("engine"))) as start:
        yield start
