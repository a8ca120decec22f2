"""A study of two arms, two numbers of labels and three seeds, whose runs are written down instead of run."""

from pathlib import Path
from typing import Any

import numpy as np

from distill.evaluation.predictions import Predictions
from distill.evaluation.targets import Targets
from distill.stages.context import make_once
from distill.study.cells import Cell, study_targets
from distill.study.config import Study, load_study
from distill.study.evaluate import KIND, PREDICTIONS, basis_of
from distill.study.result import build_result, cell_run
from distill.study.run import record_cost
from pseudo_labels.files import canonical_json
from pseudo_labels.records import Status
from tests.helpers.studies import study_tree, write_study

IMAGES, SCENES = 90, 30
NOISE = {"alone": 0.5, "more": 0.2}
GOAL = {"arm": "more", "at": {"labels": 20}, "gain": 0.05}


def written_study(tmp_path: Path) -> Study:
    """Two arms, two numbers of labels, three seeds."""
    generator = np.random.default_rng(5)
    lines = [f"{row}.png,{generator.random()},scene{row % SCENES},validation" for row in range(IMAGES)]
    (tmp_path / "ratings.csv").write_text("\n".join(["image,mos,group,split", *lines]))
    tree = study_tree(f"csv:{tmp_path / 'ratings.csv'}")
    tree["axes"] = {"labels": {10: {}, 20: {}}, "seed": {0: {}, 1: {}, 2: {}}}
    tree["compare"]["goal"] = GOAL
    return load_study(write_study(tmp_path / "study.yaml", tree), out=tmp_path / "out")


def score(study: Study, cell: Cell, targets: Targets) -> np.ndarray:
    """Scores of a run, as its process would leave them: the ratings under noise, and one image without a score."""
    spread = NOISE[cell.arm] * (2 if cell.values["labels"] == "10" else 1)
    generator = np.random.default_rng([list(NOISE).index(cell.arm), int(cell.values["seed"])])
    scores = targets.scores + generator.normal(0, spread, IMAGES)
    scores[int(cell.values["seed"])] = np.nan
    statuses = tuple(Status.FAILED if np.isnan(score) else Status.OK for score in scores)
    predictions = Predictions(
        cell.name, "onnx", ids=targets.ids, scores=scores, statuses=statuses, reasons=("",) * IMAGES
    )

    def make(folder: Path) -> dict[str, Any]:
        (folder / PREDICTIONS).write_bytes(canonical_json(predictions.as_dict()))
        return {}

    run = cell_run(cell, study.out)
    make_once(run.evaluation, KIND, basis_of(run.recipe, targets), make, overwrite=False)
    record_cost(run.out, "distill", 12.5, resumed=cell.values["seed"] == "2")
    return scores


def result_of(study: Study, cells: list[Cell]) -> dict[str, Any]:
    commands = {cell.name: f"again {cell.name}" for cell in cells} | {"": "again"}
    return build_result(study, cells, study_targets(cells), commands)
