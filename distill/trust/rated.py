"""Models against people's ratings: by subset, by content, and whether their intervals hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from distill.evaluation.evaluate import evaluate
from distill.evaluation.predictions import Predictions, predict_samples
from distill.evaluation.targets import Targets
from distill.leakage.embeddings import embed
from distill.leakage.extractors import open_extractor
from distill.leakage.image_sets import ImageSet
from distill.leakage.neighbours import standardised
from distill.scoring.meaning_columns import INTERVALS
from distill.trust.definitions import CLUSTERS
from distill.trust.models import Model
from distill.trust.store import ScoreStore
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.metrics.draws import Draws, interval
from pseudo_labels.parallel import Progress
from pseudo_labels.records import Status
from students.meaning.intervals import LEVELS, Intervals, bounds_of
from students.meaning.model_record import ModelName
from students.shipped import model_path

_FEATURES = "features"
_EXAMPLES = 3
# Of a smaller cluster, no correlation is worth its name.
_LEAST_IN_CLUSTER = 10
# Photographs for each cluster that is asked for: some become smaller than others.
_FEWEST = 2 * _LEAST_IN_CLUSTER
_SEED = 0


@dataclass(frozen=True)
class Cluster:
    """Photographs of similar content.

    Attributes:
        name: such as ``content 1``.
        ids: of its images.
        examples: ids of those that are nearest to its middle.
    """

    name: str
    ids: tuple[str, ...]
    examples: tuple[str, ...]


def predictions_of(model: Model, rated: ImageSet, store: ScoreStore, progress: Progress) -> Predictions:
    """Scores of rated photographs; those that the store holds are read, all of a model or none."""
    key, labels = (model.key, "ratings", rated.digest), rated.ids
    scores = store.read(key, labels)
    if scores is None:
        samples = [image.sample for image in rated.images]
        made = predict_samples(model.predictor, model.kind, samples, name=model.name, progress=progress)
        bad = [at for at, status in enumerate(made.statuses) if status != Status.OK]
        if bad:
            raise PocketiqaError(
                f"{model.name} has no score of {len(bad)} rated photographs, such as {made.ids[bad[0]]}: "
                f"{made.reasons[bad[0]]}"
            )
        scores = dict(zip(labels, made.scores.tolist(), strict=True))
        store.write(key, scores)
    values = np.array([scores[id] for id in labels], np.float64)
    return Predictions(
        name=model.name,
        kind=model.kind,
        ids=labels,
        scores=values,
        statuses=(Status.OK,) * len(labels),
        reasons=("",) * len(labels),
    )


def clusters_of(rated: ImageSet, store: ScoreStore, progress: Progress) -> list[Cluster]:
    """Clusters of content, largest first; none if there are too few photographs."""
    if len(rated.images) < 2 * _FEWEST:
        return []
    seen = 0

    def step(done: int) -> None:
        nonlocal seen
        seen += done
        progress(seen, len(rated.images))

    features = embed(rated, open_extractor("content", device="cpu"), store.folder / _FEATURES, workers=1, step=step)
    return clustered([image.sample.id for image in features.images], features.vectors)


def clustered(ids: Sequence[str], vectors: NDArray[np.float32]) -> list[Cluster]:
    """Clusters of feature vectors by k-means, largest first; those below ten images are left out.

    Args:
        ids: of N images.
        vectors: float32 [N, D].
    """
    number = min(CLUSTERS, len(ids) // _FEWEST)
    if number < 2:
        return []
    unit, _ = standardised(vectors, vectors)
    centres, of = kmeans2(unit.astype(np.float64), number, minit="++", rng=np.random.default_rng(_SEED))
    found: list[Cluster] = []
    for at in np.argsort(-np.bincount(of, minlength=number), kind="stable"):
        inside = np.flatnonzero(of == at)
        if len(inside) < _LEAST_IN_CLUSTER:
            continue
        distances = np.linalg.norm(unit[inside] - centres[at], axis=1)
        nearest = inside[np.argsort(distances, kind="stable")][:_EXAMPLES]
        own, examples = (tuple(ids[place] for place in places.tolist()) for places in (inside, nearest))
        found.append(Cluster(f"content {len(found) + 1}", own, examples))
    return found


def with_ratings(
    models: Sequence[Model],
    rated: ImageSet,
    store: ScoreStore,
    *,
    intervals: Sequence[Path],
    progress: Progress,
) -> dict[str, Any]:
    """All figures with ratings.

    Args:
        models: models.
        rated: rated photographs.
        store: scores that were made before.
        intervals: records that ``pocketiqa intervals`` wrote, each of one of the models; a record beside the file of
            a model is read as well.
        progress: called with (done, total) of each model in turn.

    Returns:
        ``name``, ``about``, ``n``, ``evaluation`` (as ``pocketiqa evaluate`` gives it), ``contents`` (the same by
        cluster, or None), ``clusters`` and ``intervals`` (records, see ``coverage``).

    Raises:
        PocketiqaError: a photograph that has no score, or a record that fits no model.
    """
    targets = rated.targets
    if targets is None:
        raise ValueError("the image set has no ratings")
    # Before the work, which takes minutes.
    records = _records(models, intervals)
    predictions = [predictions_of(model, rated, store, progress) for model in models]
    clusters = clusters_of(rated, store, progress)
    of_image = {id: cluster.name for cluster in clusters for id in cluster.ids}
    by_content = replace(targets, subsets=tuple(of_image.get(id, "") for id in targets.ids))
    return {
        "name": targets.name,
        "about": targets.about,
        "n": len(targets.ids),
        "evaluation": evaluate(predictions, targets),
        "contents": evaluate(predictions, by_content) if clusters else None,
        "clusters": [
            {"name": cluster.name, "n": len(cluster.ids), "examples": list(cluster.examples)} for cluster in clusters
        ],
        "intervals": [
            {"model": one.name, "record": records[one.name].domain, "parts": coverage(records[one.name], one, targets)}
            for one in predictions
            if one.name in records
        ],
    }


def _records(models: Sequence[Model], paths: Sequence[Path]) -> dict[str, Intervals]:
    students = {model.predictor.about.get("digest"): model for model in models if model.kind == "onnx"}
    found = {}
    for model in students.values():
        beside = model_path(model.given).with_suffix(INTERVALS)
        if beside.is_file():
            record = Intervals.load(beside)
            record.check_model(ModelName(model.name, model.predictor.about["digest"]))
            found[model.name] = record
    for path in paths:
        record = Intervals.load(path)
        model = students.get(record.model.sha256)
        if model is None:
            known = ", ".join(one.name for one in students.values()) or "no exported student"
            raise PocketiqaError(f"the interval record {path} is of {record.model}, and {known} is compared here")
        found[model.name] = record
    return found


def coverage(record: Intervals, predictions: Predictions, targets: Targets) -> list[dict[str, Any]]:
    """How often ratings lie in the intervals, of all photographs and by subset.

    Returns:
        For each part and level ``part``, ``level``, ``n``, ``coverage`` (value, low and high over scenes) and
        ``width`` (mean).
    """
    draws = Draws.of(len(targets.ids), targets.groups)
    subsets = np.array(targets.subsets, object)
    names = sorted(set(targets.subsets) - {""})
    parts: Mapping[str, NDArray[np.bool_]] = {
        "all": np.ones(len(subsets), bool),
        **({name: subsets == name for name in names} if len(names) > 1 else {}),
    }
    rows = []
    for level in LEVELS:
        low, high = bounds_of(predictions.scores, record.spread, record.radius[level])
        inside = (low <= targets.scores) & (targets.scores <= high)
        for name, keep in parts.items():
            held = np.concatenate([counts @ np.stack([keep & inside, keep], axis=1) for counts in draws.counts()])
            ends = interval(
                np.divide(held[:, 0], held[:, 1], out=np.full(len(held), np.nan), where=held[:, 1] > 0),
                draws.groups_in(keep),
            )
            value = {"value": float(inside[keep].mean()), **ends.as_dict()}
            width = float((high - low)[keep].mean())
            rows.append({"part": name, "level": level, "n": int(keep.sum()), "coverage": value, "width": width})
    return rows
