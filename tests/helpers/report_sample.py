"""A small but complete set of report inputs, made of random numbers and drawn pictures."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from distill.evaluation.evaluate import evaluate
from distill.evaluation.predictions import Predictions
from distill.evaluation.regions import RegionTargets, evaluate_regions
from distill.evaluation.targets import Targets
from distill.report import Cost, DistortedCopy, Fitting, MapExample, RegionExample, Regions, ReportInputs
from pseudo_labels.records import Status, TeacherStamp

STUDENT, TEACHER = "pocket-m", "fused teacher"
RATED = {
    "name": "0-koniq10k",
    "images": 7058,
    "groups": 7058,
    "statuses": {"ok": 7058},
    "digest": "cd" * 32,
    "licence": "Hosu et al.: KonIQ-10k, 2020; research",
}


def picture(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A smooth random image with an edge in it."""
    generator = np.random.default_rng(seed)
    ys, xs = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    wave = np.stack([np.sin(6 * (xs * a + ys * b)) for a, b in generator.uniform(-2, 2, (3, 2))], axis=-1)
    image = 128 + 80 * wave + 40 * (xs > 0.5)[..., None]
    return image.clip(0, 255).astype(np.uint8)


def predictions(name: str, kind: str, targets: Targets, noise: float, seed: int, missing: int = 0) -> Predictions:
    """Targets with noise, bent a little; the first ``missing`` images have no score."""
    generator = np.random.default_rng(seed)
    scores = np.clip(targets.scores**1.2 + generator.normal(0, noise, len(targets.ids)), 0, 1)
    statuses, reasons = [Status.OK] * len(scores), [""] * len(scores)
    for at in range(missing):
        scores[at], statuses[at], reasons[at] = np.nan, Status.CORRUPT, "truncated after 120 of 4096 bytes"
    return Predictions(name, kind, ids=targets.ids, scores=scores, statuses=tuple(statuses), reasons=tuple(reasons))


def ratings(images: int = 120, seed: int = 0, name: str = "biq2021") -> Targets:
    """Ratings in three subsets, two images a group, some near the training part."""
    generator = np.random.default_rng(seed)
    subsets = [f"ss0{1 + at % 3}" for at in range(images)]
    means = {"ss01": 0.42, "ss02": 0.5, "ss03": 0.74}
    scores = np.clip([generator.normal(means[subset], 0.16) for subset in subsets], 0, 1)
    return Targets(
        name,
        "opinions",
        ids=tuple(f"{subset} ({at}).jpg" for at, subset in enumerate(subsets)),
        scores=scores,
        groups=tuple(f"scene {at // 2}" for at in range(images)),
        subsets=tuple(subsets),
        near_training=tuple(at % 9 == 0 for at in range(images)),
        about={
            "scale": "0 to 1, highest is best",
            "citation": f"Ahmed, Asif: {name.upper()}, 2022",
            "licence": "public research database",
            "split_origin": "published",
            "notes": ["some test images show a scene of the training part"],
        },
    )


def history(steps: int = 40) -> list[dict[str, Any]]:
    """Records as a training run writes them."""
    records: list[dict[str, Any]] = []
    for at in range(1, steps + 1):
        loss = float(0.9 * np.exp(-at / 12) + 0.1)
        common = {"step": 10 * at, "images_seen": 160 * at}
        rate = 1e-3 * (1 - at / steps)
        records.append(
            common | {"kind": "train", "loss": loss, "score": loss / 3, "plcc": loss / 2, "learning_rate": rate}
        )
        if at % 5 == 0:
            srcc = float(0.85 - 0.6 * np.exp(-at / 10))
            sources = {"synthetic": {"n": 200, "srcc": srcc, "plcc": srcc + 0.03, "rmse": 0.1}}
            records.append(common | {"kind": "validation", "best": True, "score": srcc, "sources": sources})
    return records


