"""The command that finds what train and test parts share."""

from pathlib import Path
from typing import Annotated

import typer

from distill import console
from distill.commands.options import app
from distill.overlap import NEAR


@app.command()
def overlap(
    trained: Annotated[
        str, typer.Argument(help="What was learned from: folder of a pool, or NAME:FOLDER (its train part).")
    ],
    tested: Annotated[str, typer.Argument(help="What models are judged by: NAME:FOLDER, or csv:FILE.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; features are kept there.")] = Path("overlap"),
    by: Annotated[
        str,
        typer.Option(
            help="Whose features tell: content (the embedded teacher's backbone), layout (edges, no model), an .onnx "
            "file, a student folder, a teacher, or backbone (any timm model, with --option name=... --option "
            "weights=FILE)."
        ),
    ] = "content",
    feature: Annotated[
        str | None, typer.Option(help="Which of its features.  [default: the first that it has]")
    ] = None,
    above: Annotated[float, typer.Option(help="Cosine above which two images are near.")] = NEAR,
    split: Annotated[
        str | None, typer.Option(help="Of TESTED: test, validation, train or all.  [default: test where there is one]")
    ] = None,
    validation: Annotated[float, typer.Option(help="Share of split.csv that is its validation part.")] = 0.15,
    seed: Annotated[int, typer.Option(help="Of that split, and of intervals.")] = 0,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Option of a teacher or backbone; repeatable."),
    ] = None,
    device: Annotated[str, typer.Option(help="For teachers: auto (a GPU if there is one), cpu, cuda, ...")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads of a teacher, backbone or student folder.")] = 1,
    workers: Annotated[int, typer.Option(help="Images decoded ahead at a time.")] = 2,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make it anew; features of the same images and model are kept.")
    ] = False,
) -> None:
    """Find test images that show what was trained on: other pictures of one scene, which no hash sees.

    Writes overlap.html (the closest pairs), overlap.json (for `evaluate --near`), groups.csv and split.csv.
    """
    from distill.evaluation.neighbours import check_above
    from distill.overlap.find import find_near
    from distill.overlap.opening import open_describer
    from distill.overlap.page import PAGE
    from distill.overlap.sides import side_of_testing, side_of_training
    from distill.overlap.words import left_out_lines, overlap_lines, overlap_tables
    from distill.recipe_values import parse_settings

    check_above(above)
    sides = side_of_training(trained), side_of_testing(tested, split)
    describer = open_describer(by, options=parse_settings(options or []), feature=feature, device=device)
    with console.progress(f"overlap ({describer.name})") as report:
        record = find_near(
            *sides,
            describer,
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
