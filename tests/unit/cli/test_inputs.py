from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesh.cli.inputs import read_inputs
from mesh.errors import SetupError
from mesh.signature import TensorSpec
from mesh.tensors import Tensors

IMAGE = {"image": TensorSpec("FP32", ("rows", 4))}
TEXT = {"text": TensorSpec("BYTES", ("rows", 1))}
FILE = {"file": TensorSpec("BYTES", ("rows",))}
COUNT = {"count": TensorSpec("UINT8", ("rows",))}
BOTH = {**IMAGE, **COUNT}
ROW = [1.0, 2.0, 3.0, 4.0]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("row.npy", np.array(ROW))
    np.savez("two.npz", image=np.array([ROW, ROW], np.float32), count=np.array([1, 2]))
    np.savez("other.npz", pixels=np.array([ROW]))
    Path("row.json").write_text(json.dumps(ROW))
    Path("note.txt").write_bytes(b"\xffnote\n")
    Path("broken.npy").write_bytes(b"\x93NUMPY")
    Path("broken.npz").write_bytes(b"PK\3\4 and no more")
    Path("empty.npy").write_bytes(b"")
    np.save("pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    return tmp_path


def image(*rows: list[float]) -> Tensors:
    return Tensors({"image": np.array(rows, np.float32)})


@pytest.mark.parametrize(
    ("given", "specs", "expected"),
    [
        # Numbers, as JSON and out of files; a row may leave out the batch axis, and digits that the datatype has not.
        (["image=[1,2,3,4]"], IMAGE, image(ROW)),
        (["image=[[1,2,3,4],[1,2,3,4]]"], IMAGE, image(ROW, ROW)),
        (["image=@row.npy"], IMAGE, image(ROW)),
        (["image=@row.json"], IMAGE, image(ROW)),
        (["image=@two.npz"], IMAGE, image(ROW, ROW)),
        (["image=@other.npz"], IMAGE, image(ROW)),
        (["image=[1,2,3,4]", "image=@two.npz", "image=@row.npy"], IMAGE, image(ROW, ROW, ROW, ROW)),
        (["image=[]"], IMAGE, Tensors({"image": np.zeros((0, 4), np.float32)})),
        (["count=7"], COUNT, Tensors({"count": np.array([7], np.uint8)})),
        (["@two.npz"], BOTH, Tensors({**image(ROW, ROW), "count": np.array([1, 2], np.uint8)})),
        # BYTES: text as it stands, unless it is JSON that can mean rows; files whole.
        (["text=it's fine"], TEXT, Tensors({"text": [["it's fine"]]})),
        (["text="], TEXT, Tensors({"text": [[b""]]})),
        (["text=a=b"], TEXT, Tensors({"text": [["a=b"]]})),
        (["text=5"], TEXT, Tensors({"text": [["5"]]})),
        (["text=[sic]"], TEXT, Tensors({"text": [["[sic]"]]})),
        (['text={"a": 1}'], TEXT, Tensors({"text": [['{"a": 1}']]})),
        (['text="quoted"'], TEXT, Tensors({"text": [["quoted"]]})),
        (['text=["a", "b"]'], TEXT, Tensors({"text": [["a"], ["b"]]})),
        (['text={"base64": "/w=="}'], TEXT, Tensors({"text": [[b"\xff"]]})),
        (["text=\udcff"], TEXT, Tensors({"text": [[b"\xff"]]})),  # a byte on the command line that is no UTF-8
        (["file=@note.txt"], FILE, Tensors({"file": [b"\xffnote\n"]})),
        (["file=@row.json"], FILE, Tensors({"file": [json.dumps(ROW)]})),
        (["file=@note.txt", "file=text"], FILE, Tensors({"file": [b"\xffnote\n", b"text"]})),
    ],
)
def test_is_read_as_what_the_graph_takes(given: list[str], specs: dict[str, TensorSpec], expected: Tensors) -> None:
    assert read_inputs(given, specs) == expected


@pytest.mark.parametrize(
    ("given", "specs", "told"),
    [
        ([], BOTH, "--input is missing for image: FP32[rows, 4], count: UINT8[rows]; write image=VALUE or image=@FILE"),
        (["image"], IMAGE, "--input 'image': write name=VALUE or name=@FILE; the graph takes image"),
        (["=5"], IMAGE, "write name=VALUE"),
        (["img=5"], IMAGE, "--input img=5: there is no input 'img'; the graph takes image"),
        (["@two.npz"], IMAGE, "--input @two.npz: there is no input 'count'; the graph takes image"),
        (["@row.npy"], IMAGE, "--input @row.npy: only an .npz file names its arrays; write name=@row.npy"),
        (["image=[1,"], IMAGE, "--input image=[1,: no JSON: "),
        (["image=row.npy"], IMAGE, "to read a file write name=@FILE"),
        (['image=["a"]'], IMAGE, "--input image=[\"a\"]: not FP32[rows, 4]: ['a'] is not FP32"),
        (["image=[[1,2],[3]]"], IMAGE, "not FP32[rows, 4]: "),
        (["count=1.5"], COUNT, "--input count=1.5: not UINT8[rows]: [1.5] is not UINT8"),
        (["count=300"], COUNT, "beyond what UINT8 holds"),
        (["image=@nope.npy"], IMAGE, "--input image=@nope.npy: No such file or directory"),
        (["image=@nope.json"], IMAGE, "--input image=@nope.json: No such file or directory"),
        (["file=@nope"], FILE, "--input file=@nope: No such file or directory"),
        (["file=@."], FILE, "--input file=@.: Is a directory"),
        (["@nope.npz"], IMAGE, "--input @nope.npz: No such file or directory"),
        (["image=@broken.npy"], IMAGE, "--input image=@broken.npy: not a numpy file, or it is broken"),
        (["image=@broken.npz"], IMAGE, "not a numpy file, or it is broken"),
        (["image=@empty.npy"], IMAGE, "not a numpy file, or it is broken"),
        (["image=@pickled.npy"], IMAGE, "not a numpy file, or it is broken"),
        (
            ["count=@two.npz", "image=@two.npz", "image=[1,2]"],
            BOTH,
            "--input image: its rows differ in shape: [2, 4] and [1, 2]",
        ),
        (["text=[1]"], TEXT, "1 is not BYTES"),
        (["count=" + "9" * 100], COUNT, "--input count=" + "9" * 37 + "...: "),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(given: list[str], specs: dict[str, TensorSpec], told: str) -> None:
    with pytest.raises(SetupError) as raised:
        read_inputs(given, specs)
    assert told in str(raised.value)
    assert "Traceback" not in str(raised.value)


@pytest.mark.parametrize(
    ("stored", "datatype", "fits"),
    [
        (np.array([1, 2], np.int64), "UINT8", True),
        (np.array([300], np.int64), "UINT8", False),
        (np.array([-1], np.int64), "UINT64", False),
        (np.array([1.5], np.float64), "FP32", True),
        (np.array([1e300], np.float64), "FP32", False),
        (np.array([np.inf], np.float64), "FP32", True),
        (np.array([3], np.int32), "FP64", True),
        (np.array([0.5], np.float64), "BF16", True),
    ],
)
def test_numbers_of_a_file_take_the_datatype_that_is_needed_if_they_fit(stored: Any, datatype: str, fits: bool) -> None:
    np.save("x.npy", stored)
    specs = {"x": TensorSpec(datatype, ("rows",))}
    if fits:
        assert read_inputs(["x=@x.npy"], specs)["x"].astype(np.float64).tolist() == stored.tolist()
    else:
        with pytest.raises(SetupError, match="beyond what"):
            read_inputs(["x=@x.npy"], specs)


def test_a_fraction_is_left_for_the_mesh_to_refuse() -> None:
    np.save("x.npy", np.array([1.5]))
    assert read_inputs(["x=@x.npy"], {"x": TensorSpec("INT64", ("rows",))})["x"].dtype == np.float64
