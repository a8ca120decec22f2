"""Scores photographs with an exported student: numpy, Pillow and ONNX Runtime only.

from students.runtime import Scorer
print(Scorer().score("photo.jpg").score)
"""

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError, WriteError
from pseudo_labels.files import sha256_bytes
from pseudo_labels.images import DEFAULT_LIMITS, DecodeLimits, ImageError, decode, decode_pil, load
from pseudo_labels.limits import Resizer
from pseudo_labels.parallel import Progress, in_order
from pseudo_labels.records import Status
from students.contract import StudentContract
from students.damage import Damage
from students.engines import ONNX_RUNTIME
from students.fields import check_int
from students.look import SecondLook, choose_look
from students.meaning.model_record import ModelName
from students.preprocess import check_rgb
from students.regions import MaskInput, RegionResult, cells_across, cells_of, score_regions
from students.session import EMBEDDING, INPUT, OUTPUTS, REGION_OUTPUTS, open_model
from students.shipped import model_path

MAX_WORKERS = 256
# Images in work or done for each worker: enough that none waits for a slow oldest one, few enough for flat memory.
_AHEAD_PER_WORKER = 4

ImageInput = str | os.PathLike[str] | bytes | bytearray | memoryview | np.ndarray | Image.Image
"""One image: the path of a file, the encoded content of a file, decoded uint8 HxWx3 RGB, or a Pillow image."""
Reader = Callable[[Any], ImageInput]
"""Gives the image that a path or another name stands for."""
_ACCEPTED = "a path, the bytes of an image file, a uint8 HxWx3 array (RGB) or a PIL image"
# Types that can be iterated, or look as if, but are one image.
_NOT_MANY = (bytes, bytearray, memoryview, Image.Image)


@dataclass(frozen=True, repr=False)
class Result:
    """A student's score of one image, with the maps it was made from.

    Attributes:
        score: quality in [0, 1], 1 best, on the scale named in the contract. Of a large picture that was looked at
            closely it is not the mean of the map, which is that of the whole picture in either look.
        quality_map: float32 [h, w] in [0, 1], on the same scale: which parts look good or bad. One cell is a square of
            ``student.map_stride`` pixels of the resized image.
        weight_map: float32 [h, w], positive: how much each cell counts. Only ratios within one image mean something.
        regions: a result for each region that was asked for, in their order.
        region_quality_map: float32 [h', w'] in [0, 1], that regions were read from; a cell is a square of
            ``contract.region_stride`` pixels of the resized image. None unless regions were asked for.
        region_weight_map: float32 [h', w'], positive, likewise. Both are the two maps above in a model that has no
            others for regions.
        embedding: float32 [C], what the model saw of the whole image, as its heads read it (``students.heads``). None
            of a file without it.
        damage: what is wrong with it, by the head of the file (``students.damage``); None of a file without one.
    """

    score: float
    quality_map: np.ndarray
    weight_map: np.ndarray
    regions: tuple[RegionResult, ...] = ()
    region_quality_map: np.ndarray | None = None
    region_weight_map: np.ndarray | None = None
    embedding: np.ndarray | None = None
    damage: Damage | None = None

    @property
    def shown_map(self) -> np.ndarray:
        """The quality map that drawings show: the one that regions were read from, if any were asked for."""
        return self.quality_map if self.region_quality_map is None else self.region_quality_map

    def __repr__(self) -> str:
        # One line also in a notebook: the maps hold hundreds of numbers.
        height, width = self.quality_map.shape
        regions = f", {len(self.regions)} regions" if self.regions else ""
        return f"Result(score={self.score:.4f}, quality_map and weight_map of {height}x{width} cells{regions})"


@dataclass(frozen=True, slots=True)
class Row:
    """The result of one file of many.

    Attributes:
        path: path of the file, as it was given.
        score: quality in [0, 1], see ``Result``; None unless ``status`` is ``ok``.
        status: ``ok``, or the kind of fault, see ``Status``.
        reason: description of the fault for a person; if ``status`` is ``ok``, a note (a broken colour profile was
            ignored), and nearly always empty.
        regions: see ``Result``.
        damage: see ``Result``.
    """

    path: str
    score: float | None
    status: Status
    reason: str
    regions: tuple[RegionResult, ...] = ()
    damage: Damage | None = None


