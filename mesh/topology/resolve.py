"""`uses:` to a class, and `with:` to its constructor's arguments: to check a topology, and to build a worker."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mesh.errors import SetupError
from mesh.node import KINDS, ModelFile, Node
from mesh.topology.source import closest, did_you_mean, shown
from mesh.topology.wording import complaints

__all__ = ["WrongArgument", "arguments_of", "construct", "import_class", "importable_from", "model_files", "refusing"]

_CLASSES = 1024
"""Constructors whose types are remembered; reading them costs more than checking a node."""


@dataclass(frozen=True, slots=True)
class WrongArgument:
    """One argument that does not fit; an empty name for the block as a whole."""

    name: str
    text: str
    hint: str = ""
    inside: tuple[str | int, ...] = ()
    """The way from the argument to the value that is wrong."""
    at_key: bool = False
    """Whether it is the name that is wrong, and not the value."""


@contextmanager
def refusing(what: str) -> Generator[None]:
    """What a user's code raises inside becomes a SetupError that begins with `what`; also when it wants to exit."""
    try:
        yield
    except SetupError:
        raise
    except (Exception, SystemExit) as error:
        text = str(error)
        raise SetupError(f"{what}: {type(error).__name__}{': ' if text else ''}{text}") from error


def import_class(uses: str) -> type[Node]:
    """The class that `module:Class` names.

    Raises:
        SetupError: The module cannot be imported, has no such class, or the class is no node.
    """
    module_name, _, class_name = uses.partition(":")
    try:
        with refusing(f"module {module_name!r} cannot be imported"):
            module = importlib.import_module(module_name)
    except SetupError as error:
        lacking = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
        if lacking is None:
            raise
        if module_name == lacking or module_name.startswith(f"{lacking}."):
            where = "it has to be installed, or to lie beside the topology file"
            raise SetupError(f"there is no module {module_name!r}: {where}") from None
        raise SetupError(f"module {module_name!r} needs {lacking!r}, which is not installed") from None
    with refusing(f"{uses} cannot be looked up"):
        found: Any = getattr(module, class_name, None)
    if not inspect.isclass(found):
        what = f"is {type(found).__name__}, no class" if found is not None else "is not there"
        classes = [name for name, value in list(vars(module).items()) if inspect.isclass(value) and _is_usable(value)]
        near = did_you_mean(class_name, classes)
        raise SetupError(f"{class_name!r} of module {module_name!r} {what}{'; ' if near else ''}{near}")
    if not _is_node(found):
        kinds = ", ".join(kind.node.__name__ for kind in KINDS.values())
        raise SetupError(f"{uses} is no node: derive it from one of {kinds} of the package mesh")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise SetupError(f"{uses} does not define {missing}")
    return found


def _is_usable(found: type[Any]) -> bool:
    return _is_node(found) and not inspect.isabstract(found) and not found.__name__.startswith("_")


def _is_node(found: type[Any]) -> TypeGuard[type[Node]]:
    # By what it derives from: a class that only says that it is of a kind lacks the verb.
    return any(issubclass(found, kind.node) and found.kind == kind.name for kind in KINDS.values())


def arguments_of(
    node: type[Node], given: Mapping[str, Any], model_root: Path | None
) -> tuple[dict[str, Any], list[WrongArgument]]:
    """Hold a `with:` block against a constructor.

    Args:
        node: Whose constructor.
        given: The block, as the file has it.
        model_root: Where model files have to lie; None to take their names without looking.

    Returns:
        The arguments, converted to the types that the constructor declares, and those that do not fit.
    """
    constructor = _constructor_of(node)
    wrong = list(constructor.wrong)
    if wrong:
        return {}, wrong
    takes = constructor.adapters
    unknown = {name: closest(name, takes) for name in given if name not in takes}
    wrong.extend(
        WrongArgument(name, f"{node.__name__} takes no {shown(name)}", did_you_mean(name, takes), at_key=True)
        for name in unknown
    )
    arguments: dict[str, Any] = {}
    for name, adapter in takes.items():
        if name in given:
            arguments[name], complained = _converted(name, given[name], adapter, model_root)
            wrong.extend(complained)
        elif name in constructor.needed and name not in unknown.values():
            wrong.append(WrongArgument("", f"{node.__name__} needs {name!r}", f"write with: {{{name}: ...}}"))
    return arguments, wrong


