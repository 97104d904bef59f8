"""A good topology, how to break it, and what is then said of it."""

from __future__ import annotations

from pathlib import Path

from mesh import layers
from mesh.errors import TopologyError
from mesh.topology import Compiled, compile_text

LAYERS = {name: layers.LAYERS[name] for name in ("batch", "queue", "timeout")}
"""Of all layers these, so that no text here changes with a new one."""

NODES = "tests.unit.topology.sample_nodes"
FOLDER = Path(__file__).parent

GOOD = f"""\
mesh: v1
name: digits
inputs:
  image: {{datatype: FP32, shape: [-1, 64]}}
nodes:
  scale:
    uses: {NODES}:Scale
    with: {{divide_by: 16}}
    inputs: {{x: image}}
  small:
    uses: {NODES}:Model
    inputs: {{X: scale.x}}
    layers:
      - queue: {{max_rows: 64}}
      - batch: {{max_rows: 8, max_delay: 1ms}}
  large:
    uses: {NODES}:Model
    with: {{add: 100}}
    inputs: {{X: scale.x}}
  answer:
    uses: {NODES}:Join
    inputs: [small, large]
outputs:
  label: answer.label
  p: small.p
placements:
  two:
    front: {{nodes: [scale, small, answer]}}
    heavy: {{nodes: [large], address: "grpc://127.0.0.1:7001", replicas: 2}}
"""


def changed(old: str, new: str, text: str = GOOD) -> str:
    """The text with its one `old` replaced."""
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in the text"
    return text.replace(old, new)


def compiled(text: str, folder: Path = FOLDER) -> Compiled:
    return compile_text(text, LAYERS, file="t.yaml", folder=folder)


def told(text: str, folder: Path = FOLDER) -> list[str]:
    """Every mistake as the user reads it, less the file and the word that all begin with; none for a right text."""
    try:
        compiled(text, folder)
    except TopologyError as error:
        refused = error
    else:
        return []
    problems = [str(problem) for problem in refused.problems]
    assert str(refused) == "\n".join(problems)
    return [problem.removeprefix("t.yaml:").replace(" error:", "", 1) for problem in problems]


def one_node(uses: str, rest: str = "", *, shape: str = "[-1, 64]", datatype: str = "FP32", tensor: str = "x") -> str:
    """A topology of one node called `it`, in lines 6 and following, fed by `image`; `rest` follows its inputs."""
    return (
        f"mesh: v1\nname: one\ninputs:\n  image: {{datatype: {datatype}, shape: {shape}}}\nnodes:\n  it:\n"
        f"    uses: {uses if ':' in uses else f'{NODES}:{uses}'}\n    inputs: {{{tensor}: image}}\n{rest}"
        f"outputs: {{x: it.x}}\n"
    )
