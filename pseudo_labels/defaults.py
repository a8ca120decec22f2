"""Default values of commands, functions and recipes; nothing is imported here, so that all of them can."""

NEAR_DUPLICATE_COSINE = 0.7
"""Cosine of features above which two images are near duplicates: BIQ2021's own groups were made by it, with the same
kind of features."""

# Half the size, JPEG at quality 30 and 20 % less light change at most 4 bits of bundled photographs, and no two of
# Kodak's 24 scenes are that near (``tests/pseudo_labels/test_duplicates.py``).
NEAR_DUPLICATE_DISTANCE = 4
"""Bits of the 64-bit difference hash up to which two images count as one scene."""

# With more bits, the bands by which near duplicates are looked up get so short (64 / 12 bits and less) that many of all
# pairs have one in common and must be compared.
MAX_NEAR_DUPLICATE_DISTANCE = 10
"""Largest number of bits that can be asked for."""

MAX_PIXELS = 100_000_000
"""Images with more pixels (width times height) are refused before anything is decoded."""

MAX_BAD_FRACTION = 0.5
"""Fraction of bad files above which the building of a pool fails."""

MAX_FAILED_FRACTION = 0.5
"""Fraction of good images without a label above which a label store stays unfinished."""

DISTORTED_PER_IMAGE = 25
"""Distorted copies of each clean image."""

DISTORT_WORKERS = 2
"""Processes that make distorted copies."""

DISTORTION_NAMES = ("kadid",)
"""Names or groups of the distortions that a synthetic pool is made of."""

LABEL_BATCH_SIZE = 8
"""Images in one forward pass of a teacher."""

# Another number adds up in another order. With one, machines with any number of cores give the same bytes.
LABEL_THREADS = 1
"""CPU threads of a teacher; part of what determines the bytes of its labels."""

DECODE_WORKERS = 2
"""Images that are decoded ahead at a time."""

CROP_SMALLEST, CROP_LARGEST = 0.5, 0.9
"""Bounds of the fraction of height and width that a random crop shows."""

# A student's map of 288 pixels has about 300 cells, each a fraction of 0.003 of the image.
MIN_REGION_AREA, MAX_REGION_AREA = 0.002, 0.95
"""Fractions of an image outside which a region is dropped."""

MAX_REGION_OVERLAP = 0.9
"""Intersection over union with an earlier region of the image above which a region is dropped."""

MAX_REGIONS = 64
"""Regions of an image; a source may propose thousands."""

MIN_CONFIDENCE = 0.0
"""Confidence below which a fused row is dropped; 0 drops none."""

MAX_OUTLIER = 4.0
"""Robust deviations of a stored feature above which a fused row is dropped."""

MIN_LABELLED = 20
"""Rated images below which no curve is fitted to ratings: the error that is left says little then."""

VALIDATION_FRACTION = 0.15
"""Fraction of the images, whole scenes at a time, that chooses the best checkpoint."""

SEED = 0
"""Seed of everything random, unless another is given."""

MOMENT_SECONDS = 10.0
"""Longest time between one photograph of a moment and the next."""

DOWNLOAD_MB = 100
"""Largest image in megabytes that is fetched from an address."""

DOWNLOAD_S = 30.0
"""Seconds for fetching one image."""

MIN_FIT_PIXELS = 2_500_000
"""Photographs with fewer pixels do not teach a second look: a display of 2 megapixels shows nearly all of them."""

OBJECT_CACHE_GB = 20
"""Gigabytes of shards and images of object stores that are kept on this machine."""
