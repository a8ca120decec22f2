"""The command that compares what models' scores are worth."""

from pathlib import Path
from typing import Annotated

import typer

from distill.commands.options import Recursive, Split, app, complete_model
from distill.terminal import console


@app.command()
def trust(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Exported .onnx students, pocket-m, -s or -l, student folders, teachers, or functions of your own "
            "as module:function.",
            autocompletion=complete_model,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Page to write (.html); .json and .md are written beside it.")],
    photographs: Annotated[
        list[Path] | None,
        typer.Option("--on", help="Clean, sharp photographs to damage, or a folder of them; repeatable. Needed."),
    ] = None,
    recursive: Recursive = False,
    first: Annotated[int | None, typer.Option(help="Only so many photographs, the first.  [default: all]")] = None,
    tests: Annotated[
        list[str] | None,
        typer.Option(
            "--test",
            help="waterloo (D-, L- and P-test), catalogue (31 distortions), views (crops and sizes) or attack; "
            "repeatable.  [default: all]",
        ),
    ] = None,
    brisque: Annotated[
        Path | None,
        typer.Option(
            help="Folder with brisque_model_live.yml and brisque_range_live.yml: compare OpenCV's BRISQUE too."
        ),
    ] = None,
    ratings: Annotated[
        str | None, typer.Option(help="Rated photographs, NAME:FOLDER or csv:FILE as for evaluate --on.")
    ] = None,
    split: Annotated[Split | None, typer.Option(help="Part of --ratings.  [default: test where there is one]")] = None,
    intervals: Annotated[
        list[Path] | None,
        typer.Option(
            help="Record that `intervals` wrote of one of the models; repeatable.  "
            "[default: MODEL.intervals.json beside MODEL.onnx]"
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="Folder of stored scores, none of which is made twice.  [default: beside --out]"),
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Also draw a picture of the result (.png).")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the page and what is beside it; stored scores are used again.")
    ] = False,
) -> None:
    """Compare what models' scores are worth, without people: one page, its JSON and Markdown. Needs the extra `train`.

    The Waterloo database's D-, L- and P-test, clean against damaged photographs, crops and sizes, attacks, pairs at
    which models disagree; with --ratings also SRCC by subset and content, and whether intervals hold. A killed run
    goes on where it was.
    """
    from distill.trust.run import trust as compare
    from distill.trust.tables import overview

    result = compare(
        models,
        photographs or [],
        out,
        tests=tests,
        first=first,
        recursive=recursive,
        brisque=brisque,
        ratings=ratings,
        split=split,
        intervals=intervals or (),
        scores=scores,
        picture=picture,
        overwrite=overwrite,
    )
    console.out.print(overview(result))
    console.out.print(f"page: {out}", markup=False, highlight=False)
