"""The tiny teacher learns the MOS of 32 real photographs."""

import csv

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from pseudo_labels.images import load
from teachers.sam_iqa import build_sam_iqa
from tests.helpers.shared import shared_data


def spearman(scores: Tensor, ratings: Tensor) -> float:
    return float(np.corrcoef(rankdata(scores), rankdata(ratings))[0, 1])


def test_the_tiny_teacher_overfits_32_photographs():
    root = shared_data("biq2021")
    with open(root / "mos.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"][::130][:32]
    teacher = build_sam_iqa(variant="tiny", pretrained=False, input_side_px=64)
    paths = {path.name: path for path in root.rglob("*.jpg")}
    items = [teacher.preprocess(load(paths[row["image"]]), None) for row in rows]
    images = torch.stack([item for item in items if isinstance(item, torch.Tensor)])
    ratings = torch.tensor([float(row["mos"]) for row in rows])
    before = spearman(teacher(items).score, ratings)
    model = teacher.model
    with torch.no_grad():
        taps, neck = model.encoder(images)  # frozen, so once is enough
    optimiser = torch.optim.Adam([value for value in model.parameters() if value.requires_grad], lr=3e-3)
    for _ in range(45):
        optimiser.zero_grad()
        (model.regression(model.branches(taps, neck)).score - ratings).square().mean().backward()
        optimiser.step()
    assert before < 0.6
    assert spearman(teacher(items).score, ratings) >= 0.95  # measured 0.99
