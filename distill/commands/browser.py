"""``pocketiqa web``: a page that scores photographs in the browser."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from distill.commands.options import app, complete_student
from distill.terminal import console


def _in_eight_bits() -> Callable[[Path, Path], object]:
    from pseudo_labels.errors import PocketiqaError, install_command

    try:
        from distill.stages.converting import W8, export_converted
    except ModuleNotFoundError as error:
        raise PocketiqaError(
            f"weights in 8 bits need {error.name}: {install_command('train')}, or add --float to send the student as "
            "it is, at 2 to 3 times the size"
        ) from error
    return lambda source, small: export_converted(str(source), W8, small)


@app.command()
def web(
    out: Annotated[Path, typer.Option("--out", help="Folder to write; any static server can serve it.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="An exported .onnx student, or one by name.  [default: pocket-m]",
            autocompletion=complete_student,
        ),
    ] = None,
    as_it_is: Annotated[
        bool,
        typer.Option("--float", help="Send a float student as it is, not in 8 bits: 2 to 3 times as large."),
    ] = False,
    runtime: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="onnxruntime-web: the .tgz of `npm pack`, or its folder.  [default: node_modules here]",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier page.")] = False,
) -> None:
    """Write a page that scores photographs in the browser, offline after the first visit; nothing is sent anywhere."""
    from distill.browser.runtime_files import read_runtime
    from distill.browser.site import is_float, write_site
    from students.shipped import model_path

    files = read_runtime(runtime)
    path = model_path(model)
    smaller = _in_eight_bits() if is_float(path) and not as_it_is else None
    site = write_site(out, path, files, smaller=smaller, overwrite=overwrite)
    console.out.print(
        f"{site.folder}: a page with {site.student}, {site.first_bytes / 1e6:.1f} MB on the first visit"
        f"{'' if site.is_new else ' (was there already)'}\n"
        f"  try it: python -m http.server --bind 127.0.0.1 --directory {site.folder} 8000, then http://127.0.0.1:8000",
        markup=False,
    )
    if site.close_by_default:
        console.warn(
            f"{site.student} looks at large photographs twice by default, a page looks once: its scores are those of "
            "pocketiqa score --look quick"
        )
