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
PIXELS = 1
"""The level of a region head that stands for the pixels themselves."""
_LEAST_STRIDE_OF_PIXELS = 4
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
    "regions": None,
    "last_stage": "",
}

Colour = tuple[float, float, float]
"""Red, green, blue."""

# Field name -> name in files, where they differ: exported students and training folders already have it.
_STORED = {"map_stride": "grid"}


@dataclass(frozen=True)
class RegionHeadConfig:
    """A second pair of maps, for regions alone: quality of each cell, and how much it matters for the whole image.

    The score's maps know the image, a region's must know where: it sees finer levels of the same backbone, and its own
    weights alone are trained for regions, so that no score changes.

    Attributes:
        levels: strides of the feature maps used, rising; 1 is for statistics of the pixels (``PixelStatistics``).
        map_stride: stride of both maps, one of ``levels``.
        width: channels of the fused map; each reduced level has half as many.
    """

    levels: tuple[int, ...] = (PIXELS, 4, 8, 16)
    map_stride: int = 8
    width: int = 48

    def __post_init__(self) -> None:
        _check_levels(self.levels, self.map_stride, "regions.")
        if PIXELS in self.levels and self.map_stride < _LEAST_STRIDE_OF_PIXELS:
            raise PocketiqaError(
                f"regions.map_stride is {self.map_stride}: with statistics of the pixels, choose at least "
                f"{_LEAST_STRIDE_OF_PIXELS}"
            )
        check_int(self.width, "regions.width", 2, _MAX_WIDTH)

    @property
    def backbone_levels(self) -> tuple[int, ...]:
        """Strides of the backbone's feature maps that are used."""
        return tuple(level for level in self.levels if level != PIXELS)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"levels": list(self.levels), "map_stride": self.map_stride, "width": self.width}

    @classmethod
    def from_dict(cls, record: Any) -> "RegionHeadConfig":
        """Read the JSON form.

        Raises:
            PocketiqaError: a field is missing, unknown or out of range.
        """
        values = check_fields(record, [item.name for item in fields(cls)], "configuration of the region head")
        return cls(_as_tuple(values["levels"], "levels"), values["map_stride"], values["width"])


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
        regions: maps of their own for regions; None takes those of the score.
        last_stage: timm's name of the stage that the last level is read behind, such as ``blocks.5``, where several
            stages have that stride; empty for the deepest (EfficientNet and MobileNet families of timm only).
    """

    backbone: str
    levels: tuple[int, ...] = (4, 8, 16, 32)
    map_stride: int = 16
    head_width: int = 64
    mean: Colour | None = None
    std: Colour | None = None
    pad_type: str = ""
    preprocess: Preprocess = field(default_factory=Preprocess)
    regions: RegionHeadConfig | None = None
    last_stage: str = ""

    def __post_init__(self) -> None:
        _check_levels(self.levels, self.map_stride)
        if not isinstance(self.last_stage, str):
            raise PocketiqaError(f"last_stage is {self.last_stage!r}, but a name such as 'blocks.5' is needed")
        if self.pad_type not in PAD_TYPES:
            raise PocketiqaError(f"pad_type is {self.pad_type!r}, but one of {list(PAD_TYPES)} is needed")
        check_int(self.head_width, "head_width", 1, _MAX_WIDTH)
        _check_colour(self.mean, "mean", -10.0)
        # Above 0, as it divides.
        _check_colour(self.std, "std", 1e-6)
        if self.backbone == DP_IQA_B7:
            _check_dp_iqa_b7(self)

    @property
    def feature_levels(self) -> tuple[int, ...]:
        """Strides of all feature maps that the backbone gives, rising."""
        return tuple(sorted({*self.levels, *(self.regions.backbone_levels if self.regions else ())}))

    @property
    def region_stride(self) -> int:
        """Stride of the maps that regions are read from, in pixels of the input."""
        return self.regions.map_stride if self.regions else self.map_stride

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        # Every field, also those at their defaults: a later version may have other defaults.
        record = {_STORED.get(item.name, item.name): getattr(self, item.name) for item in fields(self)}
        for name in ("levels", "mean", "std"):
            # Lists, as JSON has no tuples: a record that was read back must equal one that was just made.
            record[name] = None if record[name] is None else list(record[name])
        # No key where there is none: the record is then what versions without these fields wrote and read.
        regions, last_stage = record.pop("regions"), record.pop("last_stage")
        record |= {} if regions is None else {"regions": regions.as_dict()}
        record |= {"last_stage": last_stage} if last_stage else {}
        return {**record, "preprocess": self.preprocess.as_dict()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "StudentConfig":
        """Read the JSON form.

        Raises:
            PocketiqaError: a field is missing, unknown or out of range.
        """
        stored = {_STORED.get(item.name, item.name): item.name for item in fields(cls)}
        later = ("regions", "last_stage")
        checked = check_fields(record, set(stored) - set(later), "student configuration", optional=later)
        values = {stored[name]: value for name, value in checked.items()}
        for name in ("levels", "mean", "std"):
            values[name] = None if values[name] is None else _as_tuple(values[name], name)
        if "regions" in values:
            values["regions"] = RegionHeadConfig.from_dict(values["regions"])
        return cls(**{**values, "preprocess": Preprocess.from_dict(values["preprocess"])})


def _check_levels(levels: tuple[int, ...], map_stride: int, prefix: str = "") -> None:
    levels = tuple(levels)
    # Strides first: in a record that was altered there may be values that cannot be sorted.
    if not levels or any(level not in _STRIDES for level in levels) or sorted(set(levels)) != list(levels):
        shown = ", ".join(str(level)[:_LONGEST_SHOWN] for level in levels[: len(_STRIDES)])
        raise PocketiqaError(f"{prefix}levels is [{shown}], but rising strides out of {list(_STRIDES)} are needed")
    if map_stride not in levels:
        raise PocketiqaError(f"{prefix}map_stride is {map_stride!r}, but it must be one of the levels {list(levels)}")


def _as_tuple(value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, Sequence):
        raise PocketiqaError(f"{name} is {value!r} in the student configuration: a list is needed")
    return tuple(value)


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
