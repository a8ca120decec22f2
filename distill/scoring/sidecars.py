"""``pocketiqa score --xmp``: stars and score of each photograph in a sidecar beside it; the photograph is only read."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distill.scoring.inputs import ImageSource
from distill.terminal.console import shown
from pseudo_labels.errors import OutputConflictError, PocketiqaError, StorageFullError, system_words
from pseudo_labels.outputs import new_file
from pseudo_labels.parallel import Progress
from pseudo_labels.xmp import MAX_BYTES, Judgement, merged, new_sidecar
from students.runtime import Row

Existing = Literal["merge", "keep", "refuse"]
SUFFIX = ".xmp"
_STARS = 5


def plain_stars(score: float) -> int:
    """Stars by fifths of the scale: 1 below 0.2, 2 below 0.4, ... 5 from 0.8 on."""
    return min(_STARS, 1 + int(score * _STARS))


def sidecar_of(photograph: Path) -> Path:
    """``photo.jpg.xmp`` beside ``photo.jpg``: a name that no other photograph's sidecar has."""
    return photograph.with_name(photograph.name + SUFFIX)


@dataclass(frozen=True)
class Written:
    """What became of the sidecars.

    Attributes:
        new: made.
        merged: had content of others, which stayed.
        kept: left as they were.
        refused: photographs whose sidecar could not be written, with the reason.
    """

    new: int
    merged: int
    kept: int
    refused: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Sidecars:
    """Sidecars to write.

    Attributes:
        existing: what to do where there is one: add to it, leave it, or refuse the whole run before it begins.
    """

    existing: Existing = "merge"

    def check(self, images: Sequence[ImageSource]) -> None:
        """Refuse before anything is scored.

        Raises:
            PocketiqaError: an image is no file of its own.
            OutputConflictError: there are sidecars, and they shall be refused.
        """
        other = next((image for image in images if not image.is_file), None)
        if other is not None:
            raise PocketiqaError(
                f"{shown(other.name)} is no file of its own, so no sidecar can lie beside it: leave out --xmp"
            )
        there = [path for image in images if os.path.lexists(path := sidecar_of(Path(image.name)))]
        if there and self.existing == "refuse":
            raise OutputConflictError(
                f"{len(there)} sidecars exist already, {shown(str(there[0]))} for one: add --xmp-existing merge to add "
                "to them, or keep to leave them as they are"
            )

    def write(
        self,
        rows: Sequence[Row],
        model: tuple[str, str],
        stars: Callable[[Row], int] | None = None,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Written:
        """Write one for each row with a score.

        Args:
            rows: of photographs.
            model: name and digest.
            stars: 1 to 5 of a row; None is ``plain_stars`` of its score.
            dry_run: only count.
            progress: called with (done, total).

        Raises:
            StorageFullError: the disk is full; what was written is whole.
        """
        counts, refused = {"new": 0, "merged": 0, "kept": 0}, list[tuple[str, str]]()
        for done, row in enumerate(rows, start=1):
            if row.score is not None:
                rating = plain_stars(row.score) if stars is None else stars(row)
                try:
                    counts[self._write(Path(row.path), Judgement(row.score, rating, *model), dry_run)] += 1
                except StorageFullError:
                    raise
                except (PocketiqaError, OSError) as error:
                    words = "; ".join(system_words(error)) if isinstance(error, OSError) else str(error)
                    refused.append((row.path, words))
            if progress is not None:
                progress(done, len(rows))
        return Written(counts["new"], counts["merged"], counts["kept"], tuple(refused))

    def _write(self, photograph: Path, judgement: Judgement, dry_run: bool) -> str:
        path = sidecar_of(photograph)
        is_there = os.path.lexists(path)
        if is_there and self.existing == "keep":
            return "kept"
        if dry_run:
            return "merged" if is_there else "new"
        # Claimed before it is read: what changes meanwhile is not overwritten.
        with new_file(path, overwrite=is_there) as file:
            if not is_there:
                file.write(new_sidecar(judgement))
                return "new"
            try:
                with open(path, "rb") as earlier:
                    file.write(merged(earlier.read(MAX_BYTES + 1), judgement))
            except PocketiqaError as error:
                raise PocketiqaError(f"{path}: {error}") from error
        return "merged"
