"""What a node says of itself before it is loaded: signature, answer to branches, digest of its model, version.

All of it is a user's code, so whatever it raises becomes a `SetupError`, and what it says is held against the rules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

from mesh.errors import NodeContractError
from mesh.node import Aggregate, Needs, Node
from mesh.signature import Signature, TensorSpec
from mesh.topology.resolve import refusing

__all__ = ["digest_of", "joined", "needs_of", "signature_of", "signature_of_class", "version_of"]


def signature_of(node: Node) -> Signature:
    """What a node takes and gives; may read its model file.

    Raises:
        SetupError: It declares none, or its model cannot be read.
    """
    name = type(node).__name__
    if not hasattr(type(node), "signature") and "signature" not in vars(node):
        raise NodeContractError(f"{name} declares no signature")
    with refusing(f"{name} cannot tell its signature"):
        signature: Any = node.signature
    if not isinstance(signature, Signature):
        raise NodeContractError(f"{name}.signature has to be a mesh.Signature, not {type(signature).__name__}")
    with refusing(f"{name}.signature is none"):
        _check(signature, f"{name}.signature")
    return signature


def signature_of_class(node: type[Node]) -> Signature | None:
    """The signature that stands in a class; None where only an instance can tell.

    Raises:
        NodeContractError: It is none that can be written.
    """
    signature: Any = vars(node).get("signature")
    if not isinstance(signature, Signature):
        return None
    with refusing(f"{node.__name__}.signature is none"):
        _check(signature, f"{node.__name__}.signature")
    return signature


def joined(node: Aggregate, branches: Mapping[str, Mapping[str, TensorSpec]]) -> dict[str, TensorSpec]:
    """What an aggregate gives when fed by these branches.

    Raises:
        NodeContractError: It cannot join them; says why.
        SetupError: It failed to tell.
    """
    name = type(node).__name__
    with refusing(f"{name} cannot tell what it gives"):
        gives = dict(node.join(branches))
        _check(Signature({}, gives), f"what {name} gives")
    return gives


def digest_of(node: Node) -> str:
    """The digest of a node's model, or the empty text.

    Raises:
        SetupError: Its model cannot be read.
    """
    name = type(node).__name__
    with refusing(f"{name} cannot tell its digest"):
        digest: Any = node.digest()
    if not isinstance(digest, str):
        raise NodeContractError(f"{name}.digest has to give a text, not {type(digest).__name__}")
    return digest


def needs_of(node: Aggregate, branches: Collection[str]) -> Needs:
    """The branches that an aggregate needs to answer a row.

    Raises:
        NodeContractError: It says something else, or names a branch that it is not given.
        SetupError: It failed to tell.
    """
    name = type(node).__name__
    with refusing(f"{name} cannot tell which branches it needs"):
        needs: Any = node.needs
    if not isinstance(needs, tuple):
        if needs not in ("every", "any", "none"):
            raise NodeContractError(f"{name}.needs has to be every, any, none or names of branches, not {needs!r}")
        return cast("Needs", needs)
    told = cast("tuple[Any, ...]", needs)
    lacking = next((one for one in told if one not in branches), None)
    if lacking is not None:
        raise NodeContractError(f"{name} needs branch {lacking!r}; it is given {', '.join(branches)}")
    return told


def version_of(node: Node) -> str:
    """The version that the author of a node declares.

    Raises:
        SetupError: It is none that can be told.
    """
    name = type(node).__name__
    with refusing(f"{name} cannot tell its version"):
        version: Any = node.version
    if not isinstance(version, str):
        raise NodeContractError(f"{name}.version has to be a text, not {type(version).__name__}")
    return version


def _check(signature: Signature, what: str) -> None:
    """A signature made by hand has to be one that can be written: names, datatypes, dimensions; and by rows.

    Raises:
        NodeContractError: It is none.
    """
    told: list[tuple[Any, Any]] = [*signature.inputs.items(), *signature.outputs.items()]
    for name, spec in told:
        if not isinstance(name, str) or not isinstance(spec, TensorSpec):
            raise NodeContractError(f"{what} has to map names to TensorSpec, and {name!r} is {spec!r}")
        if spec.shape[:1] != ("rows",):
            raise NodeContractError(f"{what}: tensor {name!r} is {spec}: its first dimension has to be 'rows'")
    try:
        same = Signature.parse(str(signature)) == signature
    except NodeContractError as error:
        raise NodeContractError(f"{what}: {error}") from None
    if not same:
        raise NodeContractError(f"{what} cannot be written as text: {signature}")
