"""What a head on types of damage learns from: clean photographs, parts of them, and copies that are damaged on purpose.

Each distortion of the catalogue that is of one of the types belongs to a cause; where it may go two ways (brighter or
darker), the pixels of the copy say which. Embeddings are kept in a folder, a file for each photograph, so that none is
computed twice.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from distill.stress.photograph import resized
from pseudo_labels import images, outputs
from pseudo_labels.crops import Crop, generator
from pseudo_labels.defaults import NEAR_DUPLICATE_DISTANCE
from pseudo_labels.distort import catalogue
from pseudo_labels.distort.catalogue import CATALOGUE, check_image, distort
from pseudo_labels.duplicates import group_near_duplicates
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.files import digest_of, sha256_bytes, write_atomic
from pseudo_labels.fingerprints import Fingerprint, fingerprint
from pseudo_labels.parallel import Progress
from students.damage import NONE
from students.runtime import Scorer

KIND = "embeddings of damaged photographs"
LEVELS = (1, 2, 3, 4, 5)
CLEAN = "clean"
"""Kind of a picture that is not damaged; all others are names of distortions."""
SIDE_PX = 512
"""Longer side at which photographs are damaged, that of KADID-10k, whose levels these are; smaller ones stay as they
are. At a larger size, the damage would be hidden from a student's small input."""
TYPE_OF = {
    NONE: NONE,
    "blur": "blur",
    "motion": "motion",
    "noise": "noise",
    "impulses": "noise",
    "jpeg": "compression",
    "jpeg2000": "compression",
    "dark": "dark",
    "bright": "bright",
    "flat": "contrast",
    "harsh": "contrast",
    "diffused colour": "colour",
    "shifted colour": "colour",
    "few colours": "colour",
    "pale": "colour",
    "garish": "colour",
    "pixelation": "pixelation",
}
"""The type of each cause."""
_BRIGHTNESS, _CONTRAST, _COLOURS = ("dark", "bright"), ("flat", "harsh"), ("pale", "garish")
CAUSES: dict[str, tuple[str, ...]] = {
    "gaussian_blur": ("blur",),
    "lens_blur": ("blur",),
    "camera_blur": ("blur",),
    "motion_blur": ("motion",),
    "white_noise": ("noise",),
    "white_noise_color": ("noise",),
    "multiplicative_noise": ("noise",),
    "impulse_noise": ("impulses",),
    "jpeg": ("jpeg",),
    "camera_compression": ("jpeg",),
    "jpeg2000": ("jpeg2000",),
    "brighten": ("bright",),
    "darken": ("dark",),
    "mean_shift": _BRIGHTNESS,
    "camera_exposure": _BRIGHTNESS,
    "contrast_change": _CONTRAST,
    "camera_contrast": _CONTRAST,
    "color_diffusion": ("diffused colour",),
    "color_shift": ("shifted colour",),
    "color_quantization": ("few colours",),
    "color_saturation_hsv": ("pale",),
    "color_saturation_lab": ("garish",),
    "camera_colorfulness": _COLOURS,
    "pixelate": ("pixelation",),
}
"""The cause of each distortion; of one with two, the first where the copy has less of it."""
LEFT_OUT = tuple(name for name in CATALOGUE if name not in CAUSES)
"""Distortions that are of none of the types: sharpening, denoising, patches, blocks, steps of grey, jitter."""
_CROPS, _SMALLEST_SHARE = 6, 0.35
_SEED = 0
Warn = Callable[[str], None]


@dataclass(frozen=True)
class TypeExamples:
    """Pictures as a student sees them, and what is wrong with each.

    Attributes:
        embeddings: float64 [N, E].
        kinds: ``CLEAN``, or the distortion, of each.
        causes: cause of each, see ``TYPE_OF``.
        levels: int64 [N], 1 to 5; 0 of what is clean.
        scenes: name of the photograph that each was made from, of near duplicates one name; folds keep it whole.
    """

    embeddings: NDArray[np.float64]
    kinds: list[str]
    causes: list[str]
    levels: NDArray[np.int64]
    scenes: list[str]

    @property
    def types(self) -> list[str]:
        """The type of each."""
        return [TYPE_OF[cause] for cause in self.causes]


def cause_of(distortion: str, clean: np.ndarray, copy: np.ndarray) -> str:
    """The cause of a copy, by what became of the photograph.

    Args:
        distortion: one of ``CAUSES``.
        clean: uint8 HxWx3.
        copy: the same, damaged.
    """
    causes = CAUSES[distortion]
    if len(causes) == 1:
        return causes[0]
    measures: dict[tuple[str, ...], Callable[[np.ndarray], float]] = {
        _BRIGHTNESS: _mean, _CONTRAST: _spread, _COLOURS: _saturation
    }  # fmt: skip
    measure = measures[causes]
    return causes[measure(copy) > measure(clean)]


def _mean(rgb: np.ndarray) -> float:
    return float(rgb.mean())


def _spread(rgb: np.ndarray) -> float:
    return float(rgb.mean(2).std())


def _saturation(rgb: np.ndarray) -> float:
    return float((rgb.max(2).astype(np.int16) - rgb.min(2)).mean())


Picture = tuple[str, int, Callable[[], np.ndarray]]
"""Kind, level and maker of a picture."""


