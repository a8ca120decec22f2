"""Which of two photographs of one moment is better: a small head on what a student saw of each.

The file of a student may hold one (``StudentContract.pairs``). It gives a photograph a strength, linear in its
embedding and in the logit of its score, and the probability that one photograph is better than another is the logistic
function of the difference of their strengths (Bradley and Terry, "Rank analysis of incomplete block designs", 1952). So
p(a, b) = 1 - p(b, a), and a group has one order.

Needs numpy only. Fitted by ``pocketiqa fit-pairs``.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pseudo_labels.errors import PocketiqaError, shown
from students.fields import check_fields
from students.heads import FloatArray, check_numbers, is_number, packed, standardised, unpacked

_COMMAND = "fit-pairs"
# Scores of exactly 0 or 1 have no finite logit.
_LEAST = 1e-3
_VECTORS = ("mean", "scale", "weights")


def logits(scores: ArrayLike) -> FloatArray:
    """Logits of scores in [0, 1], of any shape; those of 0 and 1 are taken as of 0.001 and 0.999."""
    clipped = np.clip(np.asarray(scores, np.float64), _LEAST, 1 - _LEAST)
    return np.log(clipped / (1 - clipped))


def chances(strengths: ArrayLike) -> FloatArray:
    """[N, N], the probability that the photograph of a row is better than that of a column; 0.5 on the diagonal.

    Args:
        strengths: [N], finite.
    """
    strengths = np.asarray(strengths, np.float64)
    # By tanh, which no difference overflows.
    return 0.5 + 0.5 * np.tanh(0.5 * (strengths[:, None] - strengths))


@dataclass(frozen=True)
class PairHead:
    """See the module. A file holds ``mean``, ``scale`` and ``weights`` in half precision (``heads.packed``).

    Attributes:
        mean: [C] of the embeddings of photographs, subtracted.
        scale: [C], above 0: one over their standard deviations.
        weights: [C] of the standardised embedding.
        score: weight of the logit of the score, 0 or more.
        alike: cosine of two ``directions``, above 0, that one pair in a hundred of different scenes exceeds.
        fitted: what it was fitted on and how well it does, JSON values.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    score: float
    alike: float
    fitted: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _VECTORS:
            check_numbers(getattr(self, name), f"pairs.{name}", len(self.mean), _COMMAND)
        if not all(value > 0 for value in self.scale):
            raise PocketiqaError("pairs.scale holds a number of 0 or less; fit it anew with `pocketiqa fit-pairs`")
        if not is_number(self.score) or self.score < 0:
            raise PocketiqaError(f"pairs.score is {shown(self.score)}, but a number of 0 or more is needed")
        if not is_number(self.alike) or not 0 < self.alike <= 1:
            raise PocketiqaError(f"pairs.alike is {shown(self.alike)}, but a cosine above 0 is needed")
        if not isinstance(self.fitted, dict):
            raise PocketiqaError("pairs.fitted must be an object; fit it anew with `pocketiqa fit-pairs`")

    def standardised(self, embeddings: ArrayLike) -> FloatArray:
        """[N, C], of mean 0 and deviation 1 over the photographs of the fit.

        Args:
            embeddings: [N, E], of C numbers or more, see ``heads.standardised``.

        Raises:
            PocketiqaError: fewer than C numbers.
        """
        return standardised(embeddings, self.mean, self.scale, _COMMAND)

    def strengths(self, embeddings: ArrayLike, scores: ArrayLike) -> FloatArray:
        """[N], higher is better; only differences mean something, see ``chances``.

        Args:
            embeddings: [N, E], of C numbers or more.
            scores: [N] in [0, 1].

        Raises:
            PocketiqaError: fewer than C numbers.
        """
        return self.standardised(embeddings) @ np.array(self.weights) + self.score * logits(scores)

    def directions(self, embeddings: ArrayLike) -> FloatArray:
        """[N, C] of length 1: their products are the cosines by which photographs look alike.

        Args:
            embeddings: [N, E], of C numbers or more.

        Raises:
            PocketiqaError: fewer than C numbers.
        """
        values = self.standardised(embeddings)
        # A photograph at the very mean has no direction, and is like nothing.
        return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), **{name: packed(getattr(self, name)) for name in _VECTORS}}

    @classmethod
    def from_dict(cls, record: Any) -> "PairHead":
        """Read the JSON form.

        Raises:
            PocketiqaError: a field is missing, unknown or out of range.
        """
        values = check_fields(record, [item.name for item in fields(cls)], "part of the student contract on pairs")
        return cls(**{**values, **{name: unpacked(values[name], f"pairs.{name}", _COMMAND) for name in _VECTORS}})
