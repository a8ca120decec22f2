"""The 1485 sentences that DP-IQA conditions its U-Net on (Fu et al. 2024, arXiv 2405.19996)."""

from itertools import product

QUALITIES = ("bad", "poor", "fair", "good", "perfect")
SCENES = ("animal", "cityscape", "human", "indoor", "landscape", "night", "plant", "still_life", "others")
DISTORTIONS = (
    "jpeg2000 compression",
    "jpeg compression",
    "white noise",
    "gaussian blur",
    "fastfading",
    "fnoise",
    "contrast",
    "lens",
    "motion",
    "diffusion",
    "shifting",
    "color quantization",
    "oversaturation",
    "desaturation",
    "white with color",
    "impulse",
    "multiplicative",
    "white noise with denoise",
    "brighten",
    "darken",
    "shifting the mean",
    "jitter",
    "noneccentricity patch",
    "pixelate",
    "quantization",
    "color blocking",
    "sharpness",
    "realistic blur",
    "realistic noise",
    "underexposure",
    "overexposure",
    "realistic contrast change",
    "other realistic",
)

PROMPTS: tuple[str, ...] = tuple(
    f"a photo of a {scene} with {distortion} artifacts, which is of {quality} quality"
    for quality, scene, distortion in product(QUALITIES, SCENES, DISTORTIONS)
)
"""Quality changes slowest, distortion fastest; cross-attention knows no order, but cached features are in this one."""
