"""The student that ``pocketiqa adapt`` begins with, and what of its file an adapted one cannot take over."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from distill.stages.export import export_checkpoint
from distill.stages.map_head_fitting import Heads
from pseudo_labels.errors import PocketiqaError
from students.config import DP_IQA_B7, StudentConfig
from students.contract import StudentContract
from students.formats.sealing import unsealed
from students.model import EXPORTED, PocketStudent, load_exported_weights
from students.registry import new_student
from students.session import read_model
from students.shipped import model_path


@dataclass(frozen=True)
class StartStudent:
    """The student that is adapted.

    Attributes:
        contract: its contract.
        digest: hex SHA-256 of the model.
        student: with its weights, without a region head.
        half: whether its file stores weights in float16.
    """

    contract: StudentContract
    digest: str
    student: PocketStudent
    half: bool

    @classmethod
    def open(cls, model: str | None) -> "StartStudent":
        """Read it.

        Args:
            model: exported file in float, name, or a folder or checkpoint that ``pocketiqa export`` takes.

        Raises:
            PocketiqaError: there is none, or it is in 8 bits or of an architecture with other heads.
        """
        path = model_path(model)
        if path.suffix == EXPORTED or not path.exists():
            return cls._of_file(path)
        # Through a file, so that a checkpoint begins as exactly what its export would.
        with tempfile.TemporaryDirectory() as folder:
            return cls._of_file(export_checkpoint(path, Path(folder) / f"{path.name}{EXPORTED}").path)

    @classmethod
    def _of_file(cls, path: Path) -> "StartStudent":
        graph, contract, digest = unsealed(read_model(path), str(path))
        if contract.conversion is not None:
            raise PocketiqaError(
                f"{path} is in 8 bits, which cannot be trained: adapt the float student that it was made from, then "
                f"`pocketiqa export OUT --format {contract.conversion.get('format', 'onnx-int8')}`"
            )
        if contract.backbone == DP_IQA_B7:
            raise PocketiqaError(f"{path} is {DP_IQA_B7}, whose head is another: adapt a pocket student")
        config = replace(StudentConfig.from_dict(contract.student), regions=None)
        student = new_student(config)
        assert isinstance(student, PocketStudent), "all but the published student are"
        load_exported_weights(student, path)
        half = any(one.data_type == one.FLOAT16 for one in graph.graph.initializer)
        return cls(contract, digest, student.eval(), half)

    @property
    def heads(self) -> Heads:
        """Its heads."""
        conv = self.student.heads
        assert conv.bias is not None, "the heads have one"
        weight = conv.weight.detach().double().numpy()
        return Heads(weight.reshape(len(weight), -1), conv.bias.detach().double().numpy())

    def with_heads(self, heads: Heads) -> PocketStudent:
        """A student with these heads."""
        student = new_student(self.student.config)
        assert isinstance(student, PocketStudent), "as the one that it is made of"
        student.load_state_dict(self.student.state_dict())
        assert student.heads.bias is not None, "the heads have one"
        with torch.no_grad():
            student.heads.weight.copy_(torch.tensor(heads.weight).view_as(student.heads.weight))
            student.heads.bias.copy_(torch.tensor(heads.bias))
        return student.eval()

    @property
    def dropped(self) -> list[str]:
        """What is not taken over, as it was fitted to the scores or features from before; how to have it again."""
        contract, lines = self.contract, list[str]()
        if contract.look is not None:
            lines.append("The second look is left out, its head was fitted to the scores before: `pocketiqa fit-look`.")
        if contract.pairs is not None:
            lines.append("The head on pairs is left out, it has the taste from before: `pocketiqa fit-pairs`.")
        if contract.types is not None:
            lines.append("The head on types is left out, the embedding that it reads changes: `pocketiqa fit-types`.")
        if contract.regions is not None:
            lines.append(
                "The maps of regions are left out, they read blocks that may be trained: regions are read from the "
                "maps of the score."
            )
        if contract.calibration is not None:
            lines.append("The calibration is left out: the scores are on the scale of your ratings.")
        return lines


def shared_parts(student: PocketStudent) -> tuple[str, ...]:
    """Names of the parts of the backbone that more than the coarsest feature map is made of, for ``freeze``.

    What is left, the last blocks, is computed on the smallest maps. A student of a single map has none: of it the
    whole backbone is named.
    """
    used = [(name, value) for name, value in student.backbone.named_parameters()]
    maps = student.backbone(student.normalise(torch.zeros(1, 64, 64, 3, dtype=torch.uint8)))
    if len(maps) == 1:
        return ("backbone",)
    # What a map depends on has a gradient of it: this asks no backbone how it names its stages.
    gradients = torch.autograd.grad(maps[-2].sum(), [value for _, value in used], allow_unused=True)
    early = {f"backbone.{name}" for (name, _), one in zip(used, gradients, strict=True) if one is not None}
    named: list[str] = []
    for name, part in student.named_modules():
        own = {f"{name}.{parameter}" for parameter, _ in part.named_parameters()}
        if own and own <= early and not any(name.startswith(f"{one}.") for one in named):
            named.append(name)
    return tuple(named)


def trained_parts(student: PocketStudent, frozen: tuple[str, ...]) -> list[str]:
    """Names of what is trained where ``frozen`` is not: the last blocks, the neck and the heads."""

    def is_within(name: str, others: Sequence[str]) -> bool:
        return any(name == one or name.startswith(f"{one}.") for one in others)

    blocks: list[str] = []
    for name, part in student.named_modules():
        learns = name.startswith("backbone.") and next(part.parameters(), None) is not None
        above_frozen = any(is_within(one, [name]) for one in frozen)
        if learns and not above_frozen and not is_within(name, [*frozen, *blocks]):
            blocks.append(name)
    return [*blocks, "neck", "heads"]
