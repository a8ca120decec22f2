"""A teacher for synthetic distortions on the scale of people: the score of the clean photograph, times what is left.

Full-reference metrics measure how much a distorted copy has lost, but give every clean photograph the best score,
however blurred it came from the camera. A teacher that learned from people scores a photograph, but saw few distortions
of each kind. Their product,

    score(copy) = base(clean) * reference(copy, clean) ** exponent,

has the scale of the former and the order of the latter (ours). A clean photograph, which is its own reference, scores
the base's score. An exponent below 1 keeps the order and makes distortions cost less: the reference teacher spreads
distortions evenly over its whole scale, so that a just visible one costs a third of it, more than people take off.

**Uncertainty.** The spread of a product, to first order and with independent factors: the root of
(r * s_b)^2 + (b * s_r)^2, with b and r the two factors and s_b and s_r their spreads; a spread of the base that is
missing or not finite counts as none. The spread of r = q ** e is e * q ** (e - 1) times that of q.

**Cost.** The base looks at each clean photograph once, while that is remembered; with ``features`` also at each copy.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.records import TeacherStamp
from teachers.base import Item, Teacher, TeacherBuilder, TeacherOutput, pack, sound, unpack
from teachers.checksummed import tensor_digest
from teachers.embedded import NAME as EMBEDDED
from teachers.reference import ReferenceTeacher, build_reference

NAME = "anchored"
VERSION = 1
"""Raised whenever equal inner teachers give other scores."""

_LEAST_FRACTION = 1e-3  # below it the slope of a root is taken to be that at it: at 0 it is infinite
_REMEMBERED = 4096  # clean photographs, two numbers each

Predicted = tuple[float, float]
"""Score and spread."""


class AnchoredTeacher:
    """Two teachers as one (see the module).

    Args:
        base: teacher that scores clean photographs; needs no reference.
        reference: compares copies with them.
        exponent: exponent of the comparison, above 0.
        features: give the base's features of each image.

    Raises:
        PocketiqaError: the base needs a reference, or the exponent is not above 0.
    """

    needs_reference = True

    def __init__(self, base: Teacher, reference: ReferenceTeacher, *, exponent: float = 1.0, features: bool = False):
        stamp = base.stamp
        # Not ``isinstance``: True is an int, too.
        if type(exponent) not in (int, float) or not 0 < exponent < math.inf:
            raise PocketiqaError(f"anchored: exponent is {exponent!r}, but a number above 0 is needed (1 for none)")
        self._exponent = float(exponent)
        if base.needs_reference:
            raise PocketiqaError(
                f"anchored: the base {stamp.name!r} compares with references itself: choose one that needs none"
            )
        self._base, self._reference, self._name = base, reference, stamp.name
        self.feature_names = tuple(base.feature_names) if features else ()
        self._known: OrderedDict[str, Predicted] = OrderedDict()
        self._lock = threading.Lock()
        inner = {"base": stamp.digest, "reference": reference.stamp.digest}
        self.stamp = TeacherStamp(
            NAME, VERSION, weights=digest_of(inner),
            options={"base": stamp.name, "exponent": self._exponent, "features": features}, scale=stamp.scale,
            licence=f"{stamp.licence}; reference teacher: {reference.stamp.licence}",
        )  # fmt: skip

    def to(self, device: torch.device) -> "AnchoredTeacher":
        """Compute on this device from now on."""
        self._base.to(device)
        self._reference.to(device)
        with self._lock:
            self._known.clear()  # another device gives other last bits
        return self

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> tuple[Tensor, ...]:
        """Copy and clean photograph as input of both teachers, see ``items.pack``.

        Raises:
            ImageError: one of the teachers refuses the image.
            PocketiqaError: it cannot be scored, there is no reference, or one of another size.
        """
        if reference is None:
            raise PocketiqaError("the anchored teacher needs the clean image")
        items: list[Item | None] = [
            self._reference.preprocess(image, reference),
            self._base.preprocess(reference, None),
        ]
        if self.feature_names:
            items.append(self._base.preprocess(image, None))
        return pack(items)

    def __call__(self, batch: list[Any]) -> TeacherOutput:
        """Score items of ``preprocess``.

        Returns:
            ``score`` [B] in [0, 1] on the scale of the base, NaN where one of the factors is not finite; ``score_std``
            [B], see the module; and, if wanted, the base's features of the copies.

        Raises:
            PocketiqaError: what one of the teachers gave is no ``TeacherOutput`` for these images.
        """
        pairs, clean, *copies = (list(column) for column in zip(*(unpack(item) for item in batch), strict=True))
        left = sound(self._reference(pairs), len(batch), "reference")
        anchors = torch.tensor([self._anchor(item) for item in clean], dtype=torch.float64)
        base, base_std = anchors[:, 0], anchors[:, 1]
        # In float64, so that only the product is rounded, to the float32 of a store.
        compared = left.score.double()
        fraction = compared**self._exponent
        slope = self._exponent * compared.clamp_min(_LEAST_FRACTION) ** (self._exponent - 1)
        fraction_std = torch.zeros_like(fraction) if left.score_std is None else slope * left.score_std.double()
        spread = torch.hypot(fraction * base_std, base * fraction_std)
        features: dict[str, Tensor] = {}
        if copies:
            features = sound(self._base(copies[0]), len(batch), self._name, self.feature_names).features
        return TeacherOutput((base * fraction).float(), spread.float(), features)

    def _anchor(self, item: Item) -> Predicted:
        """Score and spread of a clean photograph: computed alone, so that they do not depend on its neighbours."""
        tensors = (item,) if isinstance(item, Tensor) else item
        # By content: copies of one photograph bring equal tensors, but the items do not say which photograph they are
        # of.
        key = tensor_digest({str(at): tensor for at, tensor in enumerate(tensors)})
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        # Without the lock, so that one photograph does not hold up others; scored twice, it gets the same score.
        output = sound(self._base([item]), 1, self._name)
        spread = 0.0 if output.score_std is None else float(output.score_std)
        scored = (float(output.score), spread if math.isfinite(spread) else 0.0)
        with self._lock:
            self._known[key] = scored
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return scored


def build_anchored(
    build: TeacherBuilder,
    *,
    base: str = EMBEDDED,
    options: Mapping[str, Any] | None = None,
    exponent: float = 1.0,
    features: bool = False,
) -> AnchoredTeacher:
    """Build the teacher.

    Args:
        build: builds the base, as ``registry.build_teacher``.
        base: registry name, folder of a fitted teacher, or ``package.module:function``; it needs no reference.
        options: options of the base.
        exponent: exponent of the comparison, above 0; below 1, distortions cost less.
        features: whether the base's features of each image are given, which costs one look at each.

    Raises:
        PocketiqaError: the base cannot be built, or needs a reference; the exponent is not above 0.
    """
    built = build(base, **(options or {}))
    return AnchoredTeacher(built, build_reference(), exponent=exponent, features=features)