def model_files(node: type[Node]) -> frozenset[str]:
    """The arguments that are model files."""
    return _constructor_of(node).model_files


@dataclass(frozen=True, slots=True)
class _Constructor:
    """What a constructor takes."""

    adapters: Mapping[str, TypeAdapter[Any] | None] = field(default_factory=dict[str, TypeAdapter[Any] | None])
    """Argument -> its type; None for a type that no file can hold."""
    needed: frozenset[str] = frozenset()
    model_files: frozenset[str] = frozenset()
    wrong: tuple[WrongArgument, ...] = ()
    """What is wrong with the constructor itself."""


@lru_cache(maxsize=_CLASSES)
def _constructor_of(node: type[Node]) -> _Constructor:
    constructor, name = node.__init__, node.__name__
    if constructor is object.__init__:
        return _Constructor()
    try:
        parameters = list(inspect.signature(constructor).parameters.values())[1:]
        hints = get_type_hints(constructor, include_extras=True)
    except NameError as error:
        return _unusable(f"{name}'s constructor names an unknown type: {error.name}")
    except Exception as error:  # annotations are a user's code
        return _unusable(f"{name}'s constructor cannot be read: {type(error).__name__}: {error}")
    adapters = {one.name: _adapter(hints.get(one.name, Any)) for one in parameters}
    needed = frozenset(one.name for one in parameters if one.default is inspect.Parameter.empty)
    wrong = [
        WrongArgument("", f"{name}'s constructor has to be keyword-only, and {one.name!r} is not", "put `*` before it")
        for one in parameters
        if one.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    if not wrong:
        wrong = [
            WrongArgument("", f"{name}'s constructor needs {one!r}, of a type that no file can hold", _TAKE)
            for one in adapters
            if one in needed and adapters[one] is None
        ]
    return _Constructor(
        adapters=adapters,
        needed=needed,
        model_files=frozenset(one for one in adapters if _mentions(hints.get(one), ModelFile)),
        wrong=tuple(wrong),
    )


_TAKE = "take texts, numbers, truths, lists, mappings or a mesh.ModelFile"


def _unusable(text: str) -> _Constructor:
    return _Constructor(wrong=(WrongArgument("", text),))


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(hint)
    except Exception:  # pydantic has several for a type that it does not know, and a type's own hooks may raise any
        return None


def _mentions(hint: Any, wanted: Any) -> bool:
    return hint == wanted or any(_mentions(inner, wanted) for inner in get_args(hint))


def _converted(
    name: str, value: object, adapter: TypeAdapter[Any] | None, model_root: Path | None
) -> tuple[Any, list[WrongArgument]]:
    if adapter is None:
        return None, [WrongArgument(name, f"{name!r} is of a type that no file can hold", "leave it out", at_key=True)]
    context = {"from_file": True, "model_root": model_root}
    try:
        # Validated as JSON: strict about what a value is, yet a list may become a tuple and a text a path.
        return adapter.validate_json(json.dumps(value), strict=True, context=context), []
    except ValidationError as error:
        found = complaints(error, {name: value}, at=(name,))
        return None, [WrongArgument(name, one.text, one.hint, one.steps[1:], one.at_key) for one in found]
    except OSError as error:
        return None, [WrongArgument(name, f"{name!r} cannot be looked at: {error.strerror or error}")]
    except Exception as error:  # a type's own validators may raise anything
        return None, [WrongArgument(name, f"{name!r} cannot be taken: {type(error).__name__}: {error}")]


def construct(node: type[Node], arguments: Mapping[str, Any]) -> Node:
    """Build a node. Nothing is loaded yet.

    Raises:
        SetupError: The constructor refused; says why.
    """
    with refusing(f"{node.__name__} cannot be made"):
        return node(**arguments)


def importable_from(folder: Path) -> None:
    """Let `uses:` name modules that lie beside the topology file, as running a script lets it import its neighbours."""
    if str(folder) not in sys.path:
        # Last, so that nothing there can stand in for an installed module.
        sys.path.append(str(folder))
