"""``pocketiqa score --copy-to``, ``--move-to``, ``--link-to``: chosen images into a folder, where none is replaced."""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from distill.scoring.inputs import ImageSource
from pseudo_labels.errors import OutputConflictError, PocketiqaError, StorageFullError, shown, system_words
from pseudo_labels.files import explain_write_errors, private_file
from pseudo_labels.moves import JOURNAL, Journal, Move, journal_in, place_new, recorded, same_bytes
from pseudo_labels.outputs import exclusively
from pseudo_labels.parallel import Progress
from pseudo_labels.records import ImageError

Kind = Literal["copy", "move", "link"]
PAST: dict[Kind, str] = {"copy": "copied", "move": "moved", "link": "linked"}
SIDECAR = ".xmp"
_BLOCK = 1 << 20
# The first bytes of the formats whose images lie in tables, where they have no names.
_ENDINGS = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"RIFF": ".webp",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
}
_LONGEST_NAME = 255


class Planned(NamedTuple):
    """What shall become of an image.

    Attributes:
        image: what is copied, moved or linked.
        target: where it shall lie.
        there: whether it lies there already.
        refused: why it is left alone; empty if it is not.
    """

    image: ImageSource
    target: Path
    there: bool = False
    refused: str = ""


@dataclass(frozen=True)
class Transfer:
    """Where chosen images go.

    Attributes:
        kind: a copy, the file itself, or a symbolic link to it.
        folder: is made if needed; all files lie in it side by side.
    """

    kind: Kind
    folder: Path

    def check(self, images: Sequence[ImageSource]) -> None:
        """Refuse before anything is scored.

        Raises:
            PocketiqaError: an image that is no file of its own shall be moved or linked.
            OutputConflictError: the folder is a file.
        """
        other = next((image for image in images if not image.is_file), None)
        if self.kind != "copy" and other is not None:
            raise PocketiqaError(
                f"{shown(other.name)} is no file of its own, so it cannot be {PAST[self.kind]}: --copy-to DIR writes "
                "it as one"
            )
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputConflictError(f"--{self.kind}-to {self.folder} is a file, but a folder is needed: name another")

    def plan(self, images: Sequence[ImageSource]) -> list[Planned]:
        """Names in the folder: that of the image, unless several have it or another file has.

        The other name depends on nothing but the path of the image, so the same command finds it again:
        ``NAME~1a2b3c4d.jpg``, with the first digits of the SHA-256 of the absolute path.
        """
        names = [_file_name(image) for image in images]
        # Some file systems do not tell A from a.
        counts = Counter(name.casefold() for name in names)
        earlier = recorded(self.folder) if self.kind == "move" else frozenset()
        return [
            self._planned(image, name, counts[name.casefold()] > 1, earlier)
            for image, name in zip(images, names, strict=True)
        ]

    def _planned(self, image: ImageSource, name: str, several: bool, earlier: frozenset[Move]) -> Planned:
        stem, ending = os.path.splitext(name)
        mark = "~" + hashlib.sha256(os.fsencode(image.place)).hexdigest()[:8]
        other = f"{stem[: _LONGEST_NAME - 60]}{mark}{ending}"
        for candidate in (other,) if several or name == JOURNAL else (name, other):
            target = self.folder / candidate
            if not os.path.lexists(target) or self._is_half_moved(image, target, earlier):
                return Planned(image, target)
            if self._is_there(image, target):
                return Planned(image, target, there=True)
        return Planned(image, self.folder / other, refused=f"{self.folder / other} exists already and is another file")

    def _is_half_moved(self, image: ImageSource, target: Path, earlier: frozenset[Move]) -> bool:
        """Whether a killed run left the file under both names."""
        wanted = Move(image.place, _absolute(target))
        return self.kind == "move" and wanted in earlier and same_bytes(wanted.source, wanted.target)

    def _is_there(self, image: ImageSource, target: Path) -> bool:
        place = image.place
        if self.kind == "link" and os.path.islink(target):
            return os.readlink(target) == os.fspath(place)
        if os.path.realpath(target) == os.path.realpath(place):
            return True
        if self.kind == "move" or os.path.islink(target) or not target.is_file():
            # A file of the same content at another place may be the only copy that the user knows of.
            return False
        if image.is_file:
            return self.kind == "copy" and same_bytes(Path(os.path.realpath(place)), target)
        return target.read_bytes() == image.content()

    def carry_out(self, planned: Sequence[Planned], progress: Progress | None = None) -> list[Planned]:
        """Do what was planned.

        Returns:
            The plans as they were carried out: of images that could not be, with the reason.

        Raises:
            StorageFullError: the disk is full; what was done before is whole.
            OutputConflictError: another process works in the folder.
            WriteError: the folder cannot be made.
        """
        with ExitStack() as stack:
            journal = None
            if self.kind == "move":
                journal = stack.enter_context(journal_in(self.folder))
            else:
                stack.enter_context(exclusively(self.folder))
            return list(self._done(planned, journal, progress))

    def _done(
        self, planned: Sequence[Planned], journal: Journal | None, progress: Progress | None
    ) -> Iterator[Planned]:
        for done, one in enumerate(planned, start=1):
            if not (one.there or one.refused):
                try:
                    self._carry(one, journal)
                except StorageFullError:
                    raise
                except (PocketiqaError, OSError) as error:
                    words = "; ".join(system_words(error)) if isinstance(error, OSError) else str(error)
                    one = one._replace(refused=words)
            yield one
            if progress is not None:
                progress(done, len(planned))

    def _carry(self, one: Planned, journal: Journal | None) -> None:
        if journal is not None:
            sidecar = one.image.place.with_name(one.image.place.name + SIDECAR)
            journal.move(Move(one.image.place, _absolute(one.target)))
            other = one.target.with_name(one.target.name + SIDECAR)
            # What other programs know of a photograph goes with it.
            if sidecar.is_file() and not os.path.lexists(other):
                journal.move(Move(sidecar, _absolute(other)))
        elif self.kind == "link":
            with explain_write_errors(one.target):
                os.symlink(one.image.place, one.target)
        else:
            _copy(one.image, one.target)


def transfer_of(copy_to: Path | None, move_to: Path | None, link_to: Path | None) -> Transfer | None:
    """What the options of a command say of files.

    Raises:
        PocketiqaError: several are named.
    """
    goals: dict[Kind, Path | None] = {"copy": copy_to, "move": move_to, "link": link_to}
    transfers = [Transfer(kind, folder) for kind, folder in goals.items() if folder is not None]
    if len(transfers) > 1:
        raise PocketiqaError("--copy-to, --move-to and --link-to: one of them at a time")
    return transfers[0] if transfers else None


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _copy(image: ImageSource, target: Path) -> None:
    content = image.content()
    # The folder is ours alone while we work in it, so a file needs no lock of its own.
    with explain_write_errors(target), private_file(target) as (temporary, file):
        if isinstance(content, bytes):
            file.write(content)
        else:
            with open(content, "rb") as original:
                shutil.copyfileobj(original, file, _BLOCK)
                file.flush()
                status = os.fstat(original.fileno())
                os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
        file.flush()
        os.fsync(file.fileno())
        place_new(temporary, target)


def _file_name(image: ImageSource) -> str:
    name = image.place.name
    if image.is_file or os.path.splitext(name)[1]:
        return name
    try:
        begin = bytes(image.content())[:4] if image.file is not None else b""  # pyright: ignore[reportArgumentType]
    except ImageError:
        begin = b""
    return name + next((ending for mark, ending in _ENDINGS.items() if begin.startswith(mark)), "")
