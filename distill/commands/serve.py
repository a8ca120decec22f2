"""``pocketiqa serve``, the command."""

from pathlib import Path
from typing import Annotated

import typer

from distill.commands.options import MaxPixels, NoType, app, complete_student
from distill.terminal import console
from pseudo_labels.defaults import MAX_PIXELS


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    allow_remote: Annotated[
        bool,
        typer.Option("--allow-remote", help="Listen where other machines can connect. No passwords, no encryption."),
    ] = False,
    root: Annotated[
        Path | None, typer.Option(help="Folder below which requests may name files.  [default: none, images are sent]")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="An exported .onnx student, or one by name.  [default: pocket-m]", autocompletion=complete_student
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Images scored at a time.", min=1)] = 1,
    queue: Annotated[int, typer.Option(help="Requests that may wait; further ones are answered with 503.", min=0)] = 16,
    max_bytes: Annotated[int, typer.Option(help="Largest image file of a request, in bytes.", min=1)] = 64 << 20,
    max_images: Annotated[int, typer.Option(help="Most images of a batch.", min=1)] = 100,
    max_pixels: MaxPixels = MAX_PIXELS,
    timeout: Annotated[
        float, typer.Option(help="Seconds for reading a body, and again for scoring an image.", min=0.1)
    ] = 30.0,
    no_type: NoType = False,
) -> None:
    """Answer requests for scores over HTTP on this machine, until Ctrl+C. Needs the extra serve."""
    from dataclasses import replace

    from pseudo_labels.errors import PocketiqaError, install_command
    from pseudo_labels.images import DEFAULT_LIMITS
    from students.runtime import Scorer

    try:
        from distill.serving.app import LOOPBACK_HOSTS, ServerSettings, create_app
        from distill.serving.server import check_host, listen, run
    except ModuleNotFoundError as error:
        raise PocketiqaError(f"serving needs {error.name}: {install_command('serve')}") from error
    if root is not None and not root.is_dir():
        raise PocketiqaError(f"--root {root} is no folder: name the folder that holds the images")
    check_host(host, allow_remote=allow_remote)
    limits = replace(DEFAULT_LIMITS, max_pixels=max_pixels)
    scorer = Scorer(model, limits=limits)
    settings = ServerSettings(
        root=root, workers=workers, queue=queue, max_bytes=max_bytes, max_images=max_images, seconds=timeout,
        limits=limits, hosts=None if allow_remote else LOOPBACK_HOSTS, types=not no_type,
    )  # fmt: skip
    with listen(host, port) as opened:
        run(
            create_app(scorer, settings),
            opened,
            lambda address: console.err.print(f"{scorer.contract.name} on {address}; Ctrl+C ends it", markup=False),
        )
