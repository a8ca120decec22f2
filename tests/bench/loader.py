"""What the data loader costs a training step beside the bare forward and backward, with cached labels."""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from distill.data.examples import LabelTable, Source
from distill.recipe.training import TrainConfig
from distill.training.history import TIMINGS
from distill.training.losses import LossInputs, total_loss
from distill.training.optim import build_optimizer
from distill.training.student import train
from pseudo_labels.pool import build_pool
from students.registry import build_student
from tests.bench.photographs import write_jpegs

IMAGES, BATCH, CROP, STEPS, THREADS = 256, 32, 160, 60, 2


def _bare_ms(config: TrainConfig) -> float:
    """Median step of the same model, loss and optimiser on pixels that are in memory already."""
    torch.set_num_threads(THREADS)
    student = build_student(config.student.name, seed=0).train()
    optimizer = build_optimizer(student, config.optimizer)
    pixels = torch.randint(0, 256, (BATCH, CROP, CROP, 3), dtype=torch.uint8)
    target, weight = torch.rand(BATCH), torch.ones(BATCH)
    times_ms = []
    for _ in range(STEPS):
        started = time.perf_counter()
        loss, _ = total_loss(LossInputs(student(pixels).score, target, weight), config.losses)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        times_ms.append(1000 * (time.perf_counter() - started))
    return statistics.median(times_ms[5:])


def _trained_ms(config: TrainConfig, folder: Path) -> tuple[float, float]:
    """Median step of a real run, and the median time that it waited for its batch."""
    write_jpegs(folder / "photographs", IMAGES, 512, 512)
    pool = build_pool([str(folder / "photographs")], folder / "pool", near_duplicate_distance=0, workers=2)
    ids = [ref.id for ref in pool.ok()]
    labels = LabelTable(ids, np.random.default_rng(0).random(len(ids)).tolist())
    train(config, [Source("bench", pool, labels)], folder / "run")
    lines = [json.loads(line) for line in (folder / "run" / TIMINGS).read_text().splitlines()]
    steps = config.log_every_steps
    records = [line for line in lines if "images_per_s" in line][1:]
    step_ms = [1000 * BATCH / line["images_per_s"] for line in records]
    return statistics.median(step_ms), statistics.median(1000 * line["waited_s"] / steps for line in records)


def main() -> None:
    """Train pocket-m for 60 steps with and without the loader, in turn."""
    config = TrainConfig.model_validate(
        {
            "student": {"name": "pocket-m"},
            "steps": STEPS,
            "batch_size": BATCH,
            "threads": THREADS,
            "tracker": "none",
            "log_every_steps": 5,
            "validate_every_steps": STEPS,
            "checkpoint_every_steps": STEPS,
            "images": {"crop_size": CROP},
            "optimizer": {"warmup_steps": 5},
        }
    )
    ratios = []
    for _ in range(3):
        bare = _bare_ms(config)
        with tempfile.TemporaryDirectory() as name:
            step, waited = _trained_ms(config, Path(name))
        ratios.append(step / bare)
        print(
            f"pocket-m, {BATCH} crops of {CROP} pixels, {THREADS} threads: bare forward, backward and optimiser "
            f"{bare:.0f} ms; whole step {step:.0f} ms, of which waiting for the loader {waited:.1f} ms"
        )
    print(f"whole step against bare: {100 * (statistics.median(ratios) - 1):+.1f} %, median of 3 (limit 10 %)")