class Scorer:
    """An exported student on the CPU. Thread-safe; scores do not depend on batch, order or number of workers.

    It can be copied, pickled and sent to other processes of this machine. What travels is the path of the model file
    and its digest: whoever receives it opens the file anew, and a file that was replaced meanwhile is an error.

    Attributes:
        contract: preprocessing, scale, teachers, data and metrics of the model, as its file states them.
        digest: hex SHA-256 of the model.
        look: ``quick``, one view of each picture, or ``close``.
        engine: what computes it, see ``students.engines``.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        threads: int = 1,
        limits: DecodeLimits = DEFAULT_LIMITS,
        look: str | None = None,
        engine: str = ONNX_RUNTIME,
    ):
        """Load a model file.

        Args:
            model: ONNX file made by ``pocketiqa export``, or the name of one that comes with the package; None is the
                default one (see ``students.shipped``).
            threads: number of threads for one image; for many images, ``score_many(workers=...)`` is faster.
            limits: largest and smallest image accepted, and the background of transparent pixels.
            look: ``quick`` or ``close`` (see ``students.look``); None is that of the file, mostly quick.
            engine: ``onnxruntime``, or ``openvino`` (extra ``openvino``), whose scores are the same to 1e-4.

        Raises:
            PocketiqaError: the file is missing, was altered, is not an exported student, or has no second look and is
                asked for one; or the engine is missing.
        """
        self._open(model_path(model), check_int(threads, "threads", 1, MAX_WORKERS), limits, look=look, engine=engine)

    def _open(self, path: Path, threads: int, limits: DecodeLimits, *, look: str | None, engine: str) -> None:
        opened = open_model(path, threads, engine)
        self.engine = engine
        self.contract: StudentContract = opened.contract
        self.look = choose_look(look, opened.contract.look, opened.contract.name)
        self.digest = opened.digest
        self._opened = opened
        self._limits = limits
        self._threads = threads
        # Absolute, for a process that is started later may have another current folder.
        self._path = path.absolute()

    def __getstate__(self) -> dict[str, Any]:
        # A session cannot travel; it is made anew from the file.
        return {
            "path": self._path,
            "digest": self.digest,
            "threads": self._threads,
            "limits": self._limits,
            "look": self.look,
            "engine": self.engine,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._open(state["path"], state["threads"], state["limits"], look=state["look"], engine=state["engine"])
        if self.digest != state["digest"]:
            raise IntegrityError(
                f"{state['path']} was replaced: the scorer was made from model {state['digest'][:12]}..., the file now "
                f"holds {self.digest[:12]}...; make a new Scorer, or put the earlier file back"
            )

    def score(self, image: ImageInput, *, regions: Iterable[MaskInput] | None = None) -> Result:
        """Score one image, and regions of it.

        Args:
            image: path, encoded file content, Pillow image (scored as its file would be: upright, without alpha), or
                decoded uint8 HxWx3 RGB (which ``limits`` do not concern).
            regions: masks or boxes in pixels of the upright image, see ``students.regions.MaskInput``. A region that
                does not fit the image is a result with a status and a reason. With regions, pictures of more than 64
                megapixels are decoded whole, and their score may differ in the fourth digit.

        Raises:
            ImageError: the file cannot be used; ``status`` and ``reason`` say why.
            PocketiqaError: an array of another type or shape, or something that is no image or no region.
        """
        return self._score(image, None, regions)

    def _score(self, image: ImageInput, notes: list[str] | None, regions: Iterable[MaskInput] | None = None) -> Result:
        # Regions are in pixels of the whole picture: then it is not reduced while it is decoded.
        pixels = self.decoded(image, notes) if regions is None else self._pixels(image, notes, None)
        rgb = self.contract.preprocess.resize(pixels)
        # Maps of regions cost time, and are computed where regions are wanted alone.
        maps = () if regions is None or self.contract.regions is None else REGION_OUTPUTS
        further = (EMBEDDING,) if self._opened.embeds else ()
        outputs = dict(zip(names := OUTPUTS + maps + further, self._infer(rgb[None], names), strict=True))
        score, quality, weight = (outputs[name][0] for name in OUTPUTS)
        if not np.isfinite(score):
            raise ImageError(Status.FAILED, "the model gave no finite score")
        embedding = outputs[EMBEDDING][0] if further else None
        head = self.contract.types
        damage = None if head is None or embedding is None else head.damage(embedding)
        result = Result(self._closer(pixels, float(score)), quality, weight, embedding=embedding, damage=damage)
        if regions is None:
            return result
        own_quality, own_weight = (outputs[name][0] for name in maps or OUTPUTS[1:])
        cells = cells_of(pixels.shape, own_quality.shape, rgb.shape, self.contract.region_stride)
        scored = score_regions(own_quality, own_weight, cells, regions)
        return replace(result, regions=scored, region_quality_map=own_quality, region_weight_map=own_weight)

    def decoded(self, image: ImageInput, notes: list[str] | None = None) -> np.ndarray:
        """The pixels that ``score`` scores, for who needs them too: ``score`` gives the same for them as for the image.

        Args:
            image: as for ``score``.
            notes: sentences on what was passed over are added to it.

        Returns:
            uint8 HxWx3 RGB, upright; of large pictures reduced, see ``students.preprocess`` and ``students.look``.

        Raises:
            ImageError: the file cannot be used.
            PocketiqaError: something that is no image.
        """
        return self._pixels(image, notes, self._second_look or self.contract.preprocess)

    @property
    def model(self) -> ModelName:
        """Name and digest, by which records of this model are known (``students.meaning``).

        Close scores have a scale of their own: records of quick ones do not fit them, so they have another digest.
        """
        if self.look == "quick":
            return ModelName(self.contract.name, self.digest)
        return ModelName(
            f"{self.contract.name} ({self.look} look)", sha256_bytes(f"{self.digest} {self.look}".encode())
        )

    @property
    def _second_look(self) -> SecondLook | None:
        return self.contract.look if self.look == "close" else None

    def _closer(self, pixels: np.ndarray, whole: float) -> float:
        """The score of a picture whose whole has the score ``whole``, after a second look if it is asked for."""
        look = self._second_look
        if look is None or look.weight(*pixels.shape[:2]) == 0:
            return whole
        crops, _, _ = self.infer(look.crops(pixels))
        if not np.isfinite(crops).all():
            raise ImageError(Status.FAILED, "the model gave no finite score of a crop")
        return look.join(pixels.shape, whole, crops)

    @property
    def map_stride(self) -> int:
        """Side of a cell of the maps in pixels of the resized image; 0 if the contract does not say it."""
        stride = self.contract.student.get("grid")
        return stride if isinstance(stride, int) else 0

    def map_extent(self, image: tuple[int, ...], quality_map: tuple[int, ...]) -> tuple[float, float] | None:
        """Rows and columns of cells that an image fills of its maps, see ``students.regions.cells_across``.

        Args:
            image: height and width of the image before it is resized.
            quality_map: rows and columns of its maps, of the score or of regions.
        """
        resized = self.contract.preprocess.size(*image[:2])
        # Maps of different strides have different sizes.
        extents = (
            cells_across(quality_map, resized, stride) for stride in (self.map_stride, self.contract.region_stride)
        )
        return next((extent for extent in extents if extent is not None), None)

    def _pixels(self, image: ImageInput, notes: list[str] | None, resizer: Resizer | None) -> np.ndarray:
        if isinstance(image, np.ndarray):
            return image
        if isinstance(image, Image.Image):
            return decode_pil(image, self._limits, notes)
        if isinstance(image, bytes | bytearray | memoryview):
            # A copy of what may change: the caller's buffer can be written to while this thread decodes.
            return decode(bytes(image), self._limits, notes, resizer=resizer)
        # Checked by type: the system would take an integer for an open file.
        if isinstance(image, str | os.PathLike):
            return load(image, self._limits, notes, resizer=resizer)
        # The likely mistake, a list of paths, gets its own next step.
        many = "; score several files with Scorer.score_many" if isinstance(image, Iterable) else ""
        raise PocketiqaError(f"an image is {type(image).__name__}, but {_ACCEPTED} is needed{many}")

    def infer(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Run the network on images of one size that are resized already (``contract.preprocess.resize``).

        Args:
            batch: uint8 [N, H, W, 3].

        Returns:
            float32 scores [N], quality maps [N, h, w] and weight maps [N, h, w], calibrated as in ``Result``.

        Raises:
            PocketiqaError: an array of another type or shape, or a side below ``preprocess.min_side``.
            IntegrityError: ONNX Runtime cannot run the model on it: its graph is not what pocketiqa exports.
        """
        score, quality, weight = self._infer(batch, OUTPUTS)
        return score, quality, weight

    def _infer(self, batch: np.ndarray, outputs: tuple[str, ...]) -> list[np.ndarray]:
        _check_batch(batch, self.contract.preprocess.min_side)
        score, quality, *others = self._run(batch, outputs)
        # In float32 a weighted mean of numbers up to 1 may round to just above 1.
        score = np.clip(score, 0.0, 1.0)
        if self.contract.calibration is not None:
            score, quality = self.contract.calibration(score), self.contract.calibration(quality)
        return [score, quality, *others]

    def _run(self, batch: np.ndarray, outputs: tuple[str, ...]) -> list[np.ndarray]:
        try:
            with_regions = not set(REGION_OUTPUTS).isdisjoint(outputs)
            session = self._opened.region_session if with_regions else self._opened.session
            return [np.asarray(value) for value in session.run(list(outputs), {INPUT: batch})]
        except Exception as error:  # ONNX Runtime's exceptions have no public base class
            reason = " ".join(str(error).split())
            if "alloc" in reason:  # of memory, which is not the model's fault
                raise
            raise IntegrityError(
                f"the model {self.contract.name[:100]!r} cannot be run on {batch.shape[2]}x{batch.shape[1]} pixels: "
                f"{reason[:300]}; fetch it again or export it with `pocketiqa export`"
            ) from error

    def score_many(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        workers: int = 1,
        progress: Progress | None = None,
        read: Reader | None = None,
    ) -> Iterator[Row]:
        """Score files, one row a path, in the order given; a bad file gives a row and stops nothing.

        Memory does not grow with the number of paths: a few images per worker are in work, and rows are not stored. The
        process retains up to 128 MiB of freed memory from then on (see ``keep_freed_memory``).

        Args:
            paths: files (for folders see ``students.paths.find_images``); taken one by one as the work proceeds.
            workers: number of threads; each decodes, resizes and scores one image at a time.
            progress: called with (done, total) after each row; the total is 0 if ``paths`` has no length.
            read: gives what is scored under a path, see ``row``.

        Raises:
            PocketiqaError: ``workers`` is out of range, or ``paths`` is a single path or image; and, when its turn
                comes, an item that is no path.
        """
        check_int(workers, "workers", 1, MAX_WORKERS)
        _check_many(paths)
        keep_freed_memory()
        total = len(paths) if isinstance(paths, Sized) else 0
        # A single worker is the caller's own thread. A caller that stops early waits for the images in work only.
        rows = in_order(
            partial(self.row, read=read), paths, workers if workers > 1 else 0, ahead=workers * _AHEAD_PER_WORKER
        )
        return rows if progress is None else _counted(rows, total, progress)

    def row(self, path: str | os.PathLike[str], read: Reader | None = None) -> Row:
        """Score one file; every fault of the file becomes the row's status and reason.

        Args:
            path: of the file; or any name, if there is ``read``.
            read: called with ``path``, gives the image itself, such as the bytes of a member of an archive; None is the
                file of this path. An ``ImageError`` that it raises becomes the row's status and reason.

        Raises:
            PocketiqaError: ``path`` is no path: the fault of the program, not of a file.
        """
        if not isinstance(path, str | os.PathLike):
            raise PocketiqaError(
                f"a path is {type(path).__name__}, but str or Path is needed; score other images with Scorer.score"
            )
        return row_of(path, lambda notes: self._score(path if read is None else read(path), notes))


