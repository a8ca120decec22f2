"""The distortions by name, and the one way to apply them."""

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pseudo_labels.crops import generator
from pseudo_labels.defaults import DISTORTION_NAMES
from pseudo_labels.distort import blur, camera, colour, compression, noise, spatial, waterloo
from pseudo_labels.distort.scale import LEVELS
from pseudo_labels.errors import PocketiqaError

# Raised whenever an operator or a level table changes: pools made before and after are then kept apart.
VERSION = 1
# Also the least that the reference teacher takes, so that every copy can be scored.
MIN_SIDE_PX = 64

Operator = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Distortion:
    """One kind of distortion.

    Attributes:
        name: as in the catalogue, in pools and in file names.
        family: blur, colour, compression, noise, brightness, spatial, sharpness, camera or waterloo.
        effect: what a person sees, one of ``EFFECTS``: the family, but for contrast, which is one of its own, and for
            those of camera and waterloo, each of which is among its like.
        source: the dataset that defines it, such as ``KADID-10k #7``.
        apply: (HxWx3 uint8, severity in (0, 1], generator) to HxWx3 uint8 of its own; level l is severity l / 5. With a
            generator in the same state, distortion grows with severity.
    """

    name: str
    family: str
    effect: str
    source: str
    apply: Operator

    @property
    def summary(self) -> str:
        """First line of the operator's documentation."""
        return (self.apply.__doc__ or "").strip().splitlines()[0]


# In the order and with the numbers of KADID-10k.
_KADID: tuple[tuple[str, Operator], ...] = (
    ("blur", blur.gaussian_blur),
    ("blur", blur.lens_blur),
    ("blur", blur.motion_blur),
    ("colour", colour.color_diffusion),
    ("colour", colour.color_shift),
    ("colour", colour.color_quantization),
    ("colour", colour.color_saturation_hsv),
    ("colour", colour.color_saturation_lab),
    ("compression", compression.jpeg2000),
    ("compression", compression.jpeg),
    ("noise", noise.white_noise),
    ("noise", noise.white_noise_color),
    ("noise", noise.impulse_noise),
    ("noise", noise.multiplicative_noise),
    ("noise", noise.denoise),
    ("brightness", colour.brighten),
    ("brightness", colour.darken),
    ("brightness", colour.mean_shift),
    ("spatial", spatial.jitter),
    ("spatial", spatial.non_eccentricity_patch),
    ("spatial", spatial.pixelate),
    ("spatial", spatial.quantization),
    ("spatial", spatial.color_block),
    ("sharpness", colour.high_sharpen),
    ("sharpness", colour.contrast_change),
)
_CAMERA: tuple[tuple[str, Operator], ...] = (
    ("blur", camera.camera_blur),
    ("sharpness", camera.camera_sharpness),
    ("brightness", camera.camera_exposure),
    ("contrast", camera.camera_contrast),
    ("colour", camera.camera_colorfulness),
    ("compression", camera.camera_compression),
)
_WATERLOO: tuple[tuple[str, Operator], ...] = (
    ("compression", waterloo.waterloo_jpeg),
    ("compression", waterloo.waterloo_jpeg2000),
    ("noise", waterloo.waterloo_white_noise),
    ("blur", waterloo.waterloo_gaussian_blur),
)
EFFECTS = ("blur", "noise", "compression", "spatial", "brightness", "contrast", "colour", "sharpness")


def _build() -> dict[str, Distortion]:
    kadid = [
        # The function's name is the name in pools and file names: another name is another distortion to them.
        Distortion(operator.__name__, family, _effect(operator, family), f"KADID-10k #{number}", operator)
        for number, (family, operator) in enumerate(_KADID, start=1)
    ]
    cameras = [
        Distortion(operator.__name__, "camera", effect, "SEAGULL-100w", operator) for effect, operator in _CAMERA
    ]
    return {distortion.name: distortion for distortion in kadid + cameras}


def _effect(operator: Operator, family: str) -> str:
    # KADID-10k counts contrast to sharpness.
    return "contrast" if operator is colour.contrast_change else family


