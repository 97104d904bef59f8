"""`uses:` and `with:`: whatever a user's module or constructor does, it becomes a mistake of the file, in its place."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.errors import SetupError
from mesh.topology.resolve import arguments_of, construct, import_class, importable_from, model_files, refusing
from tests.unit.topology import sample_nodes
from tests.unit.topology.given import FOLDER, NODES, changed, compiled, one_node, told

DURATION = "write a number and a unit (us, ms, s, m, h, d), as in 5ms"
SETTINGS = "words, table, mode, colour, pair, either, flag, wait, anything, ratio"

Beside = Callable[[str, str], str]

DERIVE = "derive it from one of Preprocess, Predict, Aggregate, Cache of the package mesh"


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Beside:
    """Puts a module beside the topology; the session forgets it afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def put(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return f"{name}:It"

    return put


def with_(block: str, uses: str = "Settings") -> str:
    return one_node(uses, f"    with: {block}\n")


@pytest.mark.parametrize(
    ("uses", "problem"),
    [
        ("nowhere:X", "there is no module 'nowhere': it has to be installed, or to lie beside the topology file"),
        ("nowhere.a:X", "there is no module 'nowhere.a': it has to be installed, or to lie beside the topology file"),
        (
            "tests.unit.topology.nope:X",
            "there is no module 'tests.unit.topology.nope': it has to be installed, or to lie beside the topology file",
        ),
        (
            "json.decoder.deep:X",
            "there is no module 'json.decoder.deep': it has to be installed, or to lie beside the topology file",
        ),
        ("Modle", f"'Modle' of module '{NODES}' is not there; did you mean 'Model'?"),
        ("json:Modle", "'Modle' of module 'json' is not there"),
        (
            "Plain",
            f"{NODES}:Plain is no node: {DERIVE}",
        ),
        (
            "NoKind",
            f"{NODES}:NoKind is no node: {DERIVE}",
        ),
        (
            "SaysSo",
            f"{NODES}:SaysSo is no node: {DERIVE}",
        ),
        ("Unfinished", f"{NODES}:Unfinished does not define predict"),
    ],
)
def test_what_is_no_node_class_is_told_where_it_is_named(uses: str, problem: str) -> None:
    assert told(one_node(uses)) == [f"7:11: {problem}"]


def test_what_is_no_class_is_told_with_the_nodes_that_the_module_has() -> None:
    (problem,) = told(one_node("a_function"))
    assert problem.startswith(f"7:11: 'a_function' of module '{NODES}' is builtin_function_or_method, no class; ")
    assert re.search(r"; there is: Scale, Model, Join, (\w+, ){7}\.\.\. \(\d+ in all\)\Z", problem)


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        ("import lost_package.deep\n", "module 'm1' needs 'lost_package', which is not installed"),
        ("import m1.deep\n", "module 'm1' needs 'm1.deep', which is not installed"),
        ("1 / 0\n", "module 'm1' cannot be imported: ZeroDivisionError: division by zero"),
        ("raise KeyError\n", "module 'm1' cannot be imported: KeyError"),
        ("raise ImportError('no\\nwheels')\n", "module 'm1' cannot be imported: ImportError: no wheels"),
        ("import sys\nsys.exit(4)\n", "module 'm1' cannot be imported: SystemExit: 4"),
        ("def It(:\n", "module 'm1' cannot be imported: SyntaxError: invalid syntax (m1.py, line 1)"),
        ("\0", "module 'm1' cannot be imported: SyntaxError: source code string cannot contain null bytes"),
        (
            "def __getattr__(name): raise OSError('disk')\n",
            "m1:It cannot be looked up: OSError: disk",
        ),
        ("It = 5\n", "'It' of module 'm1' is int, no class"),
    ],
)
def test_a_module_that_fails_is_a_mistake_of_the_file(
    module: str, problem: str, beside: Beside, tmp_path: Path
) -> None:
    uses = beside("m1", module)
    assert told(one_node(uses), tmp_path) == [f"7:11: {problem}"]


def test_a_module_beside_the_topology_is_found_and_stands_in_for_none_that_is_installed(
    beside: Beside, tmp_path: Path
) -> None:
    uses = beside("m2", f"from {NODES} import Unranked as It\n")
    assert compiled(one_node(uses, "").replace("it.x", "it.y"), tmp_path).graph.node("it").uses == "m2:It"
    beside("json", "1 / 0\n")
    assert told(one_node("json:It"), tmp_path) == ["7:11: 'It' of module 'json' is not there"]
    found = len(sys.path)
    importable_from(tmp_path.resolve())
    assert len(sys.path) == found, "a folder is added once"


