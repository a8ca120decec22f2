"""What is wrong with a photograph: a small head on what a student saw names the main damage, and how strong it is.

The file of a student may hold one (``StudentContract.types``). It is a multinomial logistic regression on the
embedding over causes, of which several may belong to one type (contrast that is too low or too high); the probability
of a type is the sum of those of its causes. Each cause has a straight line for the strength.

Needs numpy only. Fitted by ``pocketiqa fit-types``.
"""

from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudo_labels.errors import PocketiqaError, shown
from students.fields import check_fields
from students.heads import FloatArray, check_numbers, is_number, packed, standardised, unpacked, unpacked_rows

NONE = "none"
TYPES = (
    *(NONE, "blur", "motion", "noise", "compression"),
    *("dark", "bright", "contrast", "colour", "pixelation"),
)
"""Types of damage, and none: out of focus or smoothed, shaken, noise, traces of compression, exposed too little or too
much, contrast or colours too weak or too strong, large pixels."""
MAX_CAUSES = 100
_COMMAND = "fit-types"
_VECTORS, _TABLES = ("mean", "scale"), ("weights", "slopes")
_PER_CAUSE = ("biases", "offsets")


@dataclass(frozen=True, slots=True)
class Damage:
    """The main damage of a photograph.

    Attributes:
        type: one of ``TYPES``.
        strength: in [0, 1], fifths are KADID-10k's levels; 0 of ``none``.
        probability: of the type, in [0, 1], where all types are equally frequent.
    """

    type: str
    strength: float
    probability: float


@dataclass(frozen=True)
class TypeHead:
    """See the module.

    A file holds ``mean``, ``scale``, ``weights`` and ``slopes`` in half precision (``heads.packed``).

    Attributes:
        mean: [C] of the embeddings of photographs, subtracted.
        scale: [C], above 0: one over their standard deviations.
        causes: [K], the type of each cause, one of ``TYPES``; each type has one at least.
        weights: [K][C] of the standardised embedding, for the logit of each cause.
        biases: [K], added to these logits.
        slopes: [K][C] of the standardised embedding, for the strength if this is the cause.
        offsets: [K], added to these strengths.
        fitted: what it was fitted on and how well it does, JSON values.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    causes: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    biases: tuple[float, ...]
    slopes: tuple[tuple[float, ...], ...]
    offsets: tuple[float, ...]
    fitted: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.causes) > MAX_CAUSES or set(self.causes) != set(TYPES):
            raise PocketiqaError(
                f"types.causes is {shown(self.causes)}, but each of {', '.join(TYPES)} is needed, and nothing else; "
                "fit it anew with `pocketiqa fit-types`"
            )
        for name in _VECTORS:
            check_numbers(getattr(self, name), f"types.{name}", len(self.mean), _COMMAND)
        if not all(value > 0 for value in self.scale):
            raise PocketiqaError("types.scale holds a number of 0 or less; fit it anew with `pocketiqa fit-types`")
        for name in (*_TABLES, *_PER_CAUSE):
            if len(getattr(self, name)) != len(self.causes):
                raise PocketiqaError(
                    f"types.{name} has {len(getattr(self, name))} entries, but there are {len(self.causes)} causes; "
                    "fit it anew with `pocketiqa fit-types`"
                )
        for name in _TABLES:
            for row in getattr(self, name):
                check_numbers(row, f"types.{name}[]", len(self.mean), _COMMAND)
        for name in _PER_CAUSE:
            if not all(map(is_number, getattr(self, name))):
                raise PocketiqaError(f"types.{name} is {shown(getattr(self, name))}, but finite numbers are needed")
        if not isinstance(self.fitted, dict):
            raise PocketiqaError("types.fitted must be an object; fit it anew with `pocketiqa fit-types`")

    @cached_property
    def _numbers(self) -> tuple[FloatArray, ...]:
        """``mean`` and ``scale`` [C], and weights and slopes as one table [C, 2 K] with its constants [2 K]."""
        table = np.array([*self.weights, *self.slopes], np.float64).T
        return np.array(self.mean), np.array(self.scale), table, np.array([*self.biases, *self.offsets])

    @cached_property
    def _of_type(self) -> NDArray[np.bool_]:
        """[K, len(TYPES)], which cause belongs to which type."""
        return np.array([[cause == one for one in TYPES] for cause in self.causes])

    def judged(self, embeddings: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Probabilities of the types, and the strength if each was the damage.

        Args:
            embeddings: [N, E], of C numbers or more, see ``heads.standardised``.

        Returns:
            [N, len(TYPES)] in [0, 1] with sums of 1, and [N, len(TYPES)] in [0, 1], 0 of ``none``; in the order of
            ``TYPES``.

        Raises:
            PocketiqaError: fewer than C numbers.
        """
        mean, scale, table, constants = self._numbers
        values = standardised(embeddings, mean, scale, _COMMAND) @ table + constants
        count = len(self.causes)
        logits, strengths = values[:, :count], np.clip(values[:, count:], 0.0, 1.0)
        chances = np.exp(logits - logits.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        by_type = chances @ self._of_type
        # By the causes of the type, as likely as they are; a type that is impossible has no strength.
        mixed = (chances * strengths) @ self._of_type
        strength = np.divide(mixed, by_type, out=np.zeros_like(mixed), where=by_type > 0)
        strength[:, TYPES.index(NONE)] = 0.0
        return by_type, strength

    def damage(self, embedding: ArrayLike) -> Damage:
        """The main damage of one photograph: the most probable type.

        Args:
            embedding: [E], see ``students.runtime.Result``.

        Raises:
            PocketiqaError: fewer than C numbers.
        """
        (chances,), (strengths,) = self.judged(np.asarray(embedding, np.float64)[None])
        best = int(np.argmax(chances))
        return Damage(TYPES[best], float(strengths[best]), float(chances[best]))

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        lists = {name: list(getattr(self, name)) for name in ("causes", *_PER_CAUSE)}
        return {**asdict(self), **lists, **{name: packed(getattr(self, name)) for name in (*_VECTORS, *_TABLES)}}

    @classmethod
    def from_dict(cls, record: Any) -> "TypeHead":
        """Read the JSON form.

        Raises:
            PocketiqaError: a field is missing, unknown or out of range.
        """
        values = check_fields(record, [item.name for item in fields(cls)], "part of the student contract on types")
        for name in ("causes", *_PER_CAUSE):
            if not isinstance(values[name], list):
                raise PocketiqaError(f"types.{name} is {shown(values[name])}, but a list is needed")
            values[name] = tuple(values[name])
        if not all(isinstance(cause, str) for cause in values["causes"]):
            raise PocketiqaError(f"types.causes is {shown(values['causes'])}, but a list of types is needed")
        for name in _VECTORS:
            values[name] = unpacked(values[name], f"types.{name}", _COMMAND)
        for name in _TABLES:
            values[name] = unpacked_rows(values[name], len(values["causes"]), f"types.{name}", _COMMAND)
        return cls(**values)