def benchmark(name: str = "koniq10k", seed: int = 5) -> dict[str, Any]:
    """Student and teacher evaluated on ratings of other people, with the overlap of what they learned from."""
    targets = ratings(60, seed, name)
    predicted = [
        predictions(STUDENT, "onnx", targets, 0.12, seed),
        predictions(TEACHER, "teacher", targets, 0.05, seed + 1),
    ]
    overlap = {"trained": 900, "tested": 60, "near_distance": 4, "same_file": 2, "near": 3, "ids": [], "examples": []}
    return {**evaluate(predicted, targets, resamples=50), "overlap": overlap}


def region_example(seed: int, quality: float, label: float) -> RegionExample:
    """A region of a drawn picture."""
    panels = picture(seed, 320, 480), picture(seed + 1, 320, 480)
    return RegionExample(
        f"scene{seed}.png", "copies", "white noise, 4" if seed % 2 else "", quality=quality,
        importance=0.2 + seed / 100, quality_label=label, importance_label=None if seed % 3 else 0.5, panels=panels,
    )  # fmt: skip


def regions(pictures: int = 12) -> Regions:
    """Regions of pictures in scenes of two, four each, one of them distorted; a teacher that names types."""
    generator = np.random.default_rng(7)
    count = 4 * pictures
    distorted = np.arange(count) % 4 == 1
    targets = RegionTargets(
        [f"picture {at // 4}" for at in range(count)],
        [f"scene {at // 8}" for at in range(count)],
        quality=np.where(distorted, 0.3, 0.9) + generator.uniform(-0.05, 0.05, count),
        importance=np.where(distorted, 0.8, 0.1) + generator.uniform(0, 0.1, count),
        distorted=distorted,
    )

    def near(values: np.ndarray, noise: float) -> np.ndarray:
        return np.clip(values + generator.normal(0, noise, count), 0, 1)

    quality = {name: near(targets.quality, noise) for name, noise in (("student", 0.1), ("before", 0.5), ("crop", 0.3))}
    quality["whole"] = np.full(count, 0.6)
    importance = {"student": near(targets.importance, 0.1), "area": near(targets.importance, 1.0)}
    evaluation = {
        "part": "test",
        "sources": {"copies": evaluate_regions(targets, quality, importance, resamples=50)},
    }
    return Regions(
        evaluation, count, pictures,
        worst=[region_example(1, 0.11, 0.2), region_example(2, 0.16, 0.35)],
        best=[region_example(3, 0.97, 1.0)],
        farthest=[region_example(4, 0.4, 0.95)],
        types={
            "seagull": {
                "gaussian_blur": {"blur": 9, "noise": 3},
                "noise": {"noise": 7},
                "none": {"none": 30, "blur": 1},
            }
        },
    )  # fmt: skip


def teacher_inputs(**changes: Any) -> ReportInputs:
    """Inputs of the page of a fitted teacher: without what only students have."""
    targets = replace(ratings(), near_training=(False,) * 120)
    predicted = [predictions(TEACHER, "teacher", targets, 0.07, 4)]
    stamp = TeacherStamp(
        "sam_iqa",
        1,
        weights="5a" * 32,
        options={"variant": "vit_h"},
        scale="MOS of KonIQ-10k, 0 worst, 1 best",
        licence="research",
    )
    inputs = ReportInputs(
        title=f"{TEACHER}: sam_iqa fitted to ratings of koniq10k",
        evaluation=evaluate(predicted, targets, resamples=100),
        targets=targets,
        predictions=predicted,
        model=TEACHER,
        kind="teacher",
        costs={TEACHER: Cost(641_000_000, 4_100_000, None, 16_400_000, 812.0, 845.5, device="NVIDIA H200")},
        machine="NVIDIA H200; 8 images of 1024x768 pixels; without decoding.",
        history=history(),
        kept_step=250,
        load_image=lambda id: picture(len(id) + ord(id[-5])),
        pools=[RATED],
        split={"train": {"images": 5646, "groups": 5646}, "validation": {"images": 120, "groups": 60}},
        teachers=[{**stamp.as_dict(), "digest": stamp.digest, "base": "7b" * 32}],
        command="pocketiqa run sam_iqa_koniq",
        notes=("No test part was set aside.",),
        licence="research",
    )
    return replace(inputs, **changes)


