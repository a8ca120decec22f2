"""The architecture of a student as plain numbers: one record rebuilds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from pseudo_labels.errors import PocketiqaError
from students.fields import check_fields, check_int
from students.preprocess import Preprocess

DP_IQA_B7 = "dp-iqa-b7"
"""``backbone`` of the student that DP-IQA's authors published (``students.dp_iqa_b7``); all other names are timm's."""

PAD_TYPES = ("", "same")
_STRIDES = (1, 2, 4, 8, 16, 32, 64)
# Letters of a wrong value that a message repeats.
_LONGEST_SHOWN = 40
# A limit against typing errors: a wider head alone would have more parameters than any pocket preset may have.
_MAX_WIDTH = 4096
# Published weights fit one architecture only: the last map has stride 32 and 8 channels, the input is RGB in [0, 1].
_DP_IQA_B7_FIELDS: dict[str, Any] = {
    "levels": (32,),
    "map_stride": 32,
    "head_width": 8,
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "pad_type": "",
}

Colour = tuple[float, float, float]
"""Red, green, blue."""

# Field name -> name in files, where they differ: exported students and training folders already have it.
_STORED = {"map_stride": "grid"}


@dataclass(frozen=True)
class StudentConfig:
    """Everything that determines a student's architecture and its input.

    Attributes:
        backbone: a timm model name, any convolutional pyramid; or ``DP_IQA_B7``, of which only ``preprocess`` can be
            chosen (see ``dp_iqa_b7_config``).
        levels: strides of the feature maps used, rising. Stages behind the last one are left out of the model.
        map_stride: stride of the quality map in pixels of the input, one of ``levels``; called ``grid`` on disk.
        head_width: channels of each reduced level and of the fused map.
        mean: mean of each colour, subtracted from RGB in [0, 1]; None takes what timm states for the backbone.
        std: standard deviation of each colour, by which the difference is divided; None takes what timm states.
        pad_type: padding of strided convolutions: "" as in PyTorch, "same" as in TensorFlow, for weights that come
            from there (EfficientNet and MobileNet families of timm only).
        preprocess: the resize before the network.
    """

    backbone: str
    levels: tuple[int, ...] = (4, 8, 16, 32)
    map_stride: int = 16
    head_width: int = 64
    mean: Colour | None = None
    std: Colour | None = None
    pad_type: str = ""
    preprocess: Preprocess = field(default_factory=Preprocess)

    def __post_init__(self) -> None:
        levels = tuple(self.levels)
        # Strides first: in a record that was altered there may be values that cannot be sorted.
        if not levels or any(level not in _STRIDES for level in levels) or sorted(set(levels)) != list(levels):
            shown = ", ".join(str(level)[:_LONGEST_SHOWN] for level in levels[: len(_STRIDES)])
            raise PocketiqaError(f"levels is [{shown}], but rising strides out of {list(_STRIDES)} are needed")
        if self.map_stride not in levels:
            raise PocketiqaError(f"map_stride is {self.map_stride!r}, but it must be one of the levels {list(levels)}")
        if self.pad_type not in PAD_TYPES:
            raise PocketiqaError(f"pad_type is {self.pad_type!r}, but one of {list(PAD_TYPES)} is needed")
        check_int(self.head_width, "head_width", 1, _MAX_WIDTH)
        _check_colour(self.mean, "mean", -10.0)
        # Above 0, as it divides.
        _check_colour(self.std, "std", 1e-6)
        if self.backbone == DP_IQA_B7:
            _check_dp_iqa_b7(self)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        # Every field, also those at their defaults: a later version may have other defaults.
        record = {_STORED.get(item.name, item.name): getattr(self, item.name) for item in fields(self)}
        for name in ("levels", "mean", "std"):
            # Lists, as JSON has no tuples: a record that was read back must equal one that was just made.
            record[name] = None if record[name] is None else list(record[name])
        return {**record, "preprocess": self.preprocess.as_dict()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "StudentConfig":
        """Read the JSON form.

        Raises:
            PocketiqaError: a field is missing, unknown or out of range.
        """
        stored = {_STORED.get(item.name, item.name): item.name for item in fields(cls)}
        checked = check_fields(record, stored, "student configuration")
        values = {stored[name]: value for name, value in checked.items()}
        for name in ("levels", "mean", "std"):
            if values[name] is not None and not isinstance(values[name], Sequence):
                raise PocketiqaError(f"{name} is {values[name]!r} in the student configuration: a list is needed")
            values[name] = None if values[name] is None else tuple(values[name])
        return cls(**{**values, "preprocess": Preprocess.from_dict(values["preprocess"])})


def dp_iqa_b7_config(max_side: int = 512) -> StudentConfig:
    """The configuration of the student that DP-IQA's authors published.

    Args:
        max_side: side of its square input in pixels; it was trained on 512.

    Raises:
        PocketiqaError: ``max_side`` is out of range.
    """
    return StudentConfig(DP_IQA_B7, **_DP_IQA_B7_FIELDS, preprocess=Preprocess(max_side=max_side))


def _check_dp_iqa_b7(config: StudentConfig) -> None:
    for name, fixed in _DP_IQA_B7_FIELDS.items():
        if getattr(config, name) != fixed:
            raise PocketiqaError(
                f"{name} is {getattr(config, name)!r}, but {DP_IQA_B7} has {fixed!r}: leave {name} out, of its "
                "architecture only max_side can be chosen"
            )


def _check_colour(value: Colour | None, name: str, low: float) -> None:
    if value is None:
        return
    if len(value) != 3 or not all(isinstance(part, int | float) and low <= part <= 10 for part in value):
        raise PocketiqaError(f"{name} is {value!r}, but three numbers from {low} to 10 are needed (RGB in [0, 1])")
