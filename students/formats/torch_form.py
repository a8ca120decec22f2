"""A student in torch in the form that the converters of other runtimes take: fixed factors, no reading of sizes.

The weights are those of the exported file, put back by name.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from pseudo_labels.errors import PocketiqaError
from students.config import DP_IQA_B7, StudentConfig
from students.contract import StudentContract
from students.formats.convert import FloatStudent
from students.formats.form import Form
from students.model import PocketStudent, load_graph_weights
from students.preprocess import Preprocess
from students.registry import new_student
from students.session import EMBEDDING, OUTPUTS

TORCH_OUTPUTS = (*OUTPUTS, EMBEDDING)
"""Outputs of the forms below, in their order."""


class BytesForm(nn.Module):
    """uint8 [1, H, W, 3] -> score [1], quality and weight map [1, h, w], embedding [1, C]; normalises inside.

    Args:
        student: with fixed factors: sides must be multiples of its strides.
    """

    def __init__(self, student: PocketStudent):
        super().__init__()
        self.student = student

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """Score an image."""
        return _outputs(self.student, rgb.permute(0, 3, 1, 2).float())


class PlanesForm(nn.Module):
    """float32 [1, 3, H, W], pixels from 0 to 255 -> as ``BytesForm``; for runtimes that turn bytes into such planes.

    Args:
        student: as for ``BytesForm``.
    """

    def __init__(self, student: PocketStudent):
        super().__init__()
        self.student = student

    def forward(self, planes: Tensor) -> tuple[Tensor, ...]:
        """Score an image."""
        return _outputs(self.student, planes)


def _outputs(student: PocketStudent, planes: Tensor) -> tuple[Tensor, ...]:
    output = student.of_pixels(planes * student.normalise.scale - student.normalise.shift)
    assert output.embedding is not None, "features and maps of a PocketStudent have the same cells"
    return output.score, output.quality_map, output.weight_map, output.embedding


def largest_stride(contract: StudentContract) -> int:
    """Sides that are multiples of it have whole cells in every feature map, in pixels."""
    return max(_config(contract).levels)


of_torch = partial(
    Form, multiple=lambda student: largest_stride(student.contract), outputs=lambda student: TORCH_OUTPUTS
)
"""A ``Form`` that is converted from one of the modules above; takes its other fields."""


def rebuild(graph: onnx.ModelProto, contract: StudentContract) -> PocketStudent:
    """The student of an exported graph in torch, in evaluation mode, for sides that are multiples of its strides.

    A region head is left out: other runtimes give the score and its maps.

    Args:
        graph: float graph.
        contract: its contract.

    Raises:
        PocketiqaError: a published student, or a graph that is not the one of its contract.
    """
    student = new_student(_config(contract))
    assert isinstance(student, PocketStudent), "_config refuses the others"
    load_graph_weights(student, graph, contract.name)
    student.neck.fixed_factors = True
    return student.eval().requires_grad_(False)


def exported_program(student: FloatStudent, preprocess: Preprocess) -> ExportedProgram:
    """``BytesForm`` of a student as a program of PyTorch's operations, with sides left open in their range.

    Args:
        student: the float student.
        preprocess: its resize, with sides rounded to multiples of its strides.

    Raises:
        PocketiqaError: see ``rebuild``.
    """
    least, most = (side // preprocess.multiple for side in (preprocess.least, preprocess.largest))
    # Not the smallest: the export takes a side that equals a limit for one that cannot change.
    height, width = (preprocess.multiple * min(least + more, most) for more in (1, 2))
    sides: dict[int, Any] = {}
    if least < most:
        # Counted in cells, so that the converter knows that sides are multiples.
        sides = {
            at: preprocess.multiple * Dim(f"{name}_cells", min=least, max=most)
            for at, name in ((1, "height"), (2, "width"))
        }
    pixels = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    form = BytesForm(rebuild(student.graph, student.contract)).eval()
    return export(form, (pixels,), dynamic_shapes={"rgb": sides}, strict=False)


def _config(contract: StudentContract) -> StudentConfig:
    config = StudentConfig.from_dict(contract.student)
    if config.backbone == DP_IQA_B7:
        raise PocketiqaError(
            f"{DP_IQA_B7} is another network than a pocket student, and this format cannot hold it: take --format onnx "
            "or openvino"
        )
    return replace(config, regions=None)


def example(side: int, *, planes: bool) -> Tensor:
    """An input to trace with: zeros of ``side`` by ``2 * side`` pixels, so that height and width cannot be confused."""
    if planes:
        return torch.zeros(1, 3, side, 2 * side)
    return torch.zeros(1, side, 2 * side, 3, dtype=torch.uint8)
