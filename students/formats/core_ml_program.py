"""A Core ML program evaluated in torch, operation by operation, where Apple's runtime is not: what the file says.

Operations are those that a student has, as Apple's MIL defines them (coremltools, ``converters/mil/mil/ops/defs``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pseudo_labels.errors import PocketiqaError

# Where an .mlpackage keeps its weights.
_WEIGHTS = "Data/com.apple.CoreML/weights"
_MAIN = "main"
_TYPES = {"fp16": torch.float16, "fp32": torch.float32}


class Program:
    """The main function of an ``.mlpackage``, with its weights.

    Args:
        package: the folder.

    Raises:
        PocketiqaError: an operation that is not known here.
    """

    def __init__(self, package: Path):
        utils = import_module("coremltools.models.utils")
        reader = import_module("coremltools.converters.mil.frontend.milproto.load")
        spec = utils.load_spec(str(package))
        read = reader.load(
            spec, specification_version=spec.specificationVersion, file_weights_dir=str(package / _WEIGHTS)
        )
        function = read.functions[_MAIN]
        self._outputs = [output.name for output in function.outputs]
        # Once: of each image, only what depends on it is computed.
        self._constants: dict[str, Any] = {}
        self._steps: list[_Step] = []
        for operation in function.operations:
            (output,) = operation.outputs
            if operation.op_type == "const":
                self._constants[output.name] = _constant(output.val)
            else:
                self._steps.append(_Step(operation.op_type, _names(operation.inputs), output.name))
        unknown = sorted({step.operation for step in self._steps} - set(_OPERATIONS))
        if unknown:
            raise PocketiqaError(
                f"the Core ML program has the operations {', '.join(unknown)}, which cannot be evaluated here: take "
                f"another backbone or format (known are {', '.join(sorted(_OPERATIONS))})"
            )

    @property
    def operations(self) -> set[str]:
        """Kinds of operations, without constants."""
        return {step.operation for step in self._steps}

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Evaluate it: names of the inputs -> values, to names of the outputs -> values."""
        values = {**self._constants, **inputs}
        for step in self._steps:
            given = {
                role: [values[one] for one in name] if isinstance(name, tuple) else values[name]
                for role, name in step.inputs.items()
            }
            values[step.output] = _OPERATIONS[step.operation](given)
        return {name: values[name] for name in self._outputs}


@dataclass(frozen=True)
class _Step:
    """An operation; its inputs are names by their role, or several of them."""

    operation: str
    inputs: dict[str, str | tuple[str, ...]]
    output: str


def _names(inputs: Mapping[str, Any]) -> dict[str, str | tuple[str, ...]]:
    return {
        role: tuple(part.name for part in one) if isinstance(one, list | tuple) else one.name
        for role, one in inputs.items()
        if one is not None
    }


def _constant(value: Any) -> Any:
    """Arrays of floats as tensors; words, numbers and lists of them as they are."""
    array = np.asarray(value)
    if array.dtype.kind == "f" and array.ndim:
        return torch.from_numpy(array.copy())
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _conv(given: Mapping[str, Any]) -> Tensor:
    top, bottom, left, right = given["pad"] if given["pad_type"] == "custom" else (0, 0, 0, 0)
    if given["pad_type"] not in ("custom", "valid"):
        raise PocketiqaError(f"the Core ML program pads {given['pad_type']!r}, which cannot be evaluated here")
    x, bias = given["x"], given.get("bias")
    convolved = torch.conv2d(
        # In float16 sums are rounded once, as hardware does; torch would be slow besides.
        functional.pad(x, (left, right, top, bottom)).float(),
        given["weight"].float(),
        None if bias is None else bias.float(),
        stride=given["strides"],
        dilation=given["dilations"],
        groups=given["groups"],
    )
    return convolved.to(x.dtype)


def _pad(given: Mapping[str, Any]) -> Tensor:
    if given["mode"] != "constant":
        raise PocketiqaError(f"the Core ML program pads by {given['mode']!r}, which cannot be evaluated here")
    # Before and after, from the first of the last dimensions on; torch counts from the last one.
    amounts = given["pad"]
    backwards = [amount for at in range(len(amounts) - 2, -1, -2) for amount in amounts[at : at + 2]]
    return functional.pad(given["x"], backwards, value=given["constant_val"])


def _avg_pool(given: Mapping[str, Any]) -> Tensor:
    if given["pad_type"] not in ("custom", "valid") or any(given["pad"]) or given["ceil_mode"]:
        raise PocketiqaError("the Core ML program pools beyond the border, which cannot be evaluated here")
    return functional.avg_pool2d(given["x"], given["kernel_sizes"], given["strides"])


def _upsample(given: Mapping[str, Any]) -> Tensor:
    factors = [float(given[f"scale_factor_{side}"]) for side in ("height", "width")]
    return functional.interpolate(
        given["x"], scale_factor=factors, mode="bilinear", align_corners=bool(given["align_corners"])
    )


def _slice(given: Mapping[str, Any]) -> Tensor:
    x = given["x"]
    begins, ends = (given.get(f"{end}_mask") or [False] * x.ndim for end in ("begin", "end"))
    strides = given.get("stride") or [1] * x.ndim
    parts = [
        slice(None if open_begin else begin, None if open_end else end, stride)
        for begin, open_begin, end, open_end, stride in zip(
            given["begin"], begins, given["end"], ends, strides, strict=True
        )
    ]
    squeezed = [at for at, gone in enumerate(given.get("squeeze_mask") or ()) if gone]
    return x[tuple(parts)].squeeze(squeezed) if squeezed else x[tuple(parts)]


def _expand(given: Mapping[str, Any]) -> Tensor:
    x, axes = given["x"], given["axes"]
    for axis in sorted(at % (x.ndim + len(axes)) for at in axes):
        x = x.unsqueeze(axis)
    return x


def _reduced(by: Callable[..., Tensor]) -> Callable[[Mapping[str, Any]], Tensor]:
    return lambda given: by(given["x"], _axes(given["axes"]), keepdim=bool(given["keep_dims"]))


def _axes(axes: Sequence[int] | int) -> list[int]:
    return [axes] if isinstance(axes, int) else list(axes)


def _binary(function: Callable[[Any, Any], Tensor]) -> Callable[[Mapping[str, Any]], Tensor]:
    return lambda given: function(given["x"], given["y"])


_OPERATIONS: dict[str, Callable[[Mapping[str, Any]], Tensor]] = {
    "add": _binary(torch.add),
    "avg_pool": _avg_pool,
    "cast": lambda given: given["x"].to(_TYPES[given["dtype"]]),
    "clip": lambda given: given["x"].clamp(given["alpha"], given["beta"]),
    "concat": lambda given: torch.cat(given["values"], dim=given["axis"]),
    "conv": _conv,
    "expand_dims": _expand,
    "mul": _binary(torch.mul),
    "pad": _pad,
    "real_div": _binary(torch.div),
    "reduce_mean": _reduced(torch.mean),
    "reduce_sum": _reduced(torch.sum),
    "relu": lambda given: given["x"].relu(),
    "sigmoid": lambda given: given["x"].sigmoid(),
    "silu": lambda given: functional.silu(given["x"]),
    "slice_by_index": _slice,
    "sub": _binary(torch.sub),
    "upsample_bilinear": _upsample,
}
