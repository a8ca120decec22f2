"""``pocketiqa score --regions ... --picture ... --map ...``: regions of each photograph, and drawings of its maps.

Base install for grids, boxes and masks; superpixels need scikit-image, SAM needs torch.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from distill.html.figures import OutlinedRegion, heat_map, regions_figure
from distill.scoring.inputs import ImageSource
from distill.terminal.console import shown
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import utf8_path
from pseudo_labels.images import DecodeLimits, decode, load
from pseudo_labels.outputs import new_file, refuse_existing
from pseudo_labels.parallel import Progress, in_order
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.regions.masks import RegionError, decode_inner
from pseudo_labels.regions.sources import Proposal, RegionSource
from students.regions import RegionResult, refused
from students.runtime import Result, Row, Scorer, keep_freed_memory, row_of

MOST_REGIONS = 100_000
"""Most regions of one photograph; those behind them are one row with the reason."""
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Drawings:
    """Which drawings are wanted, and where.

    Attributes:
        picture: photograph and quality map, with outlines and numbers of the regions: a .png file, or a folder for many
            photographs. None draws none.
        heat_map: the quality map alone; likewise.
        overwrite: replace earlier files.
    """

    picture: Path | None = None
    heat_map: Path | None = None
    overwrite: bool = False

    def __bool__(self) -> bool:
        return self.picture is not None or self.heat_map is not None

    def files(self, images: Sequence[ImageSource]) -> dict[str, tuple[Path | None, Path | None]]:
        """The files of picture and heat map of each image, by its name.

        Raises:
            PocketiqaError: one file for many images, another kind of file, or a file that is one of the images.
            OutputConflictError: a file exists.
            WriteError: something that is no regular file has its name.
        """
        pictures = _targets(self.picture, "--picture", images)
        maps = _targets(self.heat_map, "--map", images)
        named: set[str] = {os.path.realpath(image.file) for image in images if image.file is not None}
        for target in (*pictures, *maps):
            if target is None:
                continue
            if os.path.realpath(target) in named:
                raise PocketiqaError(f"{target} is an image that is scored, or drawn twice: choose another name")
            named.add(os.path.realpath(target))
            refuse_existing(target, overwrite=self.overwrite)
        return dict(zip((image.name for image in images), zip(pictures, maps, strict=True), strict=True))


def _targets(out: Path | None, option: str, images: Sequence[ImageSource]) -> list[Path | None]:
    if out is None:
        return [None] * len(images)
    suffix = out.suffix.lower()
    if suffix not in _PICTURES or out.is_dir():
        return list(_in_folder(out, images))
    if suffix != ".png":
        raise PocketiqaError(f"{option} {out}: drawings are PNG files, name it {out.with_suffix('.png').name}")
    if len(images) > 1:
        raise PocketiqaError(
            f"{option} {out} is one file, but {len(images)} images are drawn: name a folder, "
            f"such as {out.with_suffix('')}"
        )
    return [out]


def _in_folder(out: Path, images: Sequence[ImageSource]) -> Iterator[Path]:
    """``NAME.png`` for each image, below ``out`` as it is below the folder that all images have in common."""
    common = os.path.commonpath([image.place.parent for image in images])
    names = [Path(os.path.relpath(image.place, common)) for image in images]
    # Of a.jpg and a.tif, both are named whole; some file systems do not tell A from a.
    stems = Counter(str(name.with_suffix("")).casefold() for name in names)
    for name in names:
        several = stems[str(name.with_suffix("")).casefold()] > 1
        yield out / (name.with_name(f"{name.name}.png") if several else name.with_suffix(".png"))


class RegionScorer:
    """Scores photographs with their regions, and draws them; rows as those of ``Scorer.score_many``.

    Args:
        scorer: model.
        source: gives the regions of a photograph; None scores none.
        drawings: what is drawn.
        limits: of decoding.
    """

    def __init__(self, scorer: Scorer, source: RegionSource | None, drawings: Drawings, limits: DecodeLimits):
        self._scorer, self._source, self._limits = scorer, source, limits
        self._drawings = drawings
        self._refs: dict[str, ImageRef] = {}
        self._files: dict[str, tuple[Path | None, Path | None]] = {}
        # Of sources that one thread at a time may ask.
        self._lock = threading.Lock()

    @contextmanager
    def opened(self, images: Sequence[ImageSource], warn: Warn) -> Iterator[None]:
        """Prepare for these images: files of regions are read, and names of drawings are tried.

        Raises:
            PocketiqaError: a file of regions is corrupt, or a drawing cannot be written under its name.
        """
        self._files = self._drawings.files(images) if self._drawings else {}
        self._refs = {image.name: _ref(image) for image in images}
        with ExitStack() as stack:
            if self._source is not None:
                scratch = Path(stack.enter_context(TemporaryDirectory(prefix="pocketiqa-regions-")))
                stack.enter_context(self._source.opened(self._refs.values(), scratch))
                notes = self._source.notes()
                if notes.get("unmatched_records"):
                    names = ", ".join(shown(name) or "no name" for name in notes["unmatched_images"][:3])
                    warn(
                        f"{notes['unmatched_records']} records of regions name none of the images, or a name that "
                        f"several have: {names}"
                    )
            yield

    def score_many(self, images: Iterable[ImageSource], *, workers: int, progress: Progress | None) -> Iterator[Row]:
        """One row an image, in order.

        Raises:
            WriteError: a drawing cannot be written.
            OutputConflictError: it appeared meanwhile.
        """
        images = list(images)
        keep_freed_memory()
        rows = in_order(self._row, images, workers if workers > 1 else 0)
        for done, row in enumerate(rows, start=1):
            if progress is not None:
                progress(done, len(images))
            yield row

    def _row(self, image: ImageSource) -> Row:
        return row_of(image, partial(self._result, image))

    def _result(self, image: ImageSource, notes: list[str]) -> Result:
        content = image.content()
        opened = decode if isinstance(content, bytes) else load
        rgb = opened(content, self._limits, notes)  # type: ignore[arg-type]
        if self._source is None:
            # No region is wanted, but the maps that regions are read from, if these are drawn.
            result, proposals = self._scorer.score(rgb, regions=() if self._files else None), []
        else:
            proposals = self._proposals(replace(self._refs[image.name], height=rgb.shape[0], width=rgb.shape[1]), rgb)
            good = [proposal.counts for proposal in proposals if proposal.status == Status.OK]
            result = self._scorer.score(rgb, regions=good)
            scored = iter(result.regions)
            rows = (next(scored) if one.status == Status.OK else refused(one.status, one.reason) for one in proposals)
            result = replace(result, regions=tuple(rows))
        if self._files:
            self._draw(image, rgb, result, proposals)
        return result

    def _proposals(self, ref: ImageRef, rgb: np.ndarray) -> list[Proposal]:
        assert self._source is not None
        lock: AbstractContextManager[Any] = ExitStack() if self._source.in_threads else self._lock
        proposals: list[Proposal] = []
        try:
            with lock:
                given = iter(self._source.propose(ref, rgb if self._source.needs_pixels else None))
                proposals += islice(given, MOST_REGIONS)
                if next(given, None) is not None:
                    reason = f"the image has more than {MOST_REGIONS} regions: those behind them were left out"
                    proposals.append(Proposal("", status=Status.DROPPED, reason=reason))
        except RegionError as error:
            proposals.append(Proposal("", status=error.status, reason=error.reason))
        except PocketiqaError as error:
            proposals.append(Proposal("", status=Status.FAILED, reason=str(error)))
        return proposals or [Proposal("", status=Status.MISSING, reason="the source gives no region of this image")]

    def _draw(self, image: ImageSource, rgb: np.ndarray, result: Result, proposals: Sequence[Proposal]) -> None:
        picture, heat = self._files[image.name]
        height, width = rgb.shape[:2]
        quality_map = result.shown_map
        across = self._scorer.map_extent(rgb.shape, quality_map.shape)
        if picture is not None:
            good = sum(region.status == Status.OK for region in result.regions)
            heading = f"{shown(image.place.name)}: score {result.score:.3f} by {self._scorer.contract.name}"
            heading += f", {good} regions" if proposals else ""
            regions = _outlined(proposals, result.regions, height, width)
            data = regions_figure(rgb, quality_map, regions, heading=heading, across=across)
            self._write(picture, data)
        if heat is not None:
            self._write(heat, heat_map(quality_map, (width, height), across))

    def _write(self, path: Path, data: bytes) -> None:
        with new_file(path, overwrite=self._drawings.overwrite) as file:
            file.write(data)


def _ref(image: ImageSource) -> ImageRef:
    address = utf8_path(os.path.abspath(image)) if image.is_file else image.name
    return ImageRef(address, address)


def _outlined(
    proposals: Sequence[Proposal], results: Sequence[RegionResult], height: int, width: int
) -> Iterator[OutlinedRegion]:
    for number, (proposal, result) in enumerate(zip(proposals, results, strict=True)):
        if result.status == Status.OK:
            box, inner = decode_inner(proposal.counts, height, width)
            yield OutlinedRegion(number, box, inner, result.quality)
