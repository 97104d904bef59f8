from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nodes.onnx
from mesh import Context, InvalidInput, NodeContractError, SetupError, Signature, Tensors, Unavailable
from nodes.onnx import OnnxPredict
from tests.unit.nodes import onnx_writer as w
from tests.unit.nodes.given import MODELS

LOGREG = MODELS / "digits_logreg.onnx"

Write = Callable[[bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_model(data: bytes) -> Path:
        path = tmp_path / "model.onnx"
        path.write_bytes(data)
        return path

    return write_model


async def ask(node: OnnxPredict, **inputs: Any) -> Tensors:
    async with node:
        return await node.predict(Tensors(inputs), Context())


class TestSignature:
    def test_comes_from_the_model(self) -> None:
        assert OnnxPredict(model=LOGREG).signature == Signature.parse(
            "X: FP32[rows, 64] -> label: INT64[rows], probabilities: FP32[rows, 10]"
        )

    def test_symbols_stay_and_unknown_or_computed_sizes_are_open(self, write: Write) -> None:
        node = OnnxPredict(model=write(w.identity(w.FLOAT, ("N", "T", None, "T/8", 3))))
        assert node.signature == Signature.parse("x: FP32[rows, T, ?, ?, 3] -> y: FP32[rows, T, ?, ?, 3]")

    def test_only_axis_0_is_called_rows(self, write: Write) -> None:
        node = OnnxPredict(model=write(w.identity(w.FLOAT, ("N", "rows"))))
        assert node.signature == Signature.parse("x: FP32[rows, ?] -> y: FP32[rows, ?]")

    def test_outputs_can_be_chosen_and_ordered(self) -> None:
        assert list(OnnxPredict(model=LOGREG, outputs=["probabilities"]).signature.outputs) == ["probabilities"]
        both = OnnxPredict(model=LOGREG, outputs=["probabilities", "label"])
        assert list(both.signature.outputs) == ["probabilities", "label"]

    def test_an_output_that_does_not_exist_is_named_with_those_that_do(self) -> None:
        with pytest.raises(SetupError, match="no output 'labels'; it gives label, probabilities"):
            _ = OnnxPredict(model=LOGREG, outputs=["labels"]).signature

    @pytest.mark.parametrize("first", [1, 4])
    def test_a_fixed_batch_is_refused_with_how_to_export(self, write: Write, first: int) -> None:
        with pytest.raises(
            NodeContractError, match=rf"input 'x' .*batch dimension is fixed at {first}; export it with"
        ):
            _ = OnnxPredict(model=write(w.identity(w.FLOAT, (first, 3)))).signature

    def test_a_fixed_batch_of_an_output_is_refused_unless_it_is_left_out(self, write: Write) -> None:
        x = w.value("x", w.tensor_type(w.FLOAT, ("N", 3)))
        outputs = [w.value("y", w.tensor_type(w.FLOAT, ("N", 3))), w.value("mean", w.tensor_type(w.FLOAT, (1, 1)))]
        nodes = [w.node("Identity", ["x"], ["y"]), w.node("ReduceMean", ["x"], ["mean"])]
        path = write(w.model(w.graph(nodes, [x], outputs)))
        with pytest.raises(NodeContractError, match=r"output 'mean' .*fixed at 1"):
            _ = OnnxPredict(model=path).signature
        assert list(OnnxPredict(model=path, outputs=["y"]).signature.outputs) == ["y"]

    def test_a_scalar_has_no_batch(self, write: Write) -> None:
        with pytest.raises(NodeContractError, match="input 'x' has no batch dimension"):
            _ = OnnxPredict(model=write(w.identity(w.FLOAT, ()))).signature

    def test_a_batch_on_a_second_axis_is_refused(self, write: Write) -> None:
        with pytest.raises(NodeContractError, match="batch dimension 'N' on axis 1 too"):
            _ = OnnxPredict(model=write(w.identity(w.FLOAT, ("N", "N")))).signature

    def test_a_sequence_is_refused_with_the_way_out(self, write: Write) -> None:
        x = w.value("x", w.tensor_type(w.FLOAT, ("N", 3)))
        y = w.value("y", w.sequence_type(w.FLOAT))
        with pytest.raises(NodeContractError, match=r"output 'y' is seq\(.*zipmap"):
            _ = OnnxPredict(
                model=write(w.model(w.graph([w.node("SequenceConstruct", ["x"], ["y"])], [x], [y])))
            ).signature

    def test_a_type_that_python_cannot_be_handed_is_refused_by_name(self, write: Write) -> None:
        with pytest.raises(NodeContractError, match="element type bfloat16"):
            _ = OnnxPredict(model=write(w.identity(w.BFLOAT16, ("N", 3)))).signature

    async def test_names_that_a_topology_cannot_say_are_replaced(self, write: Write) -> None:
        node = OnnxPredict(model=write(w.identity(w.FLOAT, ("N",), source="onnx::Add 0", target="1:out")))
        assert node.signature == Signature.parse("onnx__Add_0: FP32[rows] -> _1_out: FP32[rows]")
        answer = await ask(node, onnx__Add_0=np.array([1, 2], np.float32))
        assert answer["_1_out"].tolist() == [1, 2]

    def test_two_names_that_become_the_same_are_refused(self, write: Write) -> None:
        inputs = [w.value(name, w.tensor_type(w.FLOAT, ("N",))) for name in ("x:0", "x 0")]
        y = w.value("y", w.tensor_type(w.FLOAT, ("N",)))
        with pytest.raises(NodeContractError, match="two inputs would both be called 'x_0'"):
            _ = OnnxPredict(
                model=write(w.model(w.graph([w.node("Add", ["x:0", "x 0"], ["y"])], inputs, [y])))
            ).signature


class TestSetup:
    @pytest.mark.parametrize(
        ("data", "text"), [(b"", "empty"), (b"no protobuf", "onnxruntime cannot load it: Protobuf parsing failed")]
    )
    def test_a_broken_file_is_a_setup_error(self, write: Write, data: bytes, text: str) -> None:
        with pytest.raises(SetupError, match=rf"model\.onnx: .*{text}"):
            _ = OnnxPredict(model=write(data)).signature

    def test_a_missing_file_is_a_setup_error(self, tmp_path: Path) -> None:
        node = OnnxPredict(model=tmp_path / "none.onnx")
        with pytest.raises(SetupError, match=r"none\.onnx: there is no such model file"):
            _ = node.signature
        with pytest.raises(SetupError, match="no such model file"):
            node.digest()

    def test_a_provider_that_is_not_there_is_named_with_those_that_are(self) -> None:
        with pytest.raises(SetupError, match=r"NoProvider is no provider .*CPUExecutionProvider"):
            _ = OnnxPredict(model=LOGREG, providers=["NoProvider"]).signature

    @pytest.mark.parametrize("count", [0, -1, 65])
    def test_a_number_of_threads_has_bounds(self, count: int) -> None:
        with pytest.raises(SetupError, match=f"threads is {count}: it has to be from 1 to 64"):
            OnnxPredict(model=LOGREG, threads=count)
        with pytest.raises(SetupError, match=f"workers is {count}: it has to be from 1 to 64"):
            OnnxPredict(model=LOGREG, workers=count)

    async def test_a_model_that_takes_only_one_row_is_found_when_it_loads(self, write: Write) -> None:
        io = [w.value(name, w.tensor_type(w.FLOAT, ("N", 3))) for name in ("x", "y")]
        nodes = [w.node("Reshape", ["x", "shape"], ["y"])]
        path = write(w.model(w.graph(nodes, io[:1], io[1:], [w.int64s("shape", [1, 3])])))
        with pytest.raises((SetupError, NodeContractError), match="batch"):
            async with OnnxPredict(model=path):
                pass

    async def test_a_model_that_gives_other_rows_is_found_when_it_loads(self, write: Write) -> None:
        x = w.value("x", w.tensor_type(w.FLOAT, ("N", 3)))
        y = w.value("y", w.tensor_type(w.FLOAT, ("M", 3)))
        path = write(w.model(w.graph([w.node("Concat", ["x", "x"], ["y"], w.attribute("axis", i=0))], [x], [y])))
        with pytest.raises(NodeContractError, match=r"output 'y' has shape \[2, 3\] for a batch of 1"):
            async with OnnxPredict(model=path):
                pass

    async def test_a_call_before_load_says_so(self) -> None:
        with pytest.raises(RuntimeError, match="not loaded"):
            await OnnxPredict(model=LOGREG).predict(Tensors({"X": np.zeros((1, 64), np.float32)}), Context())


class TestExternalData:
    @pytest.fixture
    def weights(self, tmp_path: Path) -> Path:
        path = tmp_path / "w.bin"
        path.write_bytes(np.array([1, 2, 3], np.float32).tobytes())
        return path

    @pytest.mark.usefixtures("weights")
    async def test_beside_the_model_is_read(self, write: Write) -> None:
        node = OnnxPredict(model=write(w.adds_external("w.bin")))
        assert (await ask(node, x=np.array([[0, 0, 1]], np.float32)))["y"].tolist() == [[1, 2, 4]]

    def test_is_part_of_the_digest(self, write: Write, weights: Path) -> None:
        node = OnnxPredict(model=write(w.adds_external("w.bin")))
        before = node.digest()
        assert node.digest() == before
        weights.write_bytes(bytes(12))
        assert node.digest() != before

    @pytest.mark.usefixtures("weights")
    @pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "sub/../../w.bin", "C:\\w.bin", "\\\\host\\w.bin"])
    def test_outside_the_folder_is_refused(self, write: Write, location: str) -> None:
        with pytest.raises(SetupError, match="outside the model's own folder"):
            _ = OnnxPredict(model=write(w.adds_external(location))).signature

    def test_a_link_out_of_the_folder_is_refused(self, write: Write, tmp_path: Path) -> None:
        (tmp_path / "w.bin").symlink_to("/etc/passwd")
        with pytest.raises(SetupError, match="outside the model's own folder"):
            _ = OnnxPredict(model=write(w.adds_external("w.bin"))).signature

    def test_that_is_missing_is_named(self, write: Write) -> None:
        with pytest.raises(SetupError, match=r"external data 'w\.bin' is missing"):
            _ = OnnxPredict(model=write(w.adds_external("w.bin"))).signature


