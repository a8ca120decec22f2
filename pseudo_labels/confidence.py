"""How much a label counts in distillation, given how far it is expected to be from the truth."""

import math

# A label's weight falls to a half where its spread reaches this, a tenth of the scale: about how far the mean opinions
# of two panels of observers are apart.
SPREAD_OF_HALF_WEIGHT = 0.1


def confidence(score_std: float) -> float:
    """Weight of a label in [0, 1]: inverse variance, ``1 / (1 + (std / 0.1)^2)``; 1 if the spread is not known.

    The expected squared error of a label is taken as a floor, common to all labels, plus the teacher's own variance;
    the best weight is the inverse of that sum, here scaled to 1 for no spread.
    """
    if not math.isfinite(score_std):
        return 1.0
    return 1.0 / (1.0 + (score_std / SPREAD_OF_HALF_WEIGHT) ** 2)
