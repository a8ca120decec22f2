"""Programs as plain JSON, built again as another version of PyTorch would."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.export import Dim, export

from pseudo_labels.errors import PocketiqaError
from students.formats.aten_graph import described
from students.formats.convert import FloatStudent
from students.formats.litert_converter import built
from students.formats.torch_form import TORCH_OUTPUTS, BytesForm, exported_program, rebuild


def test_a_student_built_again_from_json_scores_to_the_bit(tiny_float: FloatStudent):
    preprocess = replace(tiny_float.contract.preprocess, multiple=32)
    record, tensors = described(exported_program(tiny_float, preprocess))
    copy = json.loads(json.dumps({**record, "names": TORCH_OUTPUTS}))
    module, form = built(copy, tensors), BytesForm(rebuild(tiny_float.graph, tiny_float.contract)).eval()
    rng = np.random.default_rng(0)
    with torch.inference_mode():
        # One description for all sizes.
        for height, width in ((64, 96), (128, 64), (128, 128)):
            rgb = torch.from_numpy(rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8))
            again = module(rgb)
            assert tuple(again) == TORCH_OUTPUTS
            for name, value in zip(TORCH_OUTPUTS, form(rgb), strict=True):
                assert torch.equal(again[name], value)


class Reshaped(torch.nn.Module):
    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        return rgb.reshape(2 * rgb.shape[1], -1)


class Foreign(torch.nn.Module):
    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        return torch.ops.prims.sin(rgb)


def test_what_json_cannot_state_is_refused():
    pixels = torch.zeros(1, 64, 64, 3)
    with pytest.raises(PocketiqaError, match="operation <built-in function mul>, which this format cannot hold"):
        described(export(Reshaped(), (pixels,), dynamic_shapes={"rgb": {1: Dim("height", max=128)}}))
    with pytest.raises(PocketiqaError, match=r"the operation prims\.sin\.default, which this format cannot hold"):
        described(export(Foreign(), (pixels,)))
