"""The command that shows how an exported model behaves."""

from pathlib import Path
from typing import Annotated

import typer

from distill import console
from distill.commands.options import OverwriteFile, app


@app.command()
def stress(
    photographs: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Clean, sharp photographs, and folders of them.")
    ],
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="An exported .onnx student, or pocket-m or pocket-s; repeatable.  [default: pocket-m]",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also write figures and worst cases as JSON.")] = None,
    overwrite: OverwriteFile = False,
) -> None:
    """Measure how a model behaves: damage, sizes, formats, odd images, its map. Exit status 1 if a limit is missed."""
    from distill.stress import stress as measure
    from distill.stress.table import stress_table
    from pseudo_labels.files import canonical_json, write_atomic
    from pseudo_labels.outputs import refuse_existing
    from students.paths import find_images

    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    with console.progress("stress") as report:
        results = measure(models or [None], find_images(photographs), progress=report)
    for result in results:
        console.out.print(stress_table(result))
    if out is not None:
        write_atomic(out, canonical_json({"models": [result.as_dict() for result in results]}))
    if not all(result.passed for result in results):
        raise typer.Exit(1)
