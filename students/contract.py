"""The contract of an exported student: JSON inside the model file, read by the runtime without torch."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

import numpy as np

from pseudo_labels.errors import PocketiqaError, shown
from pseudo_labels.files import parse_json
from students.damage import TypeHead
from students.fields import check_fields
from students.look import SecondLook
from students.pairs import PairHead
from students.preprocess import Preprocess

CONTRACT_KEY = "pocketiqa.contract"
"""Key of the contract among the model file's metadata."""
FORMAT = 1
REGION_FORMAT = 2
"""Format of students with a region head, whose files have two more outputs; all others keep the first format."""
LOOK_FORMAT = 3
"""Format of students whose file asks for a second look, with or without a region head."""
PACKED_FORMAT = 6
"""Format of students whose file holds heads on their embedding (``pairs``, ``types``), with or without other parts.

Formats 4 (``pairs``) and 5 (``types``), in which the numbers of heads were decimals, are read and no longer written.
"""
UNKNOWN_SCALE = "unknown"
SCORE_MEANING = "perceived quality, 0 worst, 1 best"
# Parts that a contract of each format must have, and may have.
_PARTS: dict[int, tuple[set[str], set[str]]] = {
    FORMAT: (set(), set()),
    REGION_FORMAT: ({"regions"}, set()),
    LOOK_FORMAT: ({"look"}, {"regions"}),
    4: ({"pairs"}, {"look", "regions"}),
    5: ({"types"}, {"pairs", "look", "regions"}),
    PACKED_FORMAT: (set(), {"types", "pairs", "look", "regions"}),
}
NEWEST_FORMAT = max(_PARTS)
"""Newest format; ``web/src/model.ts`` reads as many."""
# JSON types of the fields that are stored without conversion.
_PLAIN: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "meaning": str,
    "scale": str,
    "student": dict,
    "parameters": int,
    "macs": int,
    "code_version": str,
    "metrics": dict,
    "parity": (dict, type(None)),
}
_REGION_FIELDS: dict[str, type | tuple[type, ...]] = {
    "scale": str,
    "map_stride": int,
    "parameters": int,
    "macs": int,
    "metrics": dict,
}