def row_of(path: str | os.PathLike[str], work: Callable[[list[str]], Result]) -> Row:
    """The row of a file; every fault of the file becomes its status and reason.

    Args:
        path: of the file.
        work: scores it; it is given a list to which it may add notes.

    Raises:
        WriteError: ``work`` could not write a file of its own.
        OutputConflictError: that file exists.
    """
    name = os.fsdecode(path)
    notes: list[str] = []
    try:
        result = work(notes)
        return Row(name, result.score, Status.OK, "; ".join(notes), result.regions, damage=result.damage)
    except ImageError as error:
        return Row(name, None, error.status, error.reason)
    except MemoryError:
        # Only this image may be too large; the next ones are tried.
        return Row(name, None, Status.FAILED, "there was not enough memory to score it")
    except (WriteError, OutputConflictError):
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no public base class; one image stops no folder
        return Row(name, None, Status.FAILED, " ".join(str(error).split())[:200] or type(error).__name__)


def score(
    image: ImageInput,
    model: str | os.PathLike[str] | None = None,
    *,
    limits: DecodeLimits = DEFAULT_LIMITS,
    regions: Iterable[MaskInput] | None = None,
    look: str | None = None,
) -> Result:
    """Score one image: ``Scorer(model, limits=limits, look=look).score(image)``; the model stays loaded.

    Args:
        image: one image, as for ``Scorer.score``.
        model: path or name of a model, as for ``Scorer``.
        limits: limits of decoding, as for ``Scorer``.
        regions: masks or boxes, as for ``Scorer.score``.
        look: as for ``Scorer``.

    Raises:
        ImageError: the file cannot be used; ``status`` and ``reason`` say why.
        PocketiqaError: something that is no image or no region, or no usable model.
    """
    path = model_path(model).absolute()
    try:
        file = path.stat()
    except OSError:
        # Which says what is wrong with the file.
        return Scorer(path, limits=limits, look=look).score(image, regions=regions)
    # Device and inode tell a file that was renamed into this place, even if size and time are those of the old one.
    scorer = _scorer(path, limits, look, (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns))
    return scorer.score(image, regions=regions)


