"""Commands that compare: images with images, a model with its limits, many models on one benchmark."""

from pathlib import Path
from typing import Annotated

import typer

from distill.commands.options import (
    OverwriteFile,
    Recursive,
    Settings,
    Split,
    app,
    complete_comparison,
    complete_device,
    complete_student,
)
from distill.terminal import console
from pseudo_labels.defaults import DECODE_WORKERS, LABEL_THREADS, NEAR_DUPLICATE_COSINE, SEED, VALIDATION_FRACTION


@app.command()
def overlap(
    trained: Annotated[str, typer.Argument(help="Training images: folder of a pool, or NAME:FOLDER (its train part).")],
    tested: Annotated[str, typer.Argument(help="Test images: NAME:FOLDER, or csv:FILE.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; features are cached there.")] = Path("overlap"),
    by: Annotated[
        str,
        typer.Option(
            help="Model of the features: content (the embedded teacher's backbone), layout (edges, no model), an "
            ".onnx file, a student folder, a teacher, or backbone (any timm model, with --option name=... --option "
            "weights=FILE)."
        ),
    ] = "content",
    feature: Annotated[str | None, typer.Option(help="Name of the feature.  [default: the first that it has]")] = None,
    above: Annotated[
        float, typer.Option(help="Cosine above which two images are near duplicates.")
    ] = NEAR_DUPLICATE_COSINE,
    split: Annotated[
        Split | None,
        typer.Option(help="Part of TESTED.  [default: test where there is one]"),
    ] = None,
    validation: Annotated[
        float, typer.Option(help="Fraction of split.csv that is its validation part.")
    ] = VALIDATION_FRACTION,
    seed: Annotated[int, typer.Option(help="Seed of that split, and of intervals.")] = SEED,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Option of a teacher or backbone; repeatable."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(help="For teachers: auto (a GPU if there is one), cpu, cuda, ...", autocompletion=complete_device),
    ] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads of a teacher, backbone or student folder.")] = LABEL_THREADS,
    workers: Annotated[int, typer.Option(help="Images decoded ahead at a time.")] = DECODE_WORKERS,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make it anew; features of the same images and model are used again.")
    ] = False,
) -> None:
    """Find test images that show what was trained on: other pictures of one scene, which no hash sees.

    Writes overlap.html (the closest pairs), overlap.json (for `evaluate --near`), groups.csv and split.csv.
    """
    from distill.leakage.extractors import open_extractor
    from distill.leakage.find import find_near_duplicates
    from distill.leakage.image_sets import evaluation_image_set, training_image_set
    from distill.leakage.neighbours import check_above
    from distill.leakage.page import PAGE
    from distill.leakage.summary import left_out_lines, overlap_lines, overlap_tables
    from distill.recipe.load import parse_settings

    check_above(above)
    image_sets = training_image_set(trained), evaluation_image_set(tested, split)
    extractor = open_extractor(by, options=parse_settings(options or []), feature=feature, device=device)
    with console.progress(f"overlap ({extractor.name})") as report:
        record = find_near_duplicates(
            *image_sets,
            extractor,
            out,
            above=above,
            validation=validation,
            seed=seed,
            workers=workers,
            threads=threads,
            overwrite=overwrite,
            progress=report,
        )
    for table in overlap_tables(record):
        console.out.print(table)
    for line in [*overlap_lines(record), f"page: {out / PAGE}"]:
        console.out.print(line, markup=False)
    for line in left_out_lines(record):
        console.warn(line)


@app.command()
def stress(
    photographs: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Clean, sharp photographs, and folders of them.")
    ],
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="An exported .onnx student, or pocket-m, -s or -l; repeatable.  [default: pocket-m]",
            autocompletion=complete_student,
        ),
    ] = None,
    recursive: Recursive = False,
    short: Annotated[
        bool, typer.Option("--short", help="Four distortions of 31, no table of all: a quarter of the time.")
    ] = False,
    large: Annotated[
        bool,
        typer.Option(
            "--large",
            help="Photographs of 8 megapixels and more, damaged at their own size: does the score follow what a "
            "display of 2 megapixels shows? In each look that the model's file has; about a minute each.",
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Also write figures and worst cases as JSON.")] = None,
    overwrite: OverwriteFile = False,
) -> None:
    """Measure how a model behaves: distortions, sizes, formats, odd images, map.

    Exit status 1 if a limit is missed by more than the choice of photographs explains; five are needed for that. The
    table of all distortions says pass or miss for itself: it has no influence on the exit status.
    """
    from distill.scoring.inputs import empty_folders
    from distill.stress import stress as measure
    from distill.stress.tables import level_rows, stress_table
    from pseudo_labels.files import checksummed_json
    from pseudo_labels.outputs import new_file
    from students.paths import find_images

    with new_file(out, overwrite=overwrite) as file:
        images = find_images(photographs, recursive=recursive, warn=console.warn)
        for words in empty_folders(photographs, images, recursive=recursive):
            console.warn(words)
        if large:
            from distill.stress.large import stress_large
            from distill.stress.large_reference import reference_of
            from distill.stress.large_table import large_table

            with console.progress("stress --large") as report:
                sized = stress_large(models or [None], images, reference_of(), progress=report, warn=console.warn)
            file.write(checksummed_json({"large": [result.as_dict() for result in sized]}))
            for result in sized:
                console.out.print(large_table(result))
            if any(result.failed for result in sized):
                raise typer.Exit(1)
            return
        with console.progress("stress") as report:
            results = measure(models or [None], images, short=short, progress=report, warn=console.warn)
        file.write(checksummed_json({"models": [result.as_dict() for result in results]}))
    for result in results:
        console.out.print(stress_table(result))
        if not short:
            console.out.print(level_rows(result))
    if any(result.failed for result in results):
        raise typer.Exit(1)


@app.command()
def compare(
    comparison: Annotated[
        str,
        typer.Argument(
            help="A YAML file, or the name of a comparison that comes with pocketiqa.",
            autocompletion=complete_comparison,
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write.  [default: the file's]")] = None,
    settings: Settings = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Evaluate models again that have changed.")] = False,
) -> None:
    """Many models on one benchmark: a table with intervals and milliseconds, and two plots."""
    from distill.comparison.compare import compare as walk

    walk(comparison, out=out, settings=settings, overwrite=overwrite)
