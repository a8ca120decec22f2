"""Which distortions, at which levels, each clean image gets: fair, and a function of seed and image ids alone."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from pseudo_labels.distort.scale import LEVELS
from pseudo_labels.files import digest_of
from pseudo_labels.randomness import generator

_STRATA = 5
# Two decimals name a file; levels closer than that look the same.
_DECIMALS = 2


Damage = tuple[str, float]


def plan(image_ids: Sequence[str], names: Sequence[str], per_image: int, seed: int) -> dict[str, list[Damage]]:
    """For each image the (distortion, level) pairs of its damaged versions.

    Names are dealt like cards from decks that hold each once: over all images no name comes more than once more often
    than another, and one image gets a name twice only if ``per_image`` exceeds the number of names. Levels are
    continuous in [1, 5], with two decimals: of every five uses of a name, one falls into each fifth of that range. The
    order of ``image_ids`` has no influence.
    """
    deal = _Deck(names, seed)
    levels = {name: _levels(name, seed) for name in names}
    dealt = {}
    for image_id in sorted(image_ids, key=lambda image_id: digest_of([seed, image_id])):
        pairs: list[Damage] = []
        for name in deal.hand(per_image):
            level = next(levels[name])
            while (name, level) in pairs:
                level = next(levels[name])
            pairs.append((name, level))
        dealt[image_id] = pairs
    return {image_id: dealt[image_id] for image_id in image_ids}


class _Deck:
    """Names, shuffled again whenever all were dealt."""

    def __init__(self, names: Sequence[str], seed: int) -> None:
        self._names = list(names)
        self._rng = generator("deck", seed)
        self._left: list[str] = []

    def hand(self, size: int) -> list[str]:
        """The next ``size`` names, as different from each other as can be."""
        held: Counter[str] = Counter()
        while held.total() < size:
            if not self._left:
                self._left = [self._names[i] for i in self._rng.permutation(len(self._names))]
                # What this hand holds already goes to the end of the new deck.
                self._left.sort(key=lambda name: held[name])
            held[self._left.pop(0)] += 1
        return list(held.elements())


def _levels(name: str, seed: int) -> Iterator[float]:
    rng = generator("levels", seed, name)
    while True:
        for stratum in rng.permutation(_STRATA):
            share = (stratum + rng.random()) / _STRATA
            yield float(np.round(1 + (LEVELS - 1) * share, _DECIMALS))
