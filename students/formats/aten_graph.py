"""A program of PyTorch's operations as plain JSON, which another version of PyTorch in another process can build again.

PyTorch's own files cannot be read by earlier versions; the names and arguments of its operations (ATen) hardly change.
``litert_converter`` builds the program from it.
"""

import operator
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from pseudo_labels.errors import PocketiqaError

# They check what the export has seen, and compute nothing.
_CHECKS = ("aten._assert_tensor_metadata.default", "aten._assert_scalar.default", "aten.sym_constrain_range.default")


def described(program: ExportedProgram) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The program as JSON values, and its weights.

    Returns:
        ``inputs`` (names), ``nodes`` (each with name, operation and arguments), ``outputs`` (names); and the tensors
        that nodes name besides.

    Raises:
        PocketiqaError: an operation or an argument that JSON cannot state, such as a size that is open.
    """
    tensors, given = _tensors(program), program.graph_signature.user_inputs
    nodes = [
        {
            "name": node.name,
            "operation": _operation(node),
            "args": _plain(node.args),
            "kwargs": {key: _plain(value) for key, value in node.kwargs.items()},
        }
        for node in program.graph.nodes
        if node.op == "call_function" and str(node.target) not in _CHECKS
    ]
    record = {"inputs": list(given), "nodes": nodes, "outputs": list(program.graph_signature.user_outputs)}
    used = {name for node in nodes for name in _names([*node["args"], *node["kwargs"].values()])}
    return record, {name: tensor for name, tensor in tensors.items() if name in used}


def _tensors(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Weights, statistics and constants by the names under which nodes have them."""
    stored = {**program.state_dict, **program.constants}
    return {
        spec.arg.name: stored[spec.target].detach().contiguous()
        for spec in program.graph_signature.input_specs
        if spec.kind is not InputKind.USER_INPUT and spec.target is not None
    }


def _operation(node: torch.fx.Node) -> str:
    if node.target is operator.getitem:
        return "getitem"
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        raise PocketiqaError(
            f"the student has the operation {node.target}, which this format cannot hold: take another"
        )
    return str(node.target)


def _plain(value: Any) -> Any:
    """An argument in JSON; what is no JSON value is an object with one key that says what it is."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, torch.fx.Node):
        return {"node": value.name}
    if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    raise PocketiqaError(f"the student has the argument {value}, which this format cannot hold: take another one")


def _names(values: list[Any]) -> list[str]:
    """Names of the nodes in plain arguments."""
    names = []
    for value in values:
        if isinstance(value, list):
            names += _names(value)
        elif isinstance(value, dict) and "node" in value:
            names.append(value["node"])
    return names
