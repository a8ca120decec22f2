"""``pocketiqa score --gallery``: a page of the chosen photographs, in one file or in a folder with thumbnails."""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from distill.html.gallery import Shown, data_address, gallery_page
from distill.scoring.choosing import Choice
from distill.scoring.columns import Column, seen
from distill.scoring.inputs import ImageSource
from distill.scoring.resuming import state_of
from pseudo_labels.errors import OutputConflictError, WriteError
from pseudo_labels.files import remove_leftovers, utf8_path, write_atomic
from pseudo_labels.images import DecodeLimits, decode, load
from pseudo_labels.outputs import MANIFEST, Claim, claim, exclusively, finish, new_file, read_manifest, refuse_existing
from pseudo_labels.parallel import Progress, in_order
from pseudo_labels.records import ImageError
from students.preprocess import Preprocess
from students.runtime import Row

KIND = "gallery"
PAGE = "index.html"
_THUMBS = "thumbs"
_ENDINGS = (".html", ".htm")
_SIDE_PX, _QUALITY = 256, 72
# Columns that the page shows in its own way, or that are of regions.
_OWN = {"path", "score", "status", "reason", "region", "quality", "importance", "box", "area"}


@dataclass(frozen=True)
class Gallery:
    """A page to write.

    Attributes:
        out: a file that ends in .html holds everything; any other name is a folder with ``index.html`` and thumbnails.
        overwrite: replace an earlier one.
    """

    out: Path
    overwrite: bool = False

    @property
    def is_file(self) -> bool:
        """Whether everything is in one file."""
        return self.out.suffix.lower() in _ENDINGS

    def check(self, spec: Mapping[str, object]) -> None:
        """Refuse before anything is scored.

        Args:
            spec: of the page, see ``spec_of``.

        Raises:
            OutputConflictError: it exists, or something else has its name.
            WriteError: something that is no regular file has its name.
        """
        if self.is_file:
            refuse_existing(self.out, overwrite=self.overwrite)
        elif self.out.exists() and not self.out.is_dir():
            raise OutputConflictError(
                f"--gallery {self.out} is a file: name a page that ends in .html, or a folder for page and thumbnails"
            )
        elif (self.out / MANIFEST).exists():
            if read_manifest(self.out, KIND).spec != spec and not self.overwrite:
                raise OutputConflictError(
                    f"{self.out} holds a gallery of other photographs, another choice or another model: choose another "
                    "name, or add --overwrite to replace it"
                )
        elif self.out.is_dir() and any(not name.startswith(".") for name in os.listdir(self.out)):
            raise OutputConflictError(f"{self.out} is not empty and is no gallery: choose another folder")
        there = next(place for place in (self.out, *self.out.absolute().parents) if place.is_dir())
        if not os.access(there, os.W_OK | os.X_OK):
            raise WriteError(f"--gallery {self.out} cannot be written: no permission in {there}; name another place")

    def write(self, made: "Made", progress: Progress | None = None) -> Path:
        """Write it; killed, the same command goes on where it was (folder) or begins anew (file).

        Returns:
            The page.

        Raises:
            OutputConflictError: it exists.
            StorageFullError: the disk is full.
            WriteError: it cannot be written for another reason.
        """
        if self.is_file:
            # The page is claimed before the thumbnails are made.
            with new_file(self.out, overwrite=self.overwrite) as file:
                file.write(made.page(self.out.parent, None, progress))
            return self.out
        with exclusively(self.out):
            if claim(self.out, KIND, dict(made.spec), overwrite=self.overwrite) is not Claim.DONE:
                (self.out / _THUMBS).mkdir(exist_ok=True)
                remove_leftovers(self.out / _THUMBS)
                write_atomic(self.out / PAGE, made.page(self.out, self.out / _THUMBS, progress))
                finish(self.out, {"photographs": len(made.rows)})
        return self.out / PAGE


