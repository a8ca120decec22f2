"""``pocketiqa fit-types``: a head that says what is wrong with a photograph."""

from pathlib import Path
from typing import Annotated

import typer

from distill.commands.options import OverwriteFile, Recursive, Student, app
from distill.terminal import console


@app.command("fit-types")
def fit_types(
    photographs: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Clean photographs, and folders of them, of which copies are damaged."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The .onnx file to write.")],
    model: Student = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="Folder for what the student saw, so that no picture is shown twice; may be removed afterwards.  "
            "[default: OUT.features beside OUT.onnx]"
        ),
    ] = None,
    confusion: Annotated[
        bool, typer.Option("--confusion", help="Also print which types are taken for which, as Markdown.")
    ] = False,
    recursive: Recursive = False,
    overwrite: OverwriteFile = False,
) -> None:
    """Give an exported student a head that says what is wrong with a photograph, and how strongly, for score.

    Scores stay as they are, to the bit. Each photograph is shown 127 times: itself, parts of it, and 5 levels of 24
    distortions.
    """
    from distill.stages.type_fitting import confusion_table, summary_lines
    from distill.stages.type_fitting import fit_types as fit
    from students.paths import find_images

    images = find_images(photographs, recursive=recursive, warn=console.warn)
    with console.progress("fit-types") as report:
        fitted = fit(model, images, out, features=features, overwrite=overwrite, progress=report, warn=console.warn)
    for line in summary_lines(fitted.head.fitted):
        console.out.print(line, markup=False)
    if confusion:
        console.out.print(confusion_table(fitted.head.fitted), markup=False)
    console.out.print(f"{out}: model {fitted.digest[:12]}", markup=False)
