"""Commands that make and evaluate models."""

from pathlib import Path
from typing import Annotated

import typer

from distill.commands.options import (
    MaxPixels,
    Overwrite,
    OverwriteFile,
    Settings,
    Split,
    app,
    complete_benchmark,
    complete_device,
    complete_model,
    complete_recipe,
    complete_study,
)
from distill.terminal import console
from pseudo_labels.defaults import MAX_PIXELS


@app.command("fit-teacher")
def fit_teacher(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A YAML file, or the name of a recipe with a section 'fit'.", autocompletion=complete_recipe
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write.  [default: the recipe's]")] = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Fit a teacher to ratings of people. If it is killed, the same command resumes."""
    from distill.stages.fitting import fit_recipe

    fit_recipe(recipe, out=out, settings=settings or [], overwrite=overwrite)


@app.command()
def distill(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A YAML file, or the name of a recipe that comes with pocketiqa.", autocompletion=complete_recipe
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write.  [default: the recipe's]")] = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Train the student of a recipe from labels that exist. If it is killed, the same command resumes."""
    from distill.stages.student import distill_recipe

    distill_recipe(recipe, out=out, settings=settings or [], overwrite=overwrite)


@app.command()
def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help=".onnx file, pocket-m, -s or -l, student folder, label store, fitted teacher, or teacher name.",
            autocompletion=complete_model,
        ),
    ],
    on: Annotated[
        str,
        typer.Option(
            "--on",
            metavar="BENCHMARK",
            help="NAME:FOLDER such as koniq10k:/data/koniq, or csv:FILE.",
            autocompletion=complete_benchmark,
        ),
    ],
    split: Annotated[
        Split | None, typer.Option(help="Part of the benchmark.  [default: test where there is one, else all]")
    ] = None,
    trained_on: Annotated[
        list[Path] | None,
        typer.Option(
            "--trained-on",
            help="Pool the student learned from; its images in the benchmark are counted and left out; repeatable.",
        ),
    ] = None,
    near: Annotated[
        Path | None,
        typer.Option(help="Folder that pocketiqa overlap wrote: each metric also without its near duplicates."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(help="For teachers: auto (a GPU if there is one), cpu, cuda, ...", autocompletion=complete_device),
    ] = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the numbers as JSON.")] = None,
    overwrite: OverwriteFile = False,
) -> None:
    """Evaluate models by ratings of people: SRCC, PLCC, KRCC, RMSE, each with n and an interval.

    Exit status 1 if a model could not score a single image.
    """
    from distill.stages.benchmark import evaluate_on
    from distill.terminal.summaries import coverage_lines, evaluation_tables
    from pseudo_labels.files import checksummed_json
    from pseudo_labels.images import DecodeLimits
    from pseudo_labels.outputs import new_file

    with new_file(out, overwrite=overwrite) as file:
        with console.progress("evaluate") as report:
            result = evaluate_on(
                models,
                on,
                split=split,
                trained_on=trained_on or [],
                near=near,
                device=device,
                limits=DecodeLimits(max_pixels=max_pixels),
                progress=report,
            )
        file.write(checksummed_json(result))
    for table in evaluation_tables(result):
        console.out.print(table)
    for line in coverage_lines(result):
        console.warn(line)
    if any(model["coverage"]["scored"] == 0 for model in result["models"]):
        raise typer.Exit(1)


@app.command()
def run(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A YAML file, or the name of a recipe that comes with pocketiqa.", autocompletion=complete_recipe
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write.  [default: the recipe's]")] = None,
    settings: Settings = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Redo the stages whose settings or inputs changed, and only these.")
    ] = False,
) -> None:
    """Walk all stages of a recipe, from photographs to report; unchanged ones are skipped."""
    from distill.stages.pipeline import run_recipe

    run_recipe(recipe, out=out, settings=settings or [], overwrite=overwrite)


@app.command()
def study(
    study: Annotated[
        str,
        typer.Argument(
            help="A YAML file, or the name of a study that comes with pocketiqa.", autocompletion=complete_study
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write.  [default: the study's]")] = None,
    settings: Settings = None,
    only: Annotated[
        str | None, typer.Option("--only", metavar="RUN", help="One run, or a pattern such as 'pseudo-*'.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Redo the stages whose settings or inputs changed, and only these.")
    ] = False,
) -> None:
    """Walk many runs of one recipe and compare them: label efficiency, ablations. Exit status 1 if any failed."""
    from distill.study import run_study

    run_study(study, out=out, settings=settings or [], only=only, overwrite=overwrite)


@app.command()
def doctor() -> None:
    """Show versions, devices, and which teachers can run here; of the others, what they miss."""
    from distill.commands.doctor import doctor_tables

    for table in doctor_tables():
        console.out.print(table)
