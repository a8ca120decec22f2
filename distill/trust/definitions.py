"""What each test means: the one place that page, table and documentation take their words from."""

from dataclasses import dataclass

from distill.stress.formats import SIDES_PX
from pseudo_labels.distort.waterloo import JPEG2000_BITS_A_PIXEL, JPEG_QUALITY

WATERLOO, CATALOGUE, VIEWS, ATTACK = "waterloo", "catalogue", "views", "attack"
TESTS = (WATERLOO, CATALOGUE, VIEWS, ATTACK)
"""Names of the tests, as the command line names them; each asks for pictures of its own."""

# On the common scale of ``teachers.reference``, 0 to 1: the paper asks for 40 of the 100 points of its own scale.
LEAST_DIFFERENCE = 0.4
REFERENCE_METRICS = ("vif", "gmsd", "haarpsi")
CROP = 0.75
"""Sides of a crop, as a fraction of those of the photograph."""
EPSILONS = (2, 4)
"""Largest change of a pixel by an attack, of 255."""
PGD_STEPS = 10
GMAD_LEVELS = (20, 80)
"""Percent of all pictures that the defender scores below the two levels of quality that it is held at."""
GMAD_WIDTH = 5
"""Percent of all pictures that count as equal to the defender."""
CLUSTERS = 6


@dataclass(frozen=True)
class Definition:
    """One figure.

    Attributes:
        title: name in tables.
        meaning: what it is, in sentences.
        source: publication; empty for one of our own.
        least: what a model is asked to reach; None where nothing is asked.
    """

    title: str
    meaning: str
    source: str = ""
    least: float | None = None


_MA = "Ma et al., Waterloo exploration database, IEEE TIP 26(2), 2017"
DEFINITIONS: dict[str, Definition] = {
    "d": Definition(
        "D-test",
        "Clean photographs against their copies of the Waterloo set (JPEG, JPEG 2000, noise and blur in five "
        f"strengths: JPEG quality {JPEG_QUALITY[1]:g} to {JPEG_QUALITY[-1]:g}, JPEG 2000 of "
        f"{JPEG2000_BITS_A_PIXEL[1]} to {JPEG2000_BITS_A_PIXEL[-1]} bits a pixel, noise of variance 0.001 to 1, blur "
        "of 1.2 to 33 pixels): the best balanced accuracy of one threshold for all scenes. 0.5 is chance.",
        _MA,
        0.95,
    ),
    "l": Definition(
        "L-test",
        "SRCC between the five strengths and falling scores, mean over photographs and the four distortions of the "
        "Waterloo set. Copies that all score the same count 0.",
        _MA,
        0.97,
    ),
    "p": Definition(
        "P-test",
        "Of all pairs of pictures of the Waterloo set (of any scenes, clean ones among them) of which three "
        f"full-reference metrics ({', '.join(REFERENCE_METRICS)}) agree that one is better by more than "
        f"{LEAST_DIFFERENCE} of a common scale from 0 to 1: the fraction in which the model agrees too; equal scores "
        "are wrong. The paper takes MS-SSIM, VIF and GMSD on the scale of LIVE's ratings, and 40 of its 100 points.",
        _MA,
        0.99,
    ),
    "auroc": Definition(
        "AUROC by kind and strength",
        "Probability that a clean photograph scores above a damaged one of any scene, equal scores counting half; 31 "
        "distortions of KADID-10k and of cameras by what a person sees, and those of the Waterloo set. 0.5 is chance: "
        "the model does not see the damage, or not beyond the difference of scenes.",
    ),
    "crops": Definition(
        "Crops",
        f"Mean absolute difference between the score of the photograph and of its five crops (corners and middle) of "
        f"{CROP:g} of its sides. A crop may really be better or worse than the whole: low, not zero, is right.",
    ),
    "sizes": Definition(
        "Sizes",
        f"Highest minus lowest score of one photograph with longer sides of {', '.join(map(str, SIDES_PX[:-1]))} and "
        f"{SIDES_PX[-1]} pixels; mean over photographs.",
    ),
    "spread": Definition(
        "Spread of scores",
        "Standard deviation of a model's scores over the Waterloo set: the unit to read its differences and gains in, "
        "as models use their scale differently.",
    ),
    "attack": Definition(
        "Gain under attack",
        f"How much a change that nobody sees (at most {EPSILONS[0]}/255 or {EPSILONS[1]}/255 a pixel) raises the "
        f"score. FGSM is one step along the sign of the gradient, PGD {PGD_STEPS} projected ones; random signs are for "
        "comparison. The gradient is that of the model's torch twin, with the same weights; the gain that of the model "
        "itself, on pixels rounded to bytes, at the model's own input size. On the clean photograph, and on a visibly "
        "compressed copy. Low is good.",
        "Goodfellow et al., ICLR 2015 (FGSM); Madry et al., ICLR 2018 (PGD)",
    ),
    "cross": Definition(
        "Cross-sensitivity",
        "Gain of each model on the pictures that the strongest PGD attack made against another: what passes over shows "
        "a weakness that models share.",
    ),
    "gmad": Definition(
        "gMAD pairs",
        "Two pictures to which one model, the defender, gives the same quality (within "
        f"{GMAD_WIDTH} % of all pictures, about {GMAD_LEVELS[0]} or {GMAD_LEVELS[1]} % from below), and which another, "
        "the attacker, tells apart most. Look at them: if they differ to the eye, the defender is wrong; if they are "
        "alike, the attacker is.",
        "Ma et al., Group MAD competition, IEEE TPAMI 42(4), 2020",
    ),
    "srcc": Definition(
        "SRCC with ratings",
        "Spearman's rank correlation with people's mean ratings: of all photographs, by subset, and by cluster of "
        "content (k-means of the features of an ImageNet network), for a model may tell subjects apart in place of "
        "quality. Intervals over scenes.",
    ),
    "intervals": Definition(
        "Calibration of intervals",
        "Fraction of the ratings that lie in the model's intervals of 80 and 95 %, and their mean width; where the "
        "model has a record that `pocketiqa intervals` wrote.",
        "Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005",
    ),
}