class TestAnswers:
    async def test_text_goes_in_and_out_as_utf8(self, write: Write) -> None:
        given = np.array([[b"plain", "ünï".encode()], [b"a\0b", b""]], dtype=object)
        answer = await ask(OnnxPredict(model=write(w.identity(w.STRING, ("N", 2)))), x=given)
        assert answer["y"].tolist() == given.tolist()

    async def test_text_that_is_not_utf8_names_tensor_and_row(self, write: Write) -> None:
        node = OnnxPredict(model=write(w.identity(w.STRING, ("N", 2))))
        with pytest.raises(InvalidInput, match="row 1: tensor 'x': byte 1 is not UTF-8") as caught:
            await ask(node, x=np.array([[b"a", b"b"], [b"c", b"d\xff"]], dtype=object))
        assert (caught.value.tensor, caught.value.row) == ("x", 1)

    async def test_no_rows_in_none_out_with_sizes_from_the_input(self, write: Write) -> None:
        node = OnnxPredict(model=write(w.identity(w.FLOAT, ("N", "T", None, 3))))
        assert (await ask(node, x=np.zeros((0, 7, 2, 3), np.float32)))["y"].shape == (0, 7, 0, 3)
        words = OnnxPredict(model=MODELS / "sentiment_words.onnx")
        assert (await ask(words, text=np.empty((0, 1), dtype=object)))["probabilities"].shape == (0, 2)

    async def test_what_the_model_refuses_is_the_callers_fault_and_tells_nothing_of_the_inside(
        self, write: Write, capfd: pytest.CaptureFixture[str]
    ) -> None:
        given = w.value("x", w.tensor_type(w.INT64, ("N",)))
        gives = w.value("y", w.tensor_type(w.FLOAT, ("N",)))
        table = w.floats("table", [10, 20, 30])
        path = write(w.model(w.graph([w.node("Gather", ["table", "x"], ["y"])], [given], [gives], [table])))
        async with OnnxPredict(model=path) as node:
            with pytest.raises(InvalidInput) as caught:
                await node.predict(Tensors({"x": np.array([0, 9], np.int64)}), Context())
            assert caught.value.text == "the model refuses this input: Tensors(x: INT64[2])"
            assert (await node.predict(Tensors({"x": np.array([2], np.int64)}), Context()))["y"].tolist() == [30]
        assert capfd.readouterr() == ("", "")

    async def test_answers_are_read_only(self) -> None:
        answer = await ask(OnnxPredict(model=LOGREG), X=np.zeros((1, 64), np.float32))
        assert not any(array.flags.writeable for array in answer.values())