def pictures_of(rgb: np.ndarray, name: str) -> list[Picture]:
    """Every picture that is shown of a photograph, the first few of them clean.

    Args:
        rgb: uint8 HxWx3.
        name: chance follows from it.
    """
    rng = generator(_SEED, name, "parts")
    made: list[Picture] = [(CLEAN, 0, lambda: rgb)]
    for _ in range(_CROPS):
        side = float(np.sqrt(rng.uniform(_SMALLEST_SHARE, 1)))
        top, left = (rng.random(2) * (1 - side)).tolist()
        made.append((CLEAN, 0, partial(Crop(top, left, side, side).cut, rgb)))
    for kind in CAUSES:
        made += [(kind, level, partial(distort, rgb, kind, level, seed=_SEED, image_id=name)) for level in LEVELS]
    return made


PICTURES = 1 + _CROPS + len(CAUSES) * len(LEVELS)
"""Pictures that are shown of each photograph."""


def observe(
    scorer: Scorer,
    model: str,
    photographs: Sequence[Path],
    folder: Path,
    *,
    progress: Progress | None = None,
    warn: Warn | None = None,
) -> TypeExamples:
    """Show all photographs, parts and copies to a student; embeddings in ``folder`` are used again.

    Args:
        scorer: a student with an embedding, that looks quickly.
        model: digest of its graph: embeddings of another are not used.
        photographs: image files of clean photographs.
        folder: folder of the embeddings, made if there is none.
        progress: called with (done, total) pictures.
        warn: called with the reason for each photograph that cannot be used.

    Raises:
        PocketiqaError: no photograph can be used.
        OutputConflictError: ``folder`` holds something else.
        StorageFullError: the disk is full; what is there stays.
    """
    seen: list[_Seen] = []
    total = len(photographs) * PICTURES
    with outputs.exclusively(folder):
        _claim(folder, {"model": model, "catalogue": catalogue.VERSION, "images": images.VERSION, "side": SIDE_PX})
        for number, path in enumerate(photographs):
            try:
                rgb = check_image(_at_most(images.load(path), SIDE_PX))
            except PocketiqaError as error:  # it cannot be decoded, or is too small to be damaged
                if warn is not None:
                    warn(f"{path} is left out: {error}")
            else:
                step = partial(_report, progress, number * PICTURES, total)
                seen.append(_seen(scorer, rgb, path.name, folder, step))
            _report(progress, (number + 1) * PICTURES, total, 0)
    if not seen:
        raise PocketiqaError("no photograph could be used: name clean photographs with sides of 64 pixels and more")
    scenes = _scenes([one.fingerprint for one in seen])
    return TypeExamples(
        np.concatenate([one.embeddings for one in seen]).astype(np.float64),
        [kind for one in seen for kind in one.kinds],
        [cause for one in seen for cause in one.causes],
        np.concatenate([one.levels for one in seen]),
        [scene for one, scene in zip(seen, scenes, strict=True) for _ in one.kinds],
    )


@dataclass(frozen=True)
class _Seen:
    """Pictures of one photograph: see ``TypeExamples``."""

    fingerprint: Fingerprint
    embeddings: NDArray[np.float32]
    kinds: list[str]
    causes: list[str]
    levels: NDArray[np.int64]


def _report(progress: Progress | None, before: int, total: int, done: int) -> None:
    if progress is not None:
        progress(before + done, total)


def _at_most(rgb: np.ndarray, side: int) -> np.ndarray:
    return rgb if max(rgb.shape[:2]) <= side else resized(rgb, side)


def _claim(folder: Path, spec: dict[str, object]) -> None:
    try:
        outputs.claim(folder, KIND, spec)
    except OutputConflictError:
        outputs.read_manifest(folder, KIND)  # raises unless the folder is such a cache: nothing else is removed
        outputs.claim(folder, KIND, spec, overwrite=True)


def _stored(path: Path) -> tuple[np.ndarray, list[str]] | None:
    """Embeddings and causes of an earlier run; None if there are none, or the file is damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            return stored["embeddings"], stored["causes"].tolist()
    except (FileNotFoundError, BadZipFile, EOFError, KeyError, ValueError):
        return None


def _seen(scorer: Scorer, rgb: np.ndarray, name: str, folder: Path, step: Callable[[int], None]) -> _Seen:
    # The name too: the chance of the copies follows from it.
    path = folder / f"{digest_of([name, sha256_bytes(rgb.tobytes()), list(rgb.shape)])[:32]}.npz"
    pictures = pictures_of(rgb, name)
    stored = _stored(path)
    if stored is not None:
        embeddings, causes = stored
    else:
        rows, causes = [], []
        for done, (kind, _, make) in enumerate(pictures, start=1):
            picture = make()
            embedding = scorer.score(picture).embedding
            assert embedding is not None, "the caller has opened a student with one"
            rows.append(embedding)
            causes.append(NONE if kind == CLEAN else cause_of(kind, rgb, picture))
            step(done)
        embeddings, buffer = np.array(rows, np.float32), io.BytesIO()
        np.savez(buffer, embeddings=embeddings, causes=np.array(causes, str))
        write_atomic(path, buffer.getvalue())
    levels = np.array([level for _, level, _ in pictures], np.int64)
    return _Seen(fingerprint(rgb), embeddings, [kind for kind, *_ in pictures], causes, levels)


def _scenes(fingerprints: Sequence[Fingerprint]) -> list[str]:
    return [f"scene {first}" for first in group_near_duplicates(fingerprints, NEAR_DUPLICATE_DISTANCE).tolist()]
