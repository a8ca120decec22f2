"""``pocketiqa best``: photographs of one moment, ranked among themselves, and the best of each. Base install only."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.scoring.answers import About, Answers
from distill.scoring.best_page import BestPage
from distill.scoring.columns import IMAGE_COLUMNS, Layout, model_columns, type_columns
from distill.scoring.inputs import ImageSource, Reading, find_inputs
from distill.scoring.moments import Seen, check_seconds
from distill.scoring.row_files import check_format, choose_format, write_rows
from distill.scoring.shots import GROUP_COLUMNS, Shot, Viewed, ranked
from distill.terminal import console
from pseudo_labels.defaults import MAX_PIXELS, MOMENT_SECONDS
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.exif_time import taken_at
from pseudo_labels.fingerprints import fingerprint
from pseudo_labels.images import DecodeLimits
from pseudo_labels.moves import was_stopped
from pseudo_labels.outputs import new_file
from pseudo_labels.parallel import in_order
from students.fields import check_int
from students.runtime import MAX_WORKERS, Result, Scorer, keep_freed_memory, row_of

_AHEAD_PER_WORKER = 4


@dataclass(frozen=True)
class Best:
    """What came out.

    Attributes:
        rows: group by group, the best first; those without a score at the end.
        all_given: whether all that was asked for besides the rows could be done.
        empty_folders: folders, patterns and lists without an image.
    """

    rows: list[Shot]
    all_given: bool
    empty_folders: int

    @property
    def complete(self) -> bool:
        """Whether every photograph has a score, and all could be done."""
        return self.all_given and not self.empty_folders and all(row.score is not None for row in self.rows)


def best_of(
    paths: Sequence[str],
    model: str | None = None,
    *,
    reading: Reading | None = None,
    keep: int = 1,
    seconds: float = MOMENT_SECONDS,
    rest: bool = False,
    look: str | None = None,
    workers: int = 1,
    max_pixels: int = MAX_PIXELS,
    file_format: str | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    excel_safe: bool = False,
    types: bool = True,
    page: Path | None = None,
    answers: Answers | None = None,
) -> Best:
    """Group and rank photographs and write a record each; arguments as for ``pocketiqa best``.

    Args:
        paths: words, see ``inputs.find_inputs``.
        model: see ``Scorer``.
        reading: how the words are read.
        keep: photographs that are kept of each group.
        seconds: see ``moments.moments_of``.
        rest: ``answers`` are given for those that are not kept.
        look: see ``Scorer``.
        workers: images in work at a time.
        max_pixels: see ``DecodeLimits``.
        file_format: one of ``row_files.FORMATS``; None follows the ending of ``out``.
        out: file to write; None is standard output.
        overwrite: replace earlier files.
        excel_safe: write CSV in which no cell is a formula for a spreadsheet.
        types: columns and page say what is wrong, where the model tells it.
        page: HTML file to write.
        answers: what follows the rows: a list, or files that are copied, moved or linked.

    Raises:
        PocketiqaError: no such model, no images at all, or an option that means nothing.
        OutputConflictError: ``out`` or ``page`` exists, or is being written by another process.
        WriteError: they cannot be written; this is tried before the first image is scored.
    """
    check_int(keep, "--keep", 1, 1_000_000)
    check_int(workers, "workers", 1, MAX_WORKERS)
    check_seconds(seconds)
    answers = Answers() if answers is None else answers
    _check_answers(answers, rest, with_format=file_format is not None and out is None)
    file_format = choose_format(file_format, out)
    check_format(file_format, out, excel_safe=excel_safe)
    limits = DecodeLimits(max_pixels=max_pixels)
    with ExitStack() as stack:
        file = None if out is None else stack.enter_context(new_file(out, overwrite=overwrite))
        page_file = None if page is None else stack.enter_context(new_file(page, overwrite=overwrite))
        scorer = Scorer(model, limits=limits, look=look)
        inputs = find_inputs(paths, reading or Reading(), console.warn)
        if not inputs.images:
            raise PocketiqaError("; ".join(inputs.empty) or "no images were named: name files and folders")
        answers.check(inputs.images, scorer.digest)
        for words in (*inputs.empty, *_lacking(scorer)):
            console.warn(words)
        rows = ranked(_viewed(scorer, inputs.images, workers), scorer.contract.pairs, keep=keep, seconds=seconds)
        columns = [
            *IMAGE_COLUMNS,
            *GROUP_COLUMNS,
            *model_columns(scorer.model.name, scorer.digest),
            *type_columns(types, scorer.contract),
        ]
        if not answers.listing or file is not None:
            write_rows(
                rows,
                file_format,
                file,
                layout=Layout(columns, excel_safe),
                heading=f"groups by {scorer.model.name} ({scorer.digest[:12]}); wins and confidence are probabilities",
                about={
                    "model": {"name": scorer.model.name, "sha256": scorer.digest},
                    "groups": {"keep": keep, "seconds": seconds, "pairs": scorer.contract.pairs is not None},
                },
            )
        images = {image.name: image for image in inputs.images}
        if page_file is not None:
            # Before anything is moved, as thumbnails are made of the files.
            page_file.write(BestPage(scorer.model, limits, keep, types).html(rows, images).encode())
    # Behind the block, for now the files have their names: whatever fails, they are there.
    chosen = [row for row in rows if row.kept is not None and row.kept is not rest]
    scored = sum(row.score is not None for row in rows)
    facts = About(scorer.model.name, scorer.digest, columns, scored=scored, limits=limits, workers=workers)
    all_given = not answers.follow or answers.give(chosen, images, facts)
    return Best(rows, all_given, len(inputs.empty))


def _check_answers(answers: Answers, rest: bool, *, with_format: bool) -> None:
    """Refuse what means nothing together, before anything is opened.

    Raises:
        PocketiqaError: naming the option.
    """
    if rest and not answers.follow:
        raise PocketiqaError(
            "--rest says which photographs are listed, copied, moved or linked: add --list, --copy-to, --move-to or "
            "--link-to"
        )
    if answers.listing and with_format:
        raise PocketiqaError("--list prints paths and no rows: add --out FILE for these, or leave out --format")
    transfer = answers.transfer
    if transfer is not None and transfer.kind == "move" and not rest and was_stopped(transfer.folder):
        raise PocketiqaError(
            f"an earlier run was stopped while it moved images to {transfer.folder}, and would now choose the best of "
            f"what is left: `pocketiqa undo {transfer.folder}` first, then run the same command again"
        )


def _lacking(scorer: Scorer) -> list[str]:
    """A sentence on a student that has no head on pairs."""
    if scorer.contract.pairs is not None:
        return []
    return [
        f"{scorer.contract.name} has no head on pairs: photographs are ranked by their scores alone, without "
        "confidence, and what looks alike is told by hashes; `pocketiqa fit-pairs` adds one"
    ]


def _viewed(scorer: Scorer, images: Sequence[ImageSource], workers: int) -> list[Viewed]:
    keep_freed_memory()
    view = _Viewer(scorer).view
    ahead = workers * _AHEAD_PER_WORKER
    viewed: list[Viewed] = []
    with console.progress(f"best ({scorer.model.name})") as report:
        for one in in_order(view, images, workers if workers > 1 else 0, ahead=ahead):
            viewed.append(one)
            report(len(viewed), len(images))
    return viewed


class _Viewer:
    def __init__(self, scorer: Scorer):
        self._scorer, self._head = scorer, scorer.contract.pairs

    def view(self, image: ImageSource) -> Viewed:
        """Decode and score a photograph once; every fault of its file becomes the status and reason of its row."""
        seen: list[Seen] = []
        results: list[Result] = []

        def work(notes: list[str]) -> Result:
            content = image.content()
            rgb = self._scorer.decoded(content, notes)
            results.append(self._scorer.score(rgb))
            seen.append(self._seen(image, content, rgb, results[0].embedding))
            return results[0]

        row = row_of(image, work)
        return Viewed(row) if row.score is None else Viewed(row, seen[0], results[0].embedding)

    def _seen(
        self, image: ImageSource, content: Path | bytes, rgb: np.ndarray, embedding: NDArray[np.float32] | None
    ) -> Seen:
        look = fingerprint(self._scorer.contract.preprocess.resize(rgb))
        return Seen(
            image.place,
            taken_at(content),
            None if look.is_flat else int(look.dhash, 16),
            None if self._head is None or embedding is None else self._head.directions(embedding[None])[0],
        )