@dataclass(frozen=True)
class Made:
    """What a page is made of.

    Attributes:
        rows: in their order.
        images: by the names of the rows.
        moved: where a photograph will lie, by name, if it is moved.
        model: name and digest.
        columns: of the rows.
        scored: how many images were scored.
        limits: of decoding.
        workers: photographs that are decoded at a time.
        spec: what determines the page, see ``spec_of``.
    """

    rows: Sequence[Row]
    images: Mapping[str, ImageSource]
    moved: Mapping[str, Path]
    model: tuple[str, str]
    columns: Sequence[Column]
    scored: int
    limits: DecodeLimits
    workers: int = 1
    spec: Mapping[str, object] = field(default_factory=dict)

    def page(self, folder: Path, thumbs: Path | None, progress: Progress | None) -> bytes:
        """The page.

        Args:
            folder: that it will lie in: addresses of files are relative to it.
            thumbs: folder for thumbnails; None keeps them in the page.
            progress: called with (done, total).
        """
        pictures = in_order(partial(self._thumbnail, thumbs), self.rows, self.workers if self.workers > 1 else 0)
        shown = list(self._shown(folder, _counted(pictures, len(self.rows), progress)))
        name, digest = self.model
        return gallery_page(shown, model=name, digest=digest, chosen_from=self.scored).encode()

    def _shown(self, folder: Path, pictures: Iterable[str]) -> Iterator[Shown]:
        further = [column for column in self.columns if column.heading and column.name not in _OWN]
        for row, picture in zip(self.rows, pictures, strict=True):
            image = self.images[row.path]
            place = self.moved.get(row.path, image.place)
            is_file = image.is_file
            href = quote(os.fsencode(os.path.relpath(place, os.path.abspath(folder)))) if is_file else ""
            # A colon in the first part would make a scheme of it.
            href = f"./{href}" if href and not href.startswith(".") else href
            yield Shown(
                name=utf8_path(place.name),
                score=row.score,
                status=str(row.status),
                reason=row.reason,
                path=utf8_path(place) if is_file else row.path,
                href=href,
                thumbnail=picture,
                extra=[(column.heading, text) for column in further if (text := seen(column, column.of_image(row)))],
            )

    def _thumbnail(self, thumbs: Path | None, row: Row) -> str:
        """Address of the small picture; empty if there is none."""
        if row.score is None:
            return ""
        image = self.images[row.path]
        name = ""
        if thumbs is not None:
            # Of another state of the file there would be another picture.
            state = None if image.file is None else state_of(image.file)
            name = hashlib.sha256(f"{utf8_path(image.place)} {state}".encode()).hexdigest()[:16] + ".jpg"
            if (thumbs / name).exists():
                return f"{_THUMBS}/{name}"
        try:
            jpeg = small_jpeg(image, self.limits)
        except (ImageError, MemoryError):  # it vanished or changed since it was scored
            return ""
        if thumbs is None:
            return data_address(jpeg)
        write_atomic(thumbs / name, jpeg)
        return f"{_THUMBS}/{name}"


def spec_of(images: Sequence[ImageSource], choice: Choice, digest: str) -> dict[str, object]:
    """What determines a page, known before anything is scored: photographs and their files, choice and model.

    Args:
        images: all that are scored.
        choice: of them.
        digest: of the model.
    """
    total = hashlib.sha256()
    for image in images:
        total.update(f"{utf8_path(image.place)} {None if image.file is None else state_of(image.file)}\0".encode())
    return {"photographs": total.hexdigest(), "choice": asdict(choice), "model": digest, "side_px": _SIDE_PX}


def small_jpeg(image: ImageSource, limits: DecodeLimits) -> bytes:
    """A photograph as a JPEG file of at most 256 pixels on a side.

    Raises:
        ImageError: it cannot be read.
    """
    content, resizer = image.content(), Preprocess()
    if isinstance(content, bytes):
        rgb = decode(content, limits, resizer=resizer)
    else:
        rgb = load(content, limits, resizer=resizer)
    small = Image.fromarray(np.ascontiguousarray(rgb))
    small.thumbnail((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC, reducing_gap=2.0)
    stored = io.BytesIO()
    small.save(stored, "JPEG", quality=_QUALITY)
    return stored.getvalue()


def _counted(pictures: Iterable[str], total: int, progress: Progress | None) -> Iterator[str]:
    for done, picture in enumerate(pictures, start=1):
        if progress is not None:
            progress(done, total)
        yield picture
