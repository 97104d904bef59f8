from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import SetupError
from nodes.onnx_file import digest_of, external_files
from tests.unit.nodes import onnx_writer as w

OUTSIDE = "outside the model's own folder"


def in_graph(nodes: list[bytes]) -> bytes:
    io = [w.value(name, w.tensor_type(w.FLOAT, ("N", 3))) for name in ("x", "y")]
    return w.graph(nodes, io[:1], io[1:])


def hidden() -> dict[str, bytes]:
    """The same tensor with a location that must not be followed, in every place that ONNX allows tensors in."""
    tensor = w.external_floats("w", 3, "../secret")
    constant = w.node("Constant", [], ["c"], w.message((1, "value"), (5, tensor), (20, 4)))
    sparse = w.message((1, tensor))
    inner = in_graph([constant])
    return {
        "initializer": w.adds_external("../secret"),
        "attribute": w.model(in_graph([constant])),
        "attribute with several": w.model(in_graph([w.node("C", [], ["c"], w.message((1, "v"), (10, tensor)))])),
        "branch": w.model(in_graph([w.node("If", ["x"], ["y"], w.attribute("then_branch", graph=inner))])),
        "branches": w.model(in_graph([w.node("If", ["x"], ["y"], w.message((1, "several"), (11, inner)))])),
        "sparse initializer": w.model(in_graph([]) + w.message((15, sparse))),
        "sparse attribute": w.model(in_graph([w.node("C", [], ["c"], w.message((1, "v"), (22, sparse)))])),
        "function": w.model(in_graph([])) + w.message((25, w.message((1, "f"), (7, constant)))),
        "default of a function": w.model(in_graph([])) + w.message((25, w.message((11, w.message((5, tensor)))))),
        "training": w.model(in_graph([])) + w.message((20, w.message((2, inner)))),
    }


@pytest.mark.parametrize("where", hidden())
def test_a_location_is_found_wherever_it_hides(tmp_path: Path, where: str) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(hidden()[where])
    with pytest.raises(SetupError, match=OUTSIDE):
        external_files(model)


def test_locations_are_listed_once_and_in_order(tmp_path: Path) -> None:
    tensors = [w.external_floats(f"w{i}", 3, location) for i, location in enumerate(["b.bin", "sub/a.bin", "b.bin"])]
    model = tmp_path / "model.onnx"
    model.write_bytes(w.model(in_graph([]) + w.message(*((5, tensor) for tensor in tensors))))
    (tmp_path / "sub").mkdir()
    for name in ("b.bin", "sub/a.bin"):
        (tmp_path / name).write_bytes(b"")
    files = {"b.bin": tmp_path.resolve() / "b.bin", "sub/a.bin": tmp_path.resolve() / "sub/a.bin"}
    assert external_files(model) == files
    assert list(external_files(model)) == ["b.bin", "sub/a.bin"]


def test_a_model_without_external_data_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    data = w.identity(w.FLOAT, ("N", 3))
    model.write_bytes(data)
    assert external_files(model) == {}
    assert digest_of(model) == hashlib.sha256(data).hexdigest()


def test_branches_inside_branches_have_an_end(tmp_path: Path) -> None:
    inner = in_graph([w.node("Constant", [], ["c"], w.message((5, w.external_floats("w", 3, "w.bin"))))])
    for _ in range(40):
        inner = in_graph([w.node("If", ["x"], ["y"], w.attribute("then_branch", graph=inner))])
    model = tmp_path / "model.onnx"
    model.write_bytes(w.model(inner))
    with pytest.raises(SetupError, match="cannot be read as protobuf"):
        external_files(model)


@given(st.data())
def test_damaged_bytes_are_refused_or_skipped_and_nothing_else(data: st.DataObject) -> None:
    good = bytearray(data.draw(st.sampled_from(sorted(hidden().values()))))
    for _ in range(data.draw(st.integers(0, 8))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(good)))
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        model.write_bytes(bytes(good[:cut]))
        try:
            files = external_files(model)
        except SetupError:
            return
        assert files == {}