def sample_inputs(images: int = 120, **changes: Any) -> ReportInputs:
    """Inputs with every section filled; ``changes`` replace fields."""
    return replace(_complete(images), **changes)


@cache
def _complete(images: int) -> ReportInputs:
    targets = ratings(images)
    predicted = [
        predictions(TEACHER, "labels", targets, 0.06, 1),
        predictions(STUDENT, "onnx", targets, 0.09, 2, missing=2),
        predictions("pocket-s", "onnx", targets, 0.13, 3),
    ]
    overlap = {
        "trained": 4121,
        "tested": images,
        "near_distance": 4,
        "same_file": 1,
        "near": 2,
        "ids": [targets.ids[3]],
        "examples": [
            {"tested": targets.ids[3], "trained": "a1", "trained_name": "x.jpg", "kind": "same file", "bits": 0}
        ],
    }
    stamp = TeacherStamp(
        "fused",
        1,
        weights="3f" * 32,
        options={"members": 3},
        scale="MOS of BIQ2021, 0 worst, 1 best",
        licence="research",
    )
    return ReportInputs(
        title="pocket-m distilled from a fused teacher, on BIQ2021",
        evaluation=evaluate(predicted, targets, overlapping={targets.ids[3]}, resamples=100),
        targets=targets,
        predictions=predicted,
        model=STUDENT,
        teacher=TEACHER,
        benchmarks=[benchmark(), benchmark("csiq", seed=9)],
        costs={
            TEACHER: Cost(61_200_000, None, 14_800_000_000, 245_000_000, 640.0, 702.5, 1890.0),
            STUDENT: Cost(2_493_504, None, 212_000_000, 9_981_220, 6.42, 7.05, 142.0),
            "pocket-s": Cost(984_120, None, 71_000_000, 3_950_000, 2.61, 2.9, 128.0),
        },
        machine="One core of an x86-64 server CPU, 512x512 JPEG, decode to score, 200 images after warm-up.",
        history=history(),
        kept_step=400,
        fitting=[Fitting(TEACHER, history(20), 150, [RATED])],
        load_image=lambda id: picture(len(id) + ord(id[-5])),
        quality_maps=[
            MapExample(f"kodim0{i}.png", picture(i), np.random.default_rng(i).uniform(0.3, 0.8, (6, 8)), 0.62)
            for i in (1, 2)
        ],
        distorted=[
            DistortedCopy(
                "kodim01.png",
                "Gaussian blur, level 4",
                original_score=0.74,
                distorted_score=0.31,
                original=picture(5),
                distorted=picture(6),
            ),
            DistortedCopy(
                "kodim02.png",
                "JPEG, level 5",
                original_score=0.69,
                distorted_score=0.28,
                original=picture(7),
                distorted=picture(8),
            ),
            DistortedCopy(
                "kodim03.png",
                "brighten, level 1",
                original_score=0.66,
                distorted_score=0.67,
                original=picture(9),
                distorted=picture(10),
            ),
        ],
        regions=regions(),
        pools=[
            {
                "name": "photographs",
                "images": 4121,
                "groups": 3000,
                "statuses": {"ok": 4100, "duplicate": 20, "corrupt": 1},
                "digest": "ab" * 32,
                "licence": "research",
            },
            {"name": "synthetic", "images": 25_000, "groups": 3000, "distortions": {"gaussian_blur": 800, "jpeg": 790}},
        ],
        split={"train": {"images": 3300, "groups": 2400}, "test": {"images": images, "groups": images // 2}},
        teachers=[stamp.as_dict()],
        overlap=overlap,
        contract={
            "name": STUDENT,
            "scale": "MOS of BIQ2021",
            "code_version": "0.1.0",
            "student": {"backbone": "mobilenetv4_conv_small"},
            "preprocess": {"max_side": 384, "min_side": 64},
        },
        command="pocketiqa run configs/biq2021_pocket_m.yaml",
        notes=("Night scenes are rare in the training data.",),
        licence="Apache-2.0",
    )
