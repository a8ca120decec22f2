"""``pocketiqa export`` and ``pocketiqa formats``: students as files for other places, and what each is worth."""

from pathlib import Path
from typing import Annotated

import typer

from distill.commands.options import OverwriteFile, app, complete_benchmark, complete_format, complete_student
from distill.terminal import console

FormatImages = Annotated[
    list[Path] | None, typer.Option("--images", help="Real images to compare scores on.  [default: bundled]")
]


@app.command()
def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT|MODEL",
            help="A training folder, its student folder, or DP-IQA's published student (.pth, .safetensors); for other "
            "formats than onnx also an exported .onnx student, or pocket-m, -s or -l.",
            autocompletion=complete_student,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="The .onnx file to write; a folder for formats other than onnx. Or an address such as s3://bucket/name.",
        ),
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            help="onnx, onnx-int8, onnx-w8, openvino, ncnn, coreml, executorch or litert.",
            autocompletion=complete_format,
        ),
    ] = "onnx",
    images: FormatImages = None,
    half: Annotated[
        bool,
        typer.Option(
            "--half", help="Store weights in float16: half the file; computed in float32 as ever (coreml: in float16)."
        ),
    ] = False,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="PHOTOS",
            help="onnx-int8: photographs that show the ranges of values: a folder, or NAME:FOLDER of a benchmark (its "
            "train part).  [default: bundled]",
            autocompletion=complete_benchmark,
        ),
    ] = None,
    rated: Annotated[
        str | None,
        typer.Option(
            metavar="BENCHMARK",
            help="8 bits: NAME:FOLDER or csv:FILE; refused if the SRCC with its ratings (train part) falls by over "
            "0.003.",
            autocompletion=complete_benchmark,
        ),
    ] = None,
    environment: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="litert: environment of its converter, which needs an older PyTorch; made there if it is missing "
            "(about 7 GB).  [default: ~/.cache/pocketiqa/environments/litert, if it is there]",
        ),
    ] = None,
    card: Annotated[bool, typer.Option("--card", help="8 bits: also write a model card beside the file.")] = False,
    overwrite: OverwriteFile = False,
) -> None:
    """Export a student with its contract inside; refused unless it scores as the original does.

    In 8 bits: SRCC to the original at least 0.998 and a mean difference of at most 0.005, on photographs of many sizes.
    Formats other than onnx are folders with contract.json beside the model; every score is that of the ONNX file to
    1e-4, in float16 to 3e-3.
    """
    from distill.stages.converting import (
        FLOAT_FORMAT,
        check_options,
        export_converted,
        export_package,
        prepare_environment,
    )
    from distill.stages.export import export_checkpoint
    from distill.terminal.summaries import conversion_summary, export_summary, package_summary
    from students.formats.registry import format_named

    check_options(source, kind, half=half, calibrate=calibrate, rated=rated, card=card, environment=environment)
    if kind == FLOAT_FORMAT:
        report = export_checkpoint(Path(source), out, images=images or [], half=half, overwrite=overwrite)
        console.out.print(export_summary(report), markup=False)
        return
    if format_named(kind).is_folder:
        prepare_environment(kind, environment, lambda text: console.err.print(text, markup=False))
        package = export_package(
            source, kind, out, images=images or [], half=half, environment=environment, overwrite=overwrite
        )
        console.out.print(package_summary(package), markup=False)
        return
    with console.progress("calibrate and compare") as progress:
        converted = export_converted(
            source,
            kind,
            out,
            calibrate=calibrate,
            rated=rated,
            images=images or [],
            card=card,
            overwrite=overwrite,
            progress=progress,
        )
    console.out.print(conversion_summary(converted), markup=False)


@app.command()
def formats(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="pocket-m, -s or -l, an exported .onnx student, or a student or training folder.",
            autocompletion=complete_student,
        ),
    ],
    images: FormatImages = None,
    calibrate: Annotated[
        str | None,
        typer.Option(metavar="PHOTOS", help="As for pocketiqa export.", autocompletion=complete_benchmark),
    ] = None,
    page: Annotated[Path | None, typer.Option("--page", help="Also write the tables as a page in Markdown.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file that --page names.")] = False,
) -> None:
    """Make every form of a student that this machine can, and show size, agreement and processor time of each."""
    from distill.stages.formats import measure_formats
    from distill.terminal.format_tables import format_notes, format_page, format_table
    from pseudo_labels.outputs import new_file

    results = []
    with new_file(page, overwrite=overwrite) as file:
        for model in models:
            with console.progress(f"formats of {model}") as progress:
                results.append(measure_formats(model, images=images or [], calibrate=calibrate, progress=progress))
        if page is not None:
            file.write(format_page(results, f"pocketiqa formats {' '.join(models)} --page {page.name}").encode())
    for measured in results:
        console.out.print(format_table(measured))
        for note in format_notes(measured):
            console.out.print(note, markup=False)
