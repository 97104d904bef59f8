"""`uses:` to a class, and `with:` to its constructor's arguments: to check a topology, and to build a worker."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mesh.errors import NodeContractError, SetupError
from mesh.node import KINDS, Node
from mesh.signature import Signature
from mesh.topology.source import did_you_mean

__all__ = ["WrongArgument", "arguments_of", "construct", "import_class", "signature_of"]


@dataclass(frozen=True, slots=True)
class WrongArgument:
    """One argument that does not fit; an empty name for the block as a whole."""

    name: str
    text: str
    hint: str = ""
    inside: tuple[str | int, ...] = ()
    """The way from the argument to the value that is wrong."""


def import_class(uses: str) -> type[Node]:
    """The class that `module:Class` names.

    Raises:
        SetupError: The module cannot be imported, has no such class, or the class is no node.
    """
    module_name, _, class_name = uses.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise SetupError(f"there is no module {module_name!r}") from None
        raise SetupError(f"module {module_name!r} needs {error.name!r}, which is not installed") from None
    except Exception as error:  # whatever a user's module does when it is imported
        raise SetupError(f"module {module_name!r} cannot be imported: {type(error).__name__}: {error}") from None
    found: Any = getattr(module, class_name, None)
    if not inspect.isclass(found):
        close = get_close_matches(class_name, [name for name in vars(module) if not name.startswith("_")], n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise SetupError(f"module {module_name!r} has no class {class_name!r}{hint}")
    if not issubclass(found, Node) or getattr(found, "kind", None) not in KINDS:
        raise SetupError(
            f"{uses} is no node: derive it from {', '.join(kind.node.__name__ for kind in KINDS.values())}"
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise SetupError(f"{uses} does not define {missing}")
    return found


def arguments_of(
    node: type[Node], given: Mapping[str, Any], model_root: Path
) -> tuple[dict[str, Any], list[WrongArgument]]:
    """Hold a `with:` block against a constructor.

    Returns:
        The arguments, converted to the types that the constructor declares, and those that do not fit.
    """
    constructor = node.__init__
    takes = {} if constructor is object.__init__ else dict(inspect.signature(constructor).parameters)
    takes.pop("self", None)
    wrong = [
        WrongArgument("", f"{node.__name__}'s constructor has to be keyword-only, and {name!r} is not")
        for name, parameter in takes.items()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    try:
        hints = get_type_hints(constructor, include_extras=True)
    except NameError as error:
        return {}, [*wrong, WrongArgument("", f"{node.__name__}'s constructor names an unknown type: {error.name}")]
    wrong.extend(
        WrongArgument(name, f"{node.__name__} takes no {name!r}", did_you_mean(name, takes))
        for name in given
        if name not in takes
    )
    arguments: dict[str, Any] = {}
    for name, parameter in takes.items():
        if name in given:
            try:
                arguments[name] = _converted(given[name], hints.get(name, Any), model_root)
            except ValidationError as error:
                wrong.extend(_wrong_values(name, error))
        elif parameter.default is inspect.Parameter.empty:
            wrong.append(WrongArgument("", f"{node.__name__} needs {name!r}"))
    return arguments, wrong


def _converted(value: object, hint: Any, model_root: Path) -> Any:
    # Validated as JSON: strict about what a value is, yet a list may become a tuple and a text a path.
    adapter: TypeAdapter[Any] = TypeAdapter(hint)
    return adapter.validate_json(json.dumps(value), strict=True, context={"from_file": True, "model_root": model_root})


def _wrong_values(name: str, error: ValidationError) -> list[WrongArgument]:
    found: list[WrongArgument] = []
    for details in error.errors(include_url=False):
        text = details["msg"].removeprefix("Value error, ")
        inside = tuple(step for step in details["loc"] if "[" not in str(step))
        found.append(WrongArgument(name, f"{name!r} does not fit: {text[:1].lower()}{text[1:]}", inside=inside))
    return found


def construct(node: type[Node], arguments: Mapping[str, Any]) -> Node:
    """Build a node. Nothing is loaded yet.

    Raises:
        SetupError: The constructor refused; says why.
    """
    try:
        return node(**arguments)
    except SetupError:
        raise
    except Exception as error:  # whatever a user's constructor raises
        raise SetupError(f"{node.__name__} cannot be made: {type(error).__name__}: {error}") from error


def signature_of(node: Node) -> Signature:
    """What a node takes and gives; may read its model file.

    Raises:
        SetupError: It declares none, or its model cannot be read.
    """
    try:
        signature: Any = node.signature
    except SetupError:
        raise
    except AttributeError:
        raise NodeContractError(f"{type(node).__name__} declares no signature") from None
    except Exception as error:
        raise SetupError(f"{type(node).__name__} cannot tell its signature: {type(error).__name__}: {error}") from error
    if not isinstance(signature, Signature):
        raise NodeContractError(f"{type(node).__name__}.signature has to be a mesh.Signature")
    for name, spec in [*signature.inputs.items(), *signature.outputs.items()]:
        if not spec.shape or spec.shape[0] != "rows":
            raise NodeContractError(f"tensor {name!r} is {spec}: its first dimension has to be 'rows'")
    return signature


def importable_from(folder: Path) -> None:
    """Let `uses:` name modules that lie beside the topology file, as running a script lets it import its neighbours."""
    if str(folder) not in sys.path:
        # Last, so that nothing there can stand in for an installed module.
        sys.path.append(str(folder))