def endless() -> bytes:
    """A model that loops as often as the largest number it is given says."""
    x = w.value("x", w.tensor_type(w.FLOAT, ("N",)))
    y = w.value("y", w.tensor_type(w.FLOAT, ("N",)))
    body = w.graph(
        [w.node("Identity", ["go"], ["on"]), w.node("Identity", ["v"], ["next"])],
        [
            w.value("turn", w.tensor_type(w.INT64, ())),
            w.value("go", w.tensor_type(w.BOOL, ())),
            w.value("v", w.tensor_type(w.FLOAT, None)),
        ],
        [w.value("on", w.tensor_type(w.BOOL, ())), w.value("next", w.tensor_type(w.FLOAT, None))],
    )
    nodes = [
        w.node("ReduceMax", ["x"], ["largest"], w.attribute("keepdims", i=0)),
        w.node("Cast", ["largest"], ["turns"], w.attribute("to", i=w.INT64)),
        w.node("Loop", ["turns", "", "x"], ["y"], w.attribute("body", graph=body)),
    ]
    return w.model(w.graph(nodes, [x], [y]))


async def run_has_begun() -> None:
    """Wait until a thread of the node is inside onnxruntime: its innermost Python frame is the one that calls it."""
    while True:
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
        for thread in threading.enumerate():
            frame = frames.get(thread.ident or 0)
            if thread.name.startswith("onnx-") and frame and frame.f_code.co_filename == nodes.onnx.__file__:
                return
        await asyncio.sleep(0)


