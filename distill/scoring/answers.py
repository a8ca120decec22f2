"""What ``pocketiqa score`` does with the rows that were chosen, once all are scored: lists, files, sidecars, pages."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distill.scoring.choosing import Choice
from distill.scoring.columns import Column
from distill.scoring.galleries import Gallery, Made, spec_of
from distill.scoring.inputs import ImageSource
from distill.scoring.sidecars import Sidecars, plain_stars
from distill.scoring.transfers import PAST, Planned, Transfer
from distill.terminal import console
from distill.terminal.console import shown
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import explain_write_errors
from pseudo_labels.images import DEFAULT_LIMITS, DecodeLimits
from pseudo_labels.moves import was_stopped
from pseudo_labels.outputs import exclusively
from students.meaning.model_record import ModelName
from students.meaning.population import stars_of_model
from students.runtime import Row

_SHOWN = 5


@dataclass(frozen=True)
class About:
    """What scored the rows.

    Attributes:
        name: of the model.
        digest: its checksum.
        columns: of the rows.
        scored: number of images that were scored.
        limits: of decoding.
        workers: images in work at a time.
    """

    name: str
    digest: str
    columns: Sequence[Column]
    scored: int = 0
    limits: DecodeLimits = DEFAULT_LIMITS
    workers: int = 1

    @property
    def stars(self) -> Callable[[Row], int]:
        """Stars of a row, 1 to 5: of its column, else those that come with the model, else ``plain_stars``."""
        column = next((one for one in self.columns if one.name == "stars"), None)
        of_score = stars_of_model(ModelName(self.name, self.digest)) or plain_stars

        def stars(row: Row) -> int:
            value = None if column is None else column.of_image(row)
            return of_score(row.score or 0.0) if value is None else value

        return stars


@dataclass(frozen=True)
class Answers:
    """What is wanted besides the rows.

    Attributes:
        choice: which rows.
        listing: print their paths, one a line, in the place of the table.
        null: end each path of the list with NUL.
        transfer: copy, move or link their files.
        gallery: write a page of the photographs.
        sidecars: write stars and score beside the photographs.
        dry_run: say what ``transfer`` and ``sidecars`` would do, and change nothing.
    """

    choice: Choice = field(default_factory=Choice)
    listing: bool = False
    null: bool = False
    transfer: Transfer | None = None
    sidecars: Sidecars | None = None
    gallery: Gallery | None = None
    dry_run: bool = False

    @property
    def follow(self) -> bool:
        """Whether something follows the rows."""
        return self.listing or any(one is not None for one in (self.transfer, self.sidecars, self.gallery))

    def check(self, images: Sequence[ImageSource], digest: str) -> None:
        """Refuse before anything is scored.

        Args:
            images: that will be scored.
            digest: of the model.

        Raises:
            PocketiqaError: something cannot be done with these images.
            OutputConflictError: something that would be written exists, or another process works in the folder.
            WriteError: the folder cannot be made.
        """
        if self.dry_run and self.transfer is None and self.sidecars is None:
            raise PocketiqaError(
                "--dry-run shows what --copy-to, --move-to, --link-to or --xmp would do: add one of them"
            )
        broken = next((image.name for image in images if "\n" in image.name), None)
        if self.listing and not self.null and broken is not None:
            raise PocketiqaError(
                f"the path {shown(broken)} holds a line end, so a list of one path a line would be read wrongly: add "
                "--null, and read the list with xargs -0 or the like"
            )
        counts = self.choice.top is not None or self.choice.bottom is not None
        if counts and self.transfer is not None and self.transfer.kind == "move" and was_stopped(self.transfer.folder):
            folder = self.transfer.folder
            raise PocketiqaError(
                f"an earlier run was stopped while it moved images to {folder}: --top and --bottom would now choose "
                f"among the rest; `pocketiqa undo {folder}` first, then run the same command again"
            )
        for wanted in (self.transfer, self.sidecars):
            if wanted is not None:
                wanted.check(images)
        if self.transfer is not None and not self.dry_run:
            # Tried now, and not after hours of scoring.
            with exclusively(self.transfer.folder):
                pass
        if self.gallery is not None:
            self.gallery.check(spec_of(images, self.choice, digest))

    def give(self, rows: Sequence[Row], images: Mapping[str, ImageSource], about: About) -> bool:
        """Do all of it.

        Args:
            rows: that were chosen; those without a score are left alone.
            images: by the names of their rows.
            about: what scored them.

        Returns:
            Whether everything could be done; what could not was said.

        Raises:
            StorageFullError: the disk is full.
            WriteError: an output cannot be written.
        """
        scored = [row for row in rows if row.score is not None]
        if self.listing:
            _print_list([row.path for row in scored], b"\0" if self.null else b"\n")
        all_done = self.sidecars is None or self._write_sidecars(self.sidecars, scored, about)
        planned = [] if self.transfer is None else self.transfer.plan([images[row.path] for row in scored])
        if self.gallery is not None:
            # Before anything is moved: a page that was broken off can be made by the same command.
            is_move = self.transfer is not None and self.transfer.kind == "move" and not self.dry_run
            moved = {
                one.image.name: Path(os.path.abspath(one.target)) for one in planned if is_move and not one.refused
            }
            with console.progress("gallery") as report:
                made = Made(
                    rows=rows,
                    images=images,
                    moved=moved,
                    model=(about.name, about.digest),
                    columns=about.columns,
                    scored=about.scored,
                    limits=about.limits,
                    workers=about.workers,
                    spec=spec_of(list(images.values()), self.choice, about.digest),
                )
                page = self.gallery.write(made, report)
            console.err.print(f"gallery: {shown(str(page))}")
        if self.transfer is None:
            return all_done
        if self.dry_run:
            return _say_plan(self.transfer, planned) and all_done
        with console.progress(self.transfer.kind) as report:
            done = self.transfer.carry_out(planned, report)
        return _say_done(self.transfer, done) and all_done

    def _write_sidecars(self, sidecars: Sidecars, rows: Sequence[Row], about: About) -> bool:
        with console.progress("xmp", visible=not self.dry_run) as report:
            written = sidecars.write(
                rows, (about.name, about.digest), about.stars, dry_run=self.dry_run, progress=report
            )
        verb = "would be" if self.dry_run else "were"
        words = f"sidecars: {written.new} {verb} made, {written.merged} added to, {written.kept} left as they are"
        console.err.print(words)
        for path, reason in written.refused[:_SHOWN]:
            console.warn(f"no sidecar for {shown(path)}: {shown(reason)}")
        if len(written.refused) > _SHOWN:
            console.warn(f"nor for {len(written.refused) - _SHOWN} more")
        return not written.refused


def _print_list(paths: Sequence[str], end: bytes) -> None:
    with explain_write_errors(Path("standard output")):
        # Bytes: names need not be valid in any encoding.
        sys.stdout.flush()
        sys.stdout.buffer.write(b"".join(os.fsencode(path) + end for path in paths))
        sys.stdout.buffer.flush()


def _say_plan(transfer: Transfer, planned: Sequence[Planned]) -> bool:
    for one in planned:
        if one.refused:
            console.err.print(f"would not {transfer.kind} {shown(one.image.name)}: {shown(one.refused)}")
        elif one.there:
            console.err.print(f"would leave {shown(one.image.name)}: it is at {shown(str(one.target))} already")
        else:
            console.err.print(f"would {transfer.kind} {shown(one.image.name)} to {shown(str(one.target))}")
    console.err.print(f"dry run: nothing was {PAST[transfer.kind]}")
    return not any(one.refused for one in planned)


def _say_done(transfer: Transfer, done: Sequence[Planned]) -> bool:
    refused = [one for one in done if one.refused]
    there = sum(one.there for one in done)
    renamed = [one for one in done if not one.refused and one.target.name != one.image.place.name and one.image.is_file]
    count = len(done) - len(refused) - there
    words = (
        f"{count} images were {PAST[transfer.kind]} to {transfer.folder}"
        if count != 1
        else (f"1 image was {PAST[transfer.kind]} to {transfer.folder}")
    )
    words += f", {there} were there already" if there else ""
    words += f"; `pocketiqa undo {transfer.folder}` moves them back" if transfer.kind == "move" and count else ""
    console.err.print(shown(words))
    for one in renamed[:_SHOWN]:
        console.warn(f"{shown(one.image.name)} became {shown(one.target.name)}, for the name was taken")
    if len(renamed) > _SHOWN:
        console.warn(f"and so did {len(renamed) - _SHOWN} more")
    for one in refused[:_SHOWN]:
        console.warn(f"{shown(one.image.name)} was not {PAST[transfer.kind]}: {shown(one.refused)}")
    if len(refused) > _SHOWN:
        console.warn(f"nor were {len(refused) - _SHOWN} more")
    return not refused