def test_a_module_that_fails_is_imported_once_and_told_at_every_node(beside: Beside, tmp_path: Path) -> None:
    uses = beside("m3", "with open(__file__ + '.log', 'a') as log:\n    log.write('once ')\n1 / 0\n")
    two = f"  two:\n    uses: {uses}\n    inputs: {{x: it.x}}\noutputs: {{x: two.x}}"
    text = changed("outputs: {x: it.x}", two, one_node(uses))
    failed = "module 'm3' cannot be imported: ZeroDivisionError: division by zero"
    assert told(text, tmp_path) == [f"7:11: {failed}", f"10:11: {failed}"]
    assert (tmp_path / "m3.py.log").read_text() == "once "


@pytest.mark.parametrize(
    ("block", "problems"),
    [
        ("{rato: 1}", ["9:12: Settings takes no 'rato' (did you mean 'ratio'?)"]),
        ("{zzz: 1}", [f"9:12: Settings takes no 'zzz' (there is: {SETTINGS})"]),
        ("{words: a}", ["9:19: 'words' has to be a list, not 'a'"]),
        ("{words: [a, 5]}", ["9:23: 'words[1]' has to be a text, not 5 (put it in quotes)"]),
        ("{words: }", ["9:19: 'words' has to be a list, not nothing"]),
        ("{table: [1]}", ["9:19: 'table' has to be a mapping, not [1]"]),
        ("{table: {a: [1, x]}}", ["9:27: 'table.a[1]' has to be a whole number, not 'x'"]),
        ("{mode: slow}", ["9:18: 'mode' has to be 'fast' or 'exact', not 'slow'"]),
        ("{colour: green}", ["9:20: 'colour' has to be 'red' or 'blue', not 'green'"]),
        ("{pair: [1]}", ["9:18: 'pair' lacks entry 2"]),
        ("{pair: [1, a, 2]}", ["9:18: 'pair' may have at most 2 entries, not 3"]),
        (
            "{pair: [a, 1]}",
            [
                "9:19: 'pair[0]' has to be a whole number, not 'a'",
                "9:22: 'pair[1]' has to be a text, not 1 (put it in quotes)",
            ],
        ),
        ("{either: [1]}", ["9:20: 'either' has to be a whole number or a text, not [1]"]),
        ("{either: 1.5}", ["9:20: 'either' has to be a whole number or a text, not 1.5 (put it in quotes)"]),
        ("{flag: 1}", ["9:18: 'flag' has to be true or false, not 1"]),
        ("{flag: no}", ["9:18: 'flag' has to be true or false, not 'no'"]),
        ("{wait: 5}", [f"9:18: 'wait': 5 is not a duration: {DURATION}"]),
        ("{ratio: true}", ["9:19: 'ratio' has to be a number, not true"]),
        ("{ratio: '1'}", ["9:19: 'ratio' has to be a number, not '1'"]),
        (
            "{words: 1, rato: 2, mode: 3}",
            [
                "9:19: 'words' has to be a list, not 1",
                "9:22: Settings takes no 'rato' (did you mean 'ratio'?)",
                "9:37: 'mode' has to be 'fast' or 'exact', not 3",
            ],
        ),
    ],
)
def test_an_argument_that_does_not_fit_is_told_where_it_stands(block: str, problems: list[str]) -> None:
    assert told(with_(block)) == problems


def test_arguments_become_what_the_constructor_declares() -> None:
    given = {
        "words": ["a", "b"],
        "table": {"a": [1]},
        "mode": "exact",
        "colour": "blue",
        "pair": [1, "x"],
        "either": "text",
        "flag": True,
        "wait": "5ms",
        "anything": {"a": [None, 1.5]},
        "ratio": 2,
    }
    arguments, wrong = arguments_of(sample_nodes.Settings, given, None)
    assert wrong == []
    assert arguments == {
        **given,
        "words": ("a", "b"),
        "colour": sample_nodes.Colour.BLUE,
        "pair": (1, "x"),
        "wait": 0.005,
        "ratio": 2.0,
    }
    assert isinstance(construct(sample_nodes.Settings, arguments), sample_nodes.Settings)


