import csv

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from teachers.qfm_iqm import build_qfm_iqm
from tests.helpers.shared import shared_data

IMAGES = 16


def photographs() -> tuple[list[np.ndarray], Tensor]:
    folder = shared_data("biq2021")
    with (folder / "mos.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"][: 40 * IMAGES : 40]
    images = [np.asarray(Image.open(folder / "images" / row["image"]).convert("RGB")) for row in rows]
    return images, torch.tensor([float(row["mos"]) for row in rows])


def test_the_scores_of_a_few_real_photographs_are_learned():
    weights = shared_data("weights", "mobilenetv2_100_in1k.safetensors")
    images, target = photographs()
    teacher = build_qfm_iqm(
        weights=weights, pad_type="same", mean=(0.5,) * 3, std=(0.5,) * 3, head="new",
        max_side_px=96, cells=3, width=32, score_threshold=0.2, noise_weight=0.3,
    )  # fmt: skip
    items = [teacher.preprocess(image, None) for image in images]
    inputs = torch.stack([item for item in items if isinstance(item, Tensor)])
    fit = teacher.fitting_module().train()
    optimizer = torch.optim.Adam([value for value in fit.parameters() if value.requires_grad], lr=2e-3)
    before = functional.mse_loss(teacher(items).score, target)
    noise = []
    for _ in range(18):
        score, further = fit((inputs,), target, torch.ones(IMAGES))
        noise.append(float(further["noise"].detach()))
        optimizer.zero_grad()
        (functional.mse_loss(score, target) + further["noise"]).backward()
        optimizer.step()
    after = functional.mse_loss(teacher(items).score, target)
    assert after < 0.1 * before
    assert noise[0] == 0
    assert max(noise) > 0
    assert float(torch.corrcoef(torch.stack((teacher(items).score, target)))[0, 1]) > 0.95
