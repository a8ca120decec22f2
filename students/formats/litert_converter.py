"""A program of ``aten_graph`` -> a LiteRT file. Runs in the converter's environment, and imports nothing of ours.

Called with a folder that holds ``graph.json`` and ``weights.safetensors``; writes ``model.tflite`` there.
"""

import json
import operator
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

GRAPH, WEIGHTS, MODEL = "graph.json", "weights.safetensors", "model.tflite"


def built(record: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> torch.fx.GraphModule:
    """The module that ``aten_graph.described`` described; its outputs are a dictionary.

    Args:
        record: what that gave, with ``names`` of the outputs in their order.
        tensors: the weights by name.
    """
    root, graph = torch.nn.Module(), torch.fx.Graph()
    nodes: dict[str, torch.fx.Node] = {name: graph.placeholder(name) for name in record["inputs"]}
    for name, tensor in tensors.items():
        root.register_buffer(name, tensor)
        nodes[name] = graph.get_attr(name)
    for node in record["nodes"]:
        arguments = [_argument(one, nodes) for one in node["args"]]
        named = {key: _argument(one, nodes) for key, one in node["kwargs"].items()}
        nodes[node["name"]] = graph.call_function(_function(node["operation"]), tuple(arguments), named)
    graph.output({key: nodes[name] for key, name in zip(record["names"], record["outputs"], strict=True)})
    module = torch.fx.GraphModule(root, graph)
    module.eval()
    return module


def _function(name: str) -> Any:
    if name == "getitem":
        return operator.getitem
    _, operation, overload = name.split(".")
    return getattr(getattr(torch.ops.aten, operation), overload)


def _argument(value: Any, nodes: Mapping[str, torch.fx.Node]) -> Any:
    if isinstance(value, list):
        return [_argument(one, nodes) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, name),) = value.items()
    if kind == "node":
        return nodes[name]
    return torch.device(name) if kind == "device" else getattr(torch, name)


def main(folder: Path) -> None:
    """Convert what lies in a folder: one signature a size, named by it (``HxW``)."""
    record = json.loads((folder / GRAPH).read_text(encoding="utf-8"))
    module = built(record, import_module("safetensors.torch").load_file(folder / WEIGHTS))
    # Its function ``signature`` begins a conversion, of which the method of that name adds another.
    converter: Any = import_module("litert_torch")
    for height, width in record["sizes"]:
        pixels = {name: torch.zeros(1, height, width, 3, dtype=torch.uint8) for name in record["inputs"]}
        converter = converter.signature(f"{height}x{width}", module, sample_kwargs=pixels)
    converter.convert().export(str(folder / MODEL))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
