"""Commands that make regions of a pool, and label them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill.commands.options import (
    ClaimOpen,
    Cluster,
    DecodeWorkers,
    Device,
    GpusPerTask,
    MaxPixels,
    OutPlace,
    Overwrite,
    RayAddress,
    Retries,
    Shard,
    Sharing,
    TeacherThreads,
    app,
)
from distill.terminal import console
from pseudo_labels.defaults import (
    DECODE_WORKERS,
    LABEL_BATCH_SIZE,
    LABEL_THREADS,
    MAX_FAILED_FRACTION,
    MAX_PIXELS,
    MAX_REGION_AREA,
    MAX_REGION_OVERLAP,
    MAX_REGIONS,
    MIN_REGION_AREA,
)

if TYPE_CHECKING:
    from pseudo_labels.regions.sources import RegionSource


_LARGE_BYTES = 200_000_000


@app.command()
def regions(
    pool: Annotated[Path, typer.Argument(help="Folder of a pool.")],
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="What --by reads: a file or a folder, see there.")
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="grid[:4x3], slic[:50], sam CHECKPOINT, boxes FILE (.csv, .json, .jsonl, .parquet with boxes or "
            "masks), masks FOLDER, bsds FOLDER (ground truth of BSDS500), seagull FOLDER (SEAGULL-100w)."
        ),
    ] = "grid",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder to write, or an address such as s3://bucket/name; the same command again resumes it."
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="Option of the source, such as 'names={quality: mos}', variant=vit_l or prompts=points; repeatable.",
        ),
    ] = None,
    min_area: Annotated[float, typer.Option(help="Drop regions below this fraction of the image.")] = MIN_REGION_AREA,
    max_area: Annotated[float, typer.Option(help="Drop regions above this fraction of the image.")] = MAX_REGION_AREA,
    max_overlap: Annotated[
        float, typer.Option(help="Drop regions that overlap an earlier one of the image by more (IoU).")
    ] = MAX_REGION_OVERLAP,
    max_regions: Annotated[int, typer.Option(help="Most regions of an image.")] = MAX_REGIONS,
    shards: Annotated[
        int | None, typer.Option(help="Parts of the manifest, each committed whole.  [default: by size]")
    ] = None,
    preview: Annotated[int, typer.Option(help="Images drawn on OUT/preview.png; 0 draws none.")] = 12,
    workers: Annotated[int, typer.Option(help="Images decoded at a time.")] = DECODE_WORKERS,
    overwrite: Overwrite = False,
) -> None:
    """Make regions of the images of a pool: masks with area, box and source, in shards that resume."""
    from distill.recipe.load import parse_settings
    from distill.terminal.summaries import regions_summary
    from pseudo_labels.pool import Pool
    from pseudo_labels.regions.make import Limits, build_regions

    if out is None:
        raise typer.BadParameter("name the folder to write with --out")
    with console.progress(f"regions ({by.partition(':')[0]})") as report:
        made = build_regions(
            Pool.open(pool),
            source_of(by, file, parse_settings(options or [])),
            out,
            limits=Limits(min_area, max_area, max_overlap, max_regions),
            shards=shards,
            workers=workers,
            preview=preview,
            overwrite=overwrite,
            progress=report,
            warn=console.warn,
        )
    console.out.print(regions_summary(made), markup=False)


def source_of(by: str, file: Path | None, options: dict[str, Any]) -> "RegionSource":
    """The source that ``--by`` names; SAM's brings torch along."""
    from pseudo_labels.errors import PocketiqaError
    from pseudo_labels.regions.readers import called, source_named, table_files

    name, _, value = by.partition(":")
    if name != "sam":
        source = source_named(by, file, options)
        size = sum(path.stat().st_size for path in table_files(source))
        if size > _LARGE_BYTES:
            # Read before the first image, where no bar moves yet.
            console.warn(f"the regions are read first: {size / 1e9:.1f} GB, at half a minute to three minutes a GB")
        return source
    if value and file is not None:
        raise PocketiqaError(f"two checkpoints, {value} and {file}: name one")
    from teachers.sam_iqa.masks import SamSource

    return called(SamSource, name, options, value or file)