@pytest.mark.parametrize(
    ("uses", "block", "problem"),
    [
        ("FromFile", None, "6:3: FromFile needs 'model' (write with: {model: ...})"),
        ("FromFile", "{threads: 1}", "9:5: FromFile needs 'model' (write with: {model: ...})"),
        ("Add", "{a: 1}", "9:12: Add takes no 'a'"),
        ("Refusing", None, "6:3: Refusing cannot be made: ValueError: threads has to be above 0 and it is not"),
        (
            "Refusing",
            "{threads: 5}",
            "9:5: Refusing cannot be made: ValueError: threads has to be above 0 and it is not",
        ),
        ("Exiting", None, "6:3: Exiting cannot be made: SystemExit: 3"),
        (
            "Positional",
            None,
            "6:3: Positional's constructor has to be keyword-only, and 'threads' is not (put `*` before it)",
        ),
        ("Splat", None, "6:3: Splat's constructor has to be keyword-only, and 'settings' is not (put `*` before it)"),
        (
            "NeedsPool",
            None,
            "6:3: NeedsPool's constructor needs 'pool', of a type that no file can hold "
            "(take texts, numbers, truths, lists, mappings or a mesh.ModelFile)",
        ),
        ("MayHavePool", "{pool: 5}", "9:12: 'pool' is of a type that no file can hold (leave it out)"),
        ("UnknownType", None, "6:3: UnknownType's constructor names an unknown type: Poool"),
        (
            "Unreadable",
            None,
            "6:3: Unreadable's constructor cannot be read: SyntaxError: Forward reference must be an expression "
            "-- got 'no type'",
        ),
        ("Fussy", "{word: x}", "9:18: 'word' cannot be taken: RuntimeError: not today"),
    ],
)
def test_a_constructor_that_cannot_be_called_is_told(uses: str, block: str | None, problem: str) -> None:
    text = one_node(uses) if block is None else with_(block, uses)
    assert problem in told(text)


@pytest.mark.parametrize(
    ("uses", "block", "problem"),
    [
        ("FromFile", "{model: nope.onnx}", "9:19: 'model': there is no file nope.onnx in the model root"),
        ("FromFile", "{model: ../../conftest.py}", "9:19: 'model': ../../conftest.py lies outside the model root"),
        ("FromFile", "{model: /etc/passwd}", "9:19: 'model': /etc/passwd lies outside the model root"),
        ("FromFile", "{model: .}", "9:19: 'model': there is no file . in the model root"),
        ("FromFile", "{model: 5}", "9:19: 'model' has to be a text, not 5 (put it in quotes)"),
        ("FromFile", '{model: "a\\0b"}', "9:19: 'model': embedded null byte"),
        ("FromFile", f"{{model: {'x' * 5000}}}", "9:19: 'model' cannot be looked at: File name too long"),
        ("FromFiles", "{parts: [given.py, nope]}", "9:30: 'parts[1]': there is no file nope in the model root"),
        ("FromFiles", "{parts: [], other: nope}", "9:30: 'other': there is no file nope in the model root"),
    ],
)
def test_a_model_file_lies_under_the_model_root(uses: str, block: str, problem: str) -> None:
    assert told(with_(block, uses)) == [problem]


def test_no_link_leads_out_of_the_model_root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("s")
    os.symlink(tmp_path / "secret", tmp_path / "root" / "model")
    text = with_("{model: model}", "FromFile").replace("name: one", "name: one\nmodels: root")
    assert told(text, tmp_path) == ["10:19: 'model': model lies outside the model root"]


def test_a_model_file_is_given_as_a_path_and_read_for_its_digest() -> None:
    graph = compiled(with_("{model: ../topology/sample_nodes.py}", "FromFile")).graph
    assert graph.node("it").digest == (FOLDER / "sample_nodes.py").read_text()
    arguments, _ = arguments_of(sample_nodes.FromFiles, {"parts": ["given.py"], "other": "given.py"}, FOLDER)
    assert arguments == {"parts": [FOLDER / "given.py"], "other": FOLDER / "given.py"}


def test_the_arguments_that_are_model_files_are_known() -> None:
    assert model_files(sample_nodes.FromFiles) == {"parts", "other"}
    assert model_files(sample_nodes.FromFile) == {"model"}
    assert model_files(sample_nodes.Settings) == frozenset()
    assert model_files(sample_nodes.Add) == frozenset()


def test_without_a_model_root_the_names_of_models_are_taken_as_they_are() -> None:
    arguments, wrong = arguments_of(sample_nodes.FromFile, {"model": "nope.onnx"}, None)
    assert (arguments, wrong) == ({"model": Path("nope.onnx")}, [])


def test_an_error_that_is_clear_already_is_not_wrapped_and_an_interrupt_is_no_mistake() -> None:
    with pytest.raises(SetupError, match=r"\Aclear\Z"), refusing("it"):
        raise SetupError("clear")
    with pytest.raises(KeyboardInterrupt), refusing("it"):
        raise KeyboardInterrupt
    with pytest.raises(SetupError, match=r"\Ait: ValueError: why\Z") as raised, refusing("it"):
        raise ValueError("why")
    assert isinstance(raised.value.__cause__, ValueError)


def test_a_class_is_imported_by_module_and_name() -> None:
    assert import_class(f"{NODES}:Model") is sample_nodes.Model