CATALOGUE: dict[str, Distortion] = _build()
"""What ``all`` means: as strong as people still rate."""
WATERLOO: dict[str, Distortion] = {
    operator.__name__: Distortion(operator.__name__, "waterloo", effect, "Waterloo exploration", operator)
    for effect, operator in _WATERLOO
}
"""Far beyond the catalogue, and no part of ``all``: of such damage the order is known, but no rating."""
DISTORTIONS: dict[str, Distortion] = CATALOGUE | WATERLOO
"""All that can be named."""


def families() -> dict[str, list[Distortion]]:
    """The catalogue by family, in catalogue order: for help texts and documents."""
    grouped: dict[str, list[Distortion]] = {}
    for distortion in CATALOGUE.values():
        grouped.setdefault(distortion.family, []).append(distortion)
    return grouped


def effects() -> dict[str, tuple[str, ...]]:
    """Names of the catalogue by effect, in the order of ``EFFECTS``."""
    return {effect: tuple(name for name, one in CATALOGUE.items() if one.effect == effect) for effect in EFFECTS}


def groups() -> dict[str, tuple[str, ...]]:
    """Names that stand for several distortions: ``all``, ``kadid``, ``waterloo`` and the families, as ``camera``."""
    kadid = tuple(name for name, distortion in CATALOGUE.items() if distortion.family != "camera")
    members = {family: tuple(one.name for one in own) for family, own in families().items()}
    return {"all": tuple(CATALOGUE), "kadid": kadid} | members | {"waterloo": tuple(WATERLOO)}


def select(names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Distortion names from names and groups, each once and in catalogue order; None means ``kadid``.

    Raises:
        PocketiqaError: a name is unknown, or there is none.
    """
    wanted: set[str] = set()
    known = groups()
    for name in DISTORTION_NAMES if names is None else names:
        if name in known:
            wanted.update(known[name])
        elif name in DISTORTIONS:
            wanted.add(name)
        else:
            raise PocketiqaError(_unknown(name, [*known, *DISTORTIONS]))
    if not wanted:
        raise PocketiqaError("no distortion was named: give names, or a group such as kadid, camera or all")
    return tuple(name for name in DISTORTIONS if name in wanted)


def _unknown(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown distortion {name!r}: {hint}known are {', '.join(known)}"


def check_image(rgb: np.ndarray) -> np.ndarray:
    """The same image, contiguous, if distortions can be applied to it.

    Raises:
        PocketiqaError: it is not uint8 HxWx3, or a side is below 64 pixels.
    """
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        given = f"{rgb.dtype} {rgb.shape}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise PocketiqaError(f"distortions need a uint8 RGB array HxWx3, not {given}")
    if min(rgb.shape[:2]) < MIN_SIDE_PX:
        size = f"{rgb.shape[1]}x{rgb.shape[0]}"
        raise PocketiqaError(f"distortions need sides of at least {MIN_SIDE_PX} pixels, not {size}: use a larger image")
    return np.ascontiguousarray(rgb)


def distort(rgb: np.ndarray, name: str, level: float, *, seed: int, image_id: str) -> np.ndarray:
    """A distorted copy of an image; chance follows from seed, image id, name and level alone.

    Args:
        rgb: uint8 HxWx3, sides of at least 64 pixels; never changed.
        name: one of ``DISTORTIONS``.
        level: above 0, at most 5; 1 to 5 are the levels of KADID-10k or of the Waterloo set, values between them are
            interpolated.
        seed: seed of the whole pool.
        image_id: id of the clean image.

    Returns:
        uint8 HxWx3 of the same size, contiguous, its own memory.

    Raises:
        PocketiqaError: unknown name, level out of range, or an unsuitable array.
    """
    if name not in DISTORTIONS:
        raise PocketiqaError(_unknown(name, DISTORTIONS))
    if not (math.isfinite(level) and 0 < level <= LEVELS):
        raise PocketiqaError(f"level {level!r} of {name} is out of range: it must be above 0 and at most {LEVELS}")
    # As a float, because the digest of 3 is not that of 3.0: one level must have one chance.
    rng = generator(int(seed), image_id, name, float(level))
    return np.ascontiguousarray(DISTORTIONS[name].apply(check_image(rgb), float(level) / LEVELS, rng))