def source_to_score(text: str, options: list[str]) -> "RegionSource":
    """The source that ``pocketiqa score --regions`` names.

    Args:
        text: ``grid:4x3``, ``slic:50``, ``sam:FILE``, ``bsds:FOLDER``, ...; or a file of boxes or masks, or a folder of
            masks, by its path alone.
        options: words KEY=VALUE for the source.

    Raises:
        PocketiqaError: neither; or an unknown option.
    """
    from pseudo_labels.errors import PocketiqaError
    from pseudo_labels.regions.sources import SOURCES

    values: dict[str, Any] = {}
    if options:
        # YAML, which the base install does not have, reads the values.
        from distill.recipe.load import parse_settings

        values = parse_settings(options)
    name, colon, _ = text.partition(":")
    # A folder may be named as a source is: those that read a file are never named alone.
    if name not in SOURCES or not (colon or name in ("grid", "slic")):
        path = Path(text).expanduser()
        if not path.exists():
            raise PocketiqaError(
                f"--regions {text}: no such file or folder, and no source of regions: name a file of boxes or masks, a "
                "folder of masks, or grid:4x3, slic:50, sam:CHECKPOINT"
            )
        name, text = ("masks", f"masks:{text}") if path.is_dir() else ("boxes", f"boxes:{text}")
    if name == "boxes":
        # A plain list of boxes is for every image.
        values = {"unnamed": True, **values}
    return source_of(text, None, values)


@app.command("label-regions")
def label_regions(
    pool: Annotated[Path, typer.Argument(help="Folder of a pool: that of the regions, or of distorted copies of it.")],
    regions: Annotated[Path, typer.Option(help="Folder of the regions, made by pocketiqa regions.")],
    teacher: Annotated[
        str,
        typer.Option(
            help="reference (compares with clean images), crop:TEACHER (any teacher, on crops), seagull or the folder "
            "of a fitted one, annotated (what the source of the regions states), or your own as module:function."
        ),
    ],
    out: OutPlace,
    shards: Annotated[
        int | None, typer.Option(help="Parts of the store, each committed whole.  [default: by size]")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Option of the teacher; repeatable."),
    ] = None,
    patch: Annotated[
        str,
        typer.Option(
            help="What is compared of a region: box (all in the box), masked (clean pixels outside the region), or "
            "auto (masked where one region was distorted)."
        ),
    ] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Crops in one forward pass, noted in the store.  "
            f"[default: {LABEL_BATCH_SIZE}, or that of the store in --out]"
        ),
    ] = None,
    device: Device = "auto",
    threads: TeacherThreads = LABEL_THREADS,
    decode_workers: DecodeWorkers = DECODE_WORKERS,
    max_pixels: MaxPixels = MAX_PIXELS,
    max_failed_fraction: Annotated[
        float, typer.Option(help="Leave the store unfinished above this fraction of regions without a label.")
    ] = MAX_FAILED_FRACTION,
    shard: Shard = None,
    claim: ClaimOpen = False,
    engine: Cluster = None,
    ray_address: RayAddress = None,
    gpus_per_task: GpusPerTask = None,
    retries: Retries = None,
    overwrite: Overwrite = False,
) -> None:
    """Label regions: quality, importance, type and severity of each. The same command resumes where it stopped."""
    from distill.recipe.load import parse_settings
    from distill.terminal.summaries import region_labels_summary, unfinished_line
    from pseudo_labels.images import DecodeLimits
    from teachers.regions import label_regions as label

    sharing = Sharing(shard, claim, engine, ray_address=ray_address, gpus_per_task=gpus_per_task, retries=retries)
    visible = console.is_main_process()
    with console.progress(f"label-regions ({teacher})", visible=visible) as report:
        store = label(
            pool,
            regions,
            teacher,
            out,
            shards=shards,
            options=parse_settings(options or []),
            patch=patch,
            batch_size=batch_size,
            device=device,
            threads=threads,
            decode_workers=decode_workers,
            limits=DecodeLimits(max_pixels=max_pixels),
            max_failed_fraction=max_failed_fraction,
            overwrite=overwrite,
            share=sharing.chosen(),
            progress=report,
            warn=console.warn,
        )
    if visible:
        console.out.print(region_labels_summary(store) if store.is_complete else unfinished_line(store), markup=False)
