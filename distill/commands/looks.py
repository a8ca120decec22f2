"""``pocketiqa fit-look``: a second look for large photographs."""

from pathlib import Path
from typing import Annotated

import typer

from distill.commands.options import OverwriteFile, Recursive, app, complete_student
from distill.terminal import console
from pseudo_labels.defaults import MIN_FIT_PIXELS
from students.look import SecondLook


@app.command("fit-look")
def fit_look(
    photographs: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Clean, sharp photographs of 2.5 megapixels and more, and folders of them; others than it will be "
            "measured on.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The .onnx file to write.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="An exported .onnx student, or pocket-m, -s or -l.  [default: pocket-m]",
            autocompletion=complete_student,
        ),
    ] = None,
    recursive: Recursive = False,
    texture: Annotated[int, typer.Option(help="Crops where there is most texture.")] = SecondLook.texture,
    centre: Annotated[int, typer.Option(help="1 for a crop at the centre, 0 for none.")] = SecondLook.centre,
    spread: Annotated[int, typer.Option(help="Crops spread evenly.")] = SecondLook.spread,
    min_pixels: Annotated[
        int, typer.Option(help="Leave out photographs with fewer pixels than this.")
    ] = MIN_FIT_PIXELS,
    default: Annotated[
        bool, typer.Option("--default", help="The file looks closely unless it is told otherwise (--look quick).")
    ] = False,
    overwrite: OverwriteFile = False,
) -> None:
    """Give an exported student a second look at large photographs: crops, joined by a head that is fitted here.

    The network stays as it is, and so do scores without the second look. Each photograph takes about 15 seconds.
    """
    from distill.stages.second_look import draft_look
    from distill.stages.second_look import fit_look as fit
    from distill.stress.large_reference import FAST_METRICS, reference_of
    from students.paths import find_images

    images = find_images(photographs, recursive=recursive, warn=console.warn)
    look = draft_look(model, texture=texture, centre=centre, spread=spread, default=default)
    with console.progress("fit-look") as report:
        fitted = fit(
            model,
            images,
            out,
            reference_of(FAST_METRICS),
            look=look,
            min_pixels=min_pixels,
            overwrite=overwrite,
            progress=report,
            warn=console.warn,
        )
    console.out.print(
        f"{out}: of the pairs that a display shows differently, {fitted.ordered_close:.3f} are ordered rightly closely "
        f"and {fitted.ordered_quick:.3f} quickly, on the {fitted.photographs} photographs of the fit themselves; "
        "measure it on others with pocketiqa stress --large",
        markup=False,
    )
