"""The evaluation of Core ML programs against numpy, operation by operation; no student is needed for it."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from students.formats.core_ml_form import coremltools_quietly
from students.formats.core_ml_program import Program
from tests.helpers.formats import require

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(4, 2, 3, 3)).astype(np.float32)
BIAS = RNG.normal(size=4).astype(np.float32)
X = RNG.normal(size=(1, 4, 6, 8)).astype(np.float32)


def write(path: Path, function: Any) -> Path:
    """A program of one function of x, saved as Core ML would read it."""
    with coremltools_quietly() as tools:
        builder = import_module("coremltools.converters.mil").Builder
        decorate = builder.program(input_specs=[builder.TensorSpec(shape=X.shape)], opset_version=tools.target.iOS16)
        program = decorate(lambda x: function(builder, x))
        model = tools.convert(
            program,
            convert_to="mlprogram",
            compute_precision=tools.precision.FLOAT32,
            minimum_deployment_target=tools.target.iOS16,
        )
        model.save(str(path))
    return path


def every_operation(mb: Any, x: Any) -> tuple[Any, ...]:
    padded = mb.pad(x=x, pad=[0, 1, 2, 0], mode="constant", constant_val=0.5, name="padded")
    convolved = mb.conv(
        x=x,
        weight=WEIGHT,
        bias=BIAS,
        strides=[2, 1],
        pad_type="custom",
        pad=[0, 1, 1, 0],
        dilations=[1, 1],
        groups=2,
        name="convolved",
    )
    sliced = mb.slice_by_index(
        x=x,
        begin=[0, 1, 0, 2],
        end=[0, 2, 0, 7],
        end_mask=[True, False, True, False],
        stride=[1, 1, 2, 1],
        squeeze_mask=[False, True, False, False],
        name="sliced",
    )
    larger = mb.upsample_bilinear(
        x=x, scale_factor_height=2.0, scale_factor_width=2.0, align_corners=False, name="larger"
    )
    pooled = mb.avg_pool(x=x, kernel_sizes=[2, 4], strides=[2, 4], pad_type="valid", name="pooled")
    joined = mb.concat(values=(x, mb.relu(x=x)), axis=1, name="joined")
    expanded = mb.expand_dims(x=x, axes=[-3], name="expanded")
    total = mb.reduce_sum(x=x, axes=[-2, -1], keep_dims=False, name="total")
    mean = mb.reduce_mean(x=x, axes=[2, 3], keep_dims=True, name="mean")
    clipped = mb.clip(x=x, alpha=-0.5, beta=0.25, name="clipped")
    gated = mb.sub(x=mb.silu(x=x), y=mb.mul(x=mb.sigmoid(x=x), y=mean), name="gated")
    divided = mb.real_div(x=mb.add(x=x, y=np.float32(3)), y=np.float32(7), name="divided")
    return padded, convolved, sliced, larger, pooled, joined, expanded, total, mean, clipped, gated, divided


def convolution() -> np.ndarray:
    padded = np.pad(X, ((0, 0), (0, 0), (0, 1), (1, 0)))
    result = np.zeros((1, 4, 3, 7))
    for channel, row, column in np.ndindex(4, 3, 7):
        first = channel // 2 * 2
        part = padded[0, first : first + 2, 2 * row : 2 * row + 3, column : column + 3]
        result[0, channel, row, column] = (part * WEIGHT[channel]).sum() + BIAS[channel]
    return result


def twice(values: np.ndarray, axis: int) -> np.ndarray:
    """Linear interpolation between the centres of pixels; beyond the outermost ones, these."""
    size = values.shape[axis]
    at = (np.arange(2 * size) + 0.5) / 2 - 0.5
    return np.apply_along_axis(lambda line: np.interp(at, np.arange(size), line), axis, values)


def expected() -> dict[str, np.ndarray]:
    sigmoid, mean = 1 / (1 + np.exp(-X)), X.mean((2, 3), keepdims=True)
    return {
        "padded": np.pad(X, ((0, 0), (0, 0), (0, 1), (2, 0)), constant_values=0.5),
        "convolved": convolution(),
        "sliced": X[:, 1, ::2, 2:7],
        "larger": twice(twice(X, 2), 3),
        "pooled": X.reshape(1, 4, 3, 2, 2, 4).mean((3, 5)),
        "joined": np.concatenate([X, np.maximum(X, 0)], axis=1),
        "expanded": X[:, :, None],
        "total": X.sum((2, 3)),
        "mean": mean,
        "clipped": np.clip(X, -0.5, 0.25),
        "gated": X * sigmoid - sigmoid * mean,
        "divided": (X + 3) / 7,
    }


def test_every_operation_is_what_numpy_makes_of_it(tmp_path: Path):
    require("coreml")
    program = Program(write(tmp_path / "all.mlpackage", every_operation))
    values = program({"x": torch.from_numpy(X)})
    assert set(values) == set(expected())
    for name, value in expected().items():
        assert values[name].shape == value.shape, name
        np.testing.assert_allclose(values[name].numpy(), value, atol=1e-5, err_msg=name)
    assert {"conv", "upsample_bilinear", "slice_by_index", "reduce_sum"} <= program.operations


def test_an_operation_that_is_not_known_is_named(tmp_path: Path):
    require("coreml")
    path = write(tmp_path / "other.mlpackage", lambda mb, x: mb.tanh(x=x, name="y"))
    with pytest.raises(PocketiqaError, match="has the operations tanh, which cannot be evaluated here"):
        Program(path)
