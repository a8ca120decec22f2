"""The last stage before the report: the CPU runtime scores held-out originals and visibly distorted copies."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from distill.recipe.stages import ScoreSection
from distill.stages.context import Run, Stage, make_once
from distill.stages.evaluation import held_out
from distill.stages.student import label_sources
from pseudo_labels import addresses
from pseudo_labels.distort import distort
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import canonical_json, read_json, sha256_file
from pseudo_labels.parallel import Progress
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef, Status
from students.runtime import Scorer

KIND = "demonstration"
SCORES = "scores.json"


@dataclass(frozen=True)
class Photograph:
    """One original with the scores of its copies.

    Attributes:
        name: name of the file, for people.
        files: name of each version to its PNG; ``original`` first.
        scores: name of each version to its score in [0, 1].
    """

    name: str
    files: dict[str, str]
    scores: dict[str, float]


def demonstration_stages(run: Run) -> list[Stage]:
    """One stage, if the recipe asks for it."""
    if run.recipe.score is None:
        return []
    return [Stage("score", run.demonstration, partial(_demonstrate, run, run.recipe.score))]


def _demonstrate(run: Run, section: ScoreSection, overwrite: bool, report: Progress) -> str:
    spec = {"model": sha256_file(run.model), "settings": section.stored(), "seed": run.recipe.seed}
    make_once(run.demonstration, KIND, spec, partial(_make, run, section, report), overwrite=overwrite)
    photographs = read_demonstration(run)
    pairs = [(p.scores["original"], score) for p in photographs for n, score in p.scores.items() if n != "original"]
    lower = sum(original > distorted for original, distorted in pairs)
    return f"{lower} of {len(pairs)} distorted copies score below their original"


def _make(run: Run, section: ScoreSection, report: Progress, folder: Path) -> dict[str, Any]:
    out = held_out(run)
    # Several photographs of one scene would show the same thing twice.
    originals = list({ref.group: ref for ref in map(out.pool.by_id, out.ids) if not ref.ref_id}.values())
    files: list[tuple[ImageRef, str, Path]] = []
    for ref in originals[: section.images]:
        rgb = out.pool.load(ref)
        versions = {"original": rgb}
        for name in section.distortions:
            versions[name] = distort(rgb, name, section.level, seed=run.recipe.seed, image_id=ref.id)
        for name, pixels in versions.items():
            path = folder / f"{ref.id}-{name}.png"
            Image.fromarray(pixels).save(path, compress_level=1)
            files.append((ref, name, path))
    if not files:
        raise PocketiqaError("no held-out original to demonstrate with: raise distill.split.test, or drop 'score'")
    rows = Scorer(run.model).score_many([path for *_, path in files], progress=report)
    names, photographs = _scene_names(run), dict[str, dict[str, Any]]()
    for (ref, name, path), row in zip(files, rows, strict=True):
        if row.status != Status.OK:
            raise PocketiqaError(f"{path} has no score ({row.status}): {row.reason}")
        entry = photographs.setdefault(ref.id, {"name": names.get(ref.group, ref.id), "versions": []})
        entry["versions"].append({"name": name, "file": path.name, "score": row.score})
    (folder / SCORES).write_bytes(canonical_json(list(photographs.values())))
    return {"photographs": len(photographs), "sha256": sha256_file(folder / SCORES)}


def _scene_names(run: Run) -> dict[str, str]:
    """Names of the files that the photographs came from, by scene."""
    pool = Pool.open(run.pool) if run.recipe.pool is not None else label_sources(run)[0].pool
    return {ref.group: Path(addresses.name_of(ref.uri)).stem for ref in reversed(pool.ok()) if not ref.ref_id}


def read_demonstration(run: Run) -> list[Photograph]:
    """The photographs and scores that the stage wrote."""
    records = read_json(run.demonstration / SCORES, what="scores of the demonstration")
    return [
        Photograph(
            record["name"],
            {version["name"]: version["file"] for version in record["versions"]},
            {version["name"]: version["score"] for version in record["versions"]},
        )
        for record in records
    ]