class TestWhereItRuns:
    async def test_cancelling_stops_a_run_that_would_never_end(self, write: Write) -> None:
        async with OnnxPredict(model=write(endless())) as node:
            # More elements than were measured at load, so that it runs in a thread.
            call = asyncio.ensure_future(node.predict(Tensors({"x": np.full(64, 1e18, np.float32)}), Context()))
            await run_has_begun()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            # There is one thread: this answer comes only when the endless run has been stopped.
            answer = await node.predict(Tensors({"x": np.full(64, 2, np.float32)}), Context())
            assert answer["y"].tolist() == [2] * 64

    async def test_unloading_stops_a_run_that_would_never_end_and_those_that_wait_for_it(self, write: Write) -> None:
        async with OnnxPredict(model=write(endless())) as node:
            request = Tensors({"x": np.full(64, 1e18, np.float32)})
            calls = [asyncio.ensure_future(node.predict(request, Context())) for _ in range(3)]
            await run_has_begun()
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert answer == Unavailable("the node is being unloaded")

    async def test_a_size_never_seen_goes_to_a_thread_and_a_cheap_one_comes_back_to_the_loop(self) -> None:
        request = Tensors({"X": np.zeros((32, 64), np.float32)})
        async with OnnxPredict(model=LOGREG) as node:
            assert await leaves_the_loop(node, request)
            # The cost is measured, so allow for measurements that the machine disturbed.
            for _ in range(1000):
                if not await leaves_the_loop(node, request):
                    break
            else:
                pytest.fail("a run of some 10 microseconds still goes to a thread after 1000 calls")

    async def test_a_dear_model_stays_in_its_thread(self) -> None:
        knn = MODELS / "digits_knn.onnx"
        request = Tensors({"X": np.load(MODELS / "digits_sample.npz")["image"][:64] / np.float32(16)})
        async with OnnxPredict(model=knn) as node:
            for _ in range(3):
                assert await leaves_the_loop(node, request)


async def leaves_the_loop(node: OnnxPredict, request: Tensors) -> bool:
    """Whether a call had to wait for something."""
    call = asyncio.ensure_future(node.predict(request, Context()))
    await asyncio.sleep(0)
    waited = not call.done()
    await call
    return waited
