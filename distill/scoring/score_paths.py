"""``pocketiqa score``: paths to rows of the CPU runtime, and these to where they are wanted. Base install only."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path

from distill.scoring.answers import About, Answers
from distill.scoring.choosing import Choice
from distill.scoring.columns import IMAGE_COLUMNS, REGION_COLUMNS, Layout, model_columns, type_columns
from distill.scoring.inputs import ImageSource, Reading, find_inputs
from distill.scoring.meaning_columns import Meaning
from distill.scoring.resuming import RowRecord, resumed_rows
from distill.scoring.row_files import Tally, check_format, choose_format, write_rows
from distill.scoring.scored_regions import Drawings, RegionScorer
from distill.terminal import console
from pseudo_labels.defaults import MAX_PIXELS
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import explain_write_errors
from pseudo_labels.images import DecodeLimits
from pseudo_labels.outputs import NewFile, new_file
from pseudo_labels.regions.sources import RegionSource
from students.engines import ONNX_RUNTIME
from students.runtime import Row, Scorer

ScoreMany = Callable[..., Iterator[Row]]
"""As ``Scorer.score_many``."""


def score_paths(
    paths: Sequence[str | os.PathLike[str]],
    model: str | None,
    *,
    recursive: bool = False,
    reading: Reading | None = None,
    workers: int = 1,
    file_format: str | None = None,
    out: Path | None,
    overwrite: bool = False,
    resume: bool = False,
    excel_safe: bool = False,
    max_pixels: int = MAX_PIXELS,
    look: str | None = None,
    engine: str = ONNX_RUNTIME,
    regions: RegionSource | None = None,
    drawings: Drawings | None = None,
    answers: Answers | None = None,
    meaning: Meaning | None = None,
    types: bool = True,
) -> Tally:
    """Score images and folders and write one record each; arguments as for ``pocketiqa score``.

    Args:
        paths: words, see ``find_inputs``.
        model: see ``Scorer``.
        recursive: look into the folders below too.
        reading: how the words are read; None is by ``recursive`` alone.
        workers: images scored at a time.
        file_format: one of ``FORMATS``; None follows the ending of ``out``.
        out: file to write; None is standard output.
        overwrite: replace an earlier file.
        resume: keep rows of an earlier run of the same model and limits whose image files have the same size and time.
        excel_safe: write CSV in which no cell is a formula for a spreadsheet.
        max_pixels: see ``DecodeLimits``.
        look: see ``Scorer``.
        engine: what computes the model, see ``students.engines``.
        regions: gives the regions of each image: each becomes a row below the image's.
        drawings: pictures and heat maps to draw.
        answers: which rows are wanted, and what follows them.
        meaning: columns that say what a score means.
        types: columns that say what is wrong, where the model tells it.

    Returns:
        The number of rows, of scores, of regions, of chosen rows, and of folders without images, each of which was
        named in a note.

    Raises:
        PocketiqaError: no such model, no images at all, a format that cannot be written here or is not that of the
            ending, or drawings of a run that resumes.
        OutputConflictError: ``out`` exists already, or is being written by another process.
        WriteError: ``out`` cannot be written; this is tried before the first image is scored.
    """
    limits, drawings = DecodeLimits(max_pixels=max_pixels), drawings or Drawings()
    if resume and drawings:
        raise PocketiqaError("--picture and --map draw what is scored now, and --resume skips images: leave one out")
    answers = Answers() if answers is None else answers
    if answers.listing and out is None and file_format is not None:
        raise PocketiqaError(f"--list prints paths and no {file_format}: add --out FILE for the rows, or leave one out")
    file_format = choose_format(file_format, out)
    check_format(file_format, out, excel_safe=excel_safe)
    if resume and out is None:
        raise PocketiqaError("--resume continues a file: name it with --out FILE")
    with ExitStack() as stack:
        file = None if out is None else stack.enter_context(new_file(out, overwrite=overwrite or resume))
        scorer = Scorer(model, limits=limits, look=look, engine=engine)
        inputs = find_inputs(paths, reading or Reading(recursive), console.warn)
        images, empty = inputs.images, inputs.empty
        if not images:
            raise PocketiqaError("; ".join(empty) or "no images were named: name files and folders")
        answers.check(images, scorer.digest)
        for words in empty:
            console.warn(words)
        name = scorer.model.name
        spec = None if regions is None else {"source": regions.name, **regions.spec()}
        # New columns come last, so that readers by name or position of earlier files go on.
        columns = [
            *IMAGE_COLUMNS,
            *(REGION_COLUMNS if regions is not None else ()),
            *model_columns(name, scorer.digest),
            *(() if meaning is None else meaning.columns(scorer.model, model)),
            *type_columns(types, scorer.contract),
        ]
        write = partial(
            write_rows,
            file_format=file_format,
            layout=Layout(columns, excel_safe),
            heading=f"scores of {name} ({scorer.digest[:12]}), 0 worst, 1 best",
            about={"model": {"name": name, "sha256": scorer.digest}, **({"regions": spec} if spec else {})},
        )
        many: ScoreMany = partial(scorer.score_many, read=ImageSource.content)
        if regions is not None or drawings:
            by_region = RegionScorer(scorer, regions, drawings, limits)
            stack.enter_context(by_region.opened(images, console.warn))
            many = by_region.score_many
        waits = answers.follow or answers.choice != Choice()
        report = stack.enter_context(console.progress(f"score ({name})", visible=out is not None or waits))
        tally, kept = Tally(empty_folders=len(empty)), list[Row]()

        def chosen(rows: Iterator[Row]) -> Iterator[Row]:
            for row in answers.choice.of(tally.count(rows)):
                tally.chosen += 1
                if answers.follow:
                    kept.append(row)
                yield row

        if file is None or out is None:
            rows = chosen(many(images, workers=workers, progress=report))
            _drain(rows) if answers.listing else write(rows, out=None)
        else:
            record = RowRecord(out, scorer.digest, limits, spec, look=scorer.look)
            record_left = resume
            try:
                record.resume() if resume and not overwrite else record.start()
                rows = resumed_rows(many, images, record, workers=workers, report=report, warn=console.warn)
                # Of images that are not named now, none can be the best of those that are.
                others = iter(()) if waits else record.others(images)
                write(chosen(chain(rows, others)), out=file)
                record.written(_digest(file))
            except KeyboardInterrupt:
                record_left = True
                raise
            finally:
                record.close(keep=record_left)
    # Behind the block, for now the file with the rows has its name: whatever fails, they are there.
    about = About(name, scorer.digest, columns, scored=tally.scored, limits=limits, workers=workers)
    tally.all_given = not answers.follow or answers.give(kept, {image.name: image for image in images}, about)
    return tally


def _drain(rows: Iterator[Row]) -> None:
    for _ in rows:
        pass


def _digest(file: NewFile) -> str:
    with explain_write_errors(file.path or Path()):
        file.file.flush()
        file.file.seek(0)
        return hashlib.file_digest(file.file, "sha256").hexdigest()  # type: ignore[arg-type]