@lru_cache(maxsize=2)
def _scorer(path: Path, limits: DecodeLimits, look: str | None, state: tuple[int, ...]) -> Scorer:
    del state  # only part of the key: a file that was written anew is opened anew
    return Scorer(path, limits=limits, look=look)


def _check_many(paths: object) -> None:
    if isinstance(paths, str | os.PathLike):
        raise PocketiqaError(
            f"paths is one path, {os.fspath(paths)!r}, but several are needed: give [path], or take Scorer.score for "
            "one image"
        )
    # Arrays of paths come from tables; arrays of numbers are pixels.
    is_image = paths.dtype.kind not in "OU" if isinstance(paths, np.ndarray) else isinstance(paths, _NOT_MANY)
    if is_image or not isinstance(paths, Iterable):
        raise PocketiqaError(
            f"paths is {type(paths).__name__}, but an iterable of paths is needed: give [path], or take Scorer.score "
            "for one image"
        )


def _counted(rows: Iterator[Row], total: int, progress: Progress) -> Iterator[Row]:
    for done, row in enumerate(rows, start=1):
        progress(done, total)
        yield row


def _check_batch(batch: np.ndarray, min_side: int) -> None:
    if not isinstance(batch, np.ndarray) or batch.ndim != 4 or len(batch) == 0:
        shape = getattr(batch, "shape", None)
        raise PocketiqaError(f"a batch is {type(batch).__name__} of shape {shape}, but uint8 NxHxWx3 is needed")
    # One image speaks for all: type and shape are those of the array.
    check_rgb(batch[0])
    if min(batch.shape[1:3]) < min_side:
        raise PocketiqaError(
            f"a batch has {batch.shape[1]}x{batch.shape[2]} pixels, but sides of {min_side} are needed"
        )


# Numbers of glibc's malloc.h. Blocks below the second bound come from the heap, whose free end is returned to the
# system only above the first. By default both are low (128 KiB) and adapt, so each photograph takes new pages.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_BLOCK_BYTES = 32 << 20
_RETAINED_BYTES = 128 << 20
MOST_BYTES = (1 << 31) - 1
"""The largest bound that malloc takes, an int of C."""
_USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory(kept_bytes: int = _RETAINED_BYTES, block_bytes: int = _BLOCK_BYTES) -> bool:
    """Let this process reuse freed memory instead of returning it to the system, from now on.

    Args:
        kept_bytes: largest amount of freed memory that is retained, at most ``MOST_BYTES``.
        block_bytes: size from which on a block is returned to the system in any case, at most ``MOST_BYTES``.

    Returns:
        Whether it was set: not without glibc, nor where the user has tuned or replaced the allocator.
    """
    if any(name in os.environ for name in _USERS_OWN):
        return False
    try:
        # The C library of this very process; others than glibc have no such function.
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, block_bytes) and mallopt(_M_TRIM_THRESHOLD, kept_bytes))