@dataclass(frozen=True)
class Calibration:
    """Strictly increasing broken line through ``knots``, from raw score 0 to raw score 1, so ranks never change.

    Attributes:
        knots: pairs (raw score, calibrated score), both strictly increasing and in [0, 1]; the first raw score is 0
            and the last is 1.
    """

    knots: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if len(self.knots) < 2 or any(len(knot) != 2 for knot in self.knots):
            raise PocketiqaError(f"the calibration has the knots {shown(self.knots)}: two or more pairs are needed")
        values = [float(value) for knot in self.knots for value in knot]
        if not all(math.isfinite(value) and 0 <= value <= 1 for value in values):
            raise PocketiqaError(f"the calibration has the knots {shown(self.knots)}: each value must lie in [0, 1]")
        if values[0] != 0 or values[-2] != 1:
            raise PocketiqaError(f"the calibration covers raw scores {values[0]} to {values[-2]}: 0 to 1 are needed")
        if not (_rises(values[::2]) and _rises(values[1::2])):
            raise PocketiqaError(
                f"the calibration has the knots {shown(self.knots)}: both columns must strictly increase"
            )

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Map raw values of any shape; float32 in, float32 out."""
        inputs, outputs = np.array(self.knots, dtype=np.float64).T
        return np.interp(raw, inputs, outputs).astype(np.float32)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"knots": [list(knot) for knot in self.knots]}

    @classmethod
    def from_dict(cls, record: Any) -> "Calibration":
        """Read the JSON form.

        Raises:
            PocketiqaError: it is not a list of increasing pairs of numbers.
        """
        knots = check_fields(record, ("knots",), "calibration")["knots"]
        try:
            return cls(tuple((float(raw), float(score)) for raw, score in knots))
        except (TypeError, ValueError, OverflowError) as error:
            raise PocketiqaError(
                f"the calibration has the knots {shown(knots)}: pairs of numbers are needed"
            ) from error


def _rises(values: Sequence[float]) -> bool:
    return all(low < high for low, high in pairwise(values))


@dataclass(frozen=True)
class StudentContract:
    """Everything a user of the file must know to trust and repeat its scores.

    Attributes:
        name: name of the student, such as ``pocket-m``.
        student: the architecture, ``StudentConfig.as_dict()``.
        preprocess: resize from image to input; also part of ``student``, repeated for readers without torch.
        scale: scale of the score, such as "reference teacher" or "MOS of BIQ2021, (MOS - 1) / 4".
        meaning: what scores of 0 and 1 mean.
        calibration: raw score -> score, or None if the raw score is the score.
        teachers: ``TeacherStamp.as_dict()`` of each.
        data: data sets it was trained on, each with ``name``, ``digest`` and ``licence``.
        parameters: number of trained values, with those of a region head.
        macs: multiply-accumulates of one square image of ``preprocess.max_side``, for its score.
        code_version: version of pocketiqa that exported it.
        metrics: results of the evaluation, JSON values.
        parity: differences between the exported file and the torch model (``students.export.Parity`` as a dict); None
            before the export.
        conversion: of a file that was made from a float one (``students.formats``): ``format``, ``source`` (digest of
            that file) and how closely its scores follow. None, and not written, for the float file.
        look: how large pictures are looked at a second time, closely; None where they are not.
        pairs: which of two photographs of one moment is better, read from the embedding; None where nothing says it.
        types: what is wrong with a photograph, read from the embedding; None where nothing says it.
        regions: of a student with maps of their own for regions: ``scale`` of their quality, ``map_stride`` in pixels
            of the resized image, ``parameters`` and ``macs`` of the region head, ``metrics`` of its evaluation. None
            where regions are read from the maps of the score.
    """

    name: str
    student: dict[str, Any]
    preprocess: Preprocess
    scale: str
    parameters: int
    macs: int
    code_version: str
    meaning: str = SCORE_MEANING
    calibration: Calibration | None = None
    teachers: tuple[dict[str, Any], ...] = ()
    data: tuple[dict[str, Any], ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] | None = None
    conversion: dict[str, Any] | None = None
    look: SecondLook | None = None
    pairs: PairHead | None = None
    types: TypeHead | None = None
    regions: dict[str, Any] | None = None

    @property
    def _format(self) -> int:
        if self.types is not None or self.pairs is not None:
            return PACKED_FORMAT
        if self.look is not None:
            return LOOK_FORMAT
        return FORMAT if self.regions is None else REGION_FORMAT

    @property
    def region_stride(self) -> int:
        """Side of a cell of the maps that regions are read from, in pixels of the resized image; 0 if not stated."""
        stride = self.student.get("grid") if self.regions is None else self.regions["map_stride"]
        return stride if isinstance(stride, int) else 0

    def check_embedding(self, embeds: bool, name: str) -> None:
        """Refuse a file whose heads have nothing to read.

        Args:
            embeds: whether the model gives an embedding.
            name: name of the file in an error.

        Raises:
            PocketiqaError: there is a head and no embedding.
        """
        for head, what, command in ((self.pairs, "pairs", "fit-pairs"), (self.types, "types", "fit-types")):
            if head is not None and not embeds:
                raise PocketiqaError(
                    f"{name} holds a head on {what}, but its network gives no embedding: fit it anew with `pocketiqa "
                    f"{command}`"
                )

    @property
    def backbone(self) -> str:
        """The timm name of the backbone."""
        return str(self.student.get("backbone", "unknown"))

    def as_dict(self) -> dict[str, Any]:
        """JSON form, with the format version."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {
            "format": self._format,
            **({} if self.look is None else {"look": self.look.as_dict()}),
            **({} if self.pairs is None else {"pairs": self.pairs.as_dict()}),
            **({} if self.types is None else {"types": self.types.as_dict()}),
            **({} if self.regions is None else {"regions": self.regions}),
            **plain,
            **({} if self.conversion is None else {"conversion": self.conversion}),
            "preprocess": self.preprocess.as_dict(),
            "score_range": [0.0, 1.0],
            "calibration": None if self.calibration is None else self.calibration.as_dict(),
            "teachers": list(self.teachers),
            "data": list(self.data),
        }

    def to_json(self) -> str:
        """The text stored in the model file."""
        return json.dumps(self.as_dict(), sort_keys=True, allow_nan=False)

    @classmethod
    def from_dict(cls, record: Any) -> "StudentContract":
        """Read the JSON form, strictly.

        Raises:
            PocketiqaError: another format version, or a field that is missing, unknown or of a wrong type.
        """
        # First: other versions may have other fields, and "upgrade" helps more than "unknown field".
        _check_format(record)
        needed, optional = _PARTS[record["format"]]
        plain = {item.name for item in fields(cls)} - {"conversion", "look", "pairs", "types", "regions"}
        names, optional = plain | {"format", "score_range"}, optional | {"conversion"}
        record = check_fields(record, names | needed, "student contract", optional=optional)
        for name, kind in _PLAIN.items():
            _check_type(record[name], kind, name)
        if "conversion" in record:
            _check_type(record["conversion"], dict, "conversion")
        for name in ("teachers", "data"):
            _check_type(record[name], list, name)
            for entry in record[name]:
                _check_type(entry, dict, f"{name}[]")
        if record["score_range"] != [0.0, 1.0]:
            raise PocketiqaError(
                f"the student contract has the score_range {shown(record['score_range'])}: [0, 1] is needed"
            )
        calibration = record["calibration"]
        if "regions" in record:
            regions = check_fields(record["regions"], _REGION_FIELDS, "part of the student contract on regions")
            for name, kind in _REGION_FIELDS.items():
                _check_type(regions[name], kind, f"regions.{name}")
        return cls(
            **{name: record[name] for name in _PLAIN},
            preprocess=Preprocess.from_dict(record["preprocess"]),
            calibration=None if calibration is None else Calibration.from_dict(calibration),
            teachers=tuple(record["teachers"]),
            data=tuple(record["data"]),
            conversion=record.get("conversion"),
            look=SecondLook.from_dict(record["look"]) if "look" in record else None,
            pairs=PairHead.from_dict(record["pairs"]) if "pairs" in record else None,
            types=TypeHead.from_dict(record["types"]) if "types" in record else None,
            regions=record.get("regions"),
        )

    @classmethod
    def from_json(cls, text: str) -> "StudentContract":
        """Read the text stored in the model file.

        Raises:
            PocketiqaError: it is not JSON, or not a contract (see ``from_dict``).
        """
        try:
            record = parse_json(text)
        except ValueError as error:
            raise PocketiqaError(f"the student contract is not JSON ({error}); export the model anew") from error
        return cls.from_dict(record)


def _check_format(record: Any) -> None:
    version = record.get("format") if isinstance(record, Mapping) else None
    # A bool equals 1.
    if not isinstance(version, int) or isinstance(version, bool) or version not in _PARTS:
        raise PocketiqaError(
            f"the student contract has format version {shown(version)}, but this pocketiqa reads {FORMAT} to "
            f"{NEWEST_FORMAT}: upgrade pocketiqa or export the model anew"
        )


def _check_type(value: Any, kind: type | tuple[type, ...], name: str) -> None:
    # To Python a bool is an int, to JSON it is not.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise PocketiqaError(f"the student contract has {type(value).__name__} as {name}; export the model anew")
