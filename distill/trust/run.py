"""``pocketiqa trust``: from names of models and photographs to page, JSON and Markdown."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distill.leakage.image_sets import ImageSet, evaluation_image_set
from distill.terminal import console
from distill.trust.definitions import CATALOGUE, DEFINITIONS, TESTS, WATERLOO
from distill.trust.drawing import draw
from distill.trust.measure import measure, photograph_files
from distill.trust.models import open_models
from distill.trust.page import page
from distill.trust.rated import with_ratings
from distill.trust.store import ScoreStore
from distill.trust.summary import summarise
from distill.trust.tables import markdown
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import checksummed_json
from pseudo_labels.outputs import new_file
from students.paths import find_images

FORMAT = 1
_ENDINGS = (".html", ".htm")


def trust(
    models: Sequence[str],
    photographs: Sequence[Path],
    out: Path,
    *,
    tests: Sequence[str] | None = None,
    first: int | None = None,
    recursive: bool = False,
    brisque: Path | None = None,
    ratings: str | None = None,
    split: str | None = None,
    intervals: Sequence[Path] = (),
    scores: Path | None = None,
    picture: Path | None = None,
    overwrite: bool = False,
    warn: Callable[[str], None] = console.warn,
) -> dict[str, Any]:
    """Compare models, and write the page, and its JSON and Markdown beside it.

    Args:
        models: names and paths as for ``pocketiqa evaluate``, or functions as ``module:function``.
        photographs: clean, sharp photographs, and folders of them.
        out: page to write, ``.html``; the other two have its name with ``.json`` and ``.md``.
        tests: some of ``TESTS``; None for all.
        first: only so many photographs, the first by name.
        recursive: look into subfolders too.
        brisque: folder of OpenCV's two files of BRISQUE, which is then compared too.
        ratings: rated photographs, ``NAME:FOLDER`` as for ``pocketiqa evaluate --on``.
        split: part of ``ratings``; None is ``test`` where there are parts.
        intervals: records that ``pocketiqa intervals`` wrote of some of the models.
        scores: folder of stored scores; None is a folder beside ``out``.
        picture: also draw this PNG file.
        overwrite: replace these files; scores that are stored are used all the same.
        warn: called with a sentence on photographs that are left out.

    Returns:
        All figures, as in the JSON file.

    Raises:
        PocketiqaError: wrong input, each named with the next step; a model that gives no score.
        OutputConflictError: a file exists already, or another process works with the scores.
    """
    chosen = _checked(out, tests, first, photographs)
    if picture is not None and picture.suffix.lower() != ".png":
        raise PocketiqaError(f"--picture {picture}: it is a PNG file, name it {picture.with_suffix('.png').name}")
    several = len(models) + (brisque is not None) > 1
    if picture is not None and CATALOGUE not in chosen and not (several and WATERLOO in chosen):
        raise PocketiqaError(
            f"--picture {picture}: there would be nothing to draw; run --test {CATALOGUE} too, or "
            f"--test {WATERLOO} with two models, or leave it out"
        )
    if intervals and ratings is None:
        raise PocketiqaError(f"--intervals {intervals[0]} are compared with ratings: name some with --ratings")
    if split is not None and ratings is None:
        raise PocketiqaError(f"--split {split} is a part of --ratings, and none are named")
    store_folder = out.with_suffix(".scores") if scores is None else scores
    with ExitStack() as stack:
        files = [
            stack.enter_context(new_file(path, overwrite=overwrite))
            for path in (out, out.with_suffix(".json"), out.with_suffix(".md"))
        ]
        drawn = None if picture is None else stack.enter_context(new_file(picture, overwrite=overwrite))
        images = find_images(photographs, recursive=recursive, warn=warn)
        found = photograph_files(images, warn, first=first)
        rated = None if ratings is None else evaluation_image_set(ratings, split)
        opened = open_models(models, brisque=brisque)
        store = stack.enter_context(ScoreStore.opened(store_folder))
        with console.progress("trust") as report:
            measured = measure(opened, found, chosen, store, progress=report, warn=warn)
        result = {
            "format": FORMAT,
            "version": version("pocketiqa"),
            "date": date.today().isoformat(),
            **summarise(opened, measured, chosen),
            "ratings": None,
            "definitions": {name: one.meaning for name, one in DEFINITIONS.items()},
        }
        if rated is not None:
            with console.progress("ratings") as report:
                result["ratings"] = with_ratings(opened, rated, store, intervals=intervals, progress=report)
        files[0].write(page(result, measured.photographs, _files_of(rated)).encode())
        files[1].write(checksummed_json(result))
        files[2].write(markdown(result).encode())
        if drawn is not None:
            drawn.write(draw(result, measured.photographs))
    return result


def _files_of(rated: ImageSet | None) -> dict[str, str]:
    return {} if rated is None else {image.sample.id: image.file for image in rated.images}


def _checked(out: Path, tests: Sequence[str] | None, first: int | None, photographs: Sequence[Path]) -> tuple[str, ...]:
    if out.suffix.lower() not in _ENDINGS:
        raise PocketiqaError(f"--out {out}: the page is HTML, name it {out.with_suffix('.html').name}")
    if not photographs:
        raise PocketiqaError(
            "name clean, sharp photographs to damage, or a folder of them, with --on; 24 or more give useful intervals"
        )
    unknown = [test for test in tests or () if test not in TESTS]
    if unknown:
        raise PocketiqaError(f"--test {unknown[0]}: there is no such test, choose {', '.join(TESTS)}")
    if first is not None and first < 1:
        raise PocketiqaError(f"--first {first}: at least 1 photograph is needed")
    return tuple(test for test in TESTS if not tests or test in tests)
