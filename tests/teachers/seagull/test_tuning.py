import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaForCausalLM

from pseudo_labels.errors import PocketiqaError
from teachers.base import stack
from teachers.fitted_folder import write_fitted_folder
from teachers.fitting import check_fittable
from teachers.registry import build_teacher
from teachers.seagull.build import build_seagull
from teachers.seagull.language import QUESTIONS
from teachers.seagull.model import VARIANTS, build, language_config, preprocess
from teachers.seagull.official import Target, load_official
from teachers.seagull.teacher import SeagullTeacher, region_input
from teachers.seagull.tuning import (
    Adapters,
    AnswerLoss,
    Instruction,
    RegionBatch,
    RegionLabels,
    export_merged,
    instructions,
    save_adapters,
    type_of,
)

OPTIONS: dict[str, Any] = {
    "variant": "tiny", "precision": "fp32", "lora_rank": 4, "most_tokens": 4, "head": "new",
}  # fmt: skip


@pytest.fixture
def fresh() -> SeagullTeacher:
    return build_seagull(**OPTIONS, pretrained=False)


@pytest.fixture(scope="module")
def moved() -> SeagullTeacher:
    """A teacher whose trained part was moved at random, as training would have."""
    teacher = build_seagull(**OPTIONS, pretrained=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in teacher.trained_state().values():
            value.add_(torch.randn(value.shape, generator=generator), alpha=0.05)
    return teacher


def batch_of(teacher: SeagullTeacher, photo: np.ndarray, pairs: list[Instruction]) -> RegionBatch:
    """A region for each pair, in turn of two pictures."""
    pictures = [photo, np.ascontiguousarray(photo[::-1])]
    rows = [number % 2 for number in range(len(pairs))]
    masks = [np.zeros(photo.shape[:2], dtype=bool) for _ in pairs]
    for number, mask in enumerate(masks):
        mask[5 * number : 5 * number + 30, 10:80] = True
    regions = [region_input(pictures[row], mask, teacher.side_px) for row, mask in zip(rows, masks, strict=True)]
    maps = [
        [level[0] for level in teacher.model.feature_maps(preprocess(picture, teacher.side_px)[None])]
        for picture in pictures
    ]
    return RegionBatch(
        maps,
        rows,
        torch.stack([region.mask for region in regions]),
        torch.stack([region.crop for region in regions]),
        pairs,
    )


PAIRS = [
    Instruction(QUESTIONS["quality"], "Quality: good."),
    Instruction("Is the quality of this region bad? Answer yes or no.", "No."),
    Instruction(QUESTIONS["type"], "Type: blur."),
]


def test_labels_become_pairs():
    pairs = instructions(RegionLabels(quality=0.65, importance=0.1, severity=1.0, type="noise"), draw=3)
    assert pairs[:3] == [
        Instruction(QUESTIONS["quality"], "Quality: good.", "quality", 0.65),
        Instruction("Is the quality of this region good? Answer yes or no.", "Yes."),
        Instruction("Is the quality of this region excellent? Answer yes or no.", "No."),
    ]
    assert [pair.answer for pair in pairs[3:]] == [
        "Importance: unimportant.", "Severity: extreme.", "Type: noise.", "Yes.", "No.",
    ]  # fmt: skip
    assert pairs[-1].question == "Is the distortion of this region contrast? Answer yes or no."


def test_what_is_not_known_is_not_asked():
    assert instructions(RegionLabels()) == []
    assert [pair.answer for pair in instructions(RegionLabels(importance=1.0))] == ["Importance: essential."]


def test_only_what_is_wanted_becomes_pairs():
    labels = RegionLabels(quality=0.65, importance=0.1, severity=1.0, type="noise")
    pairs = instructions(labels, questions=("quality", "type"), judgements=False)
    assert [pair.answer for pair in pairs] == ["Quality: good.", "Type: noise."]
    assert len(instructions(labels, questions=("quality", "type"))) == 6


def test_untrue_statements_vary_and_are_never_true():
    for draw in range(12):
        untrue = instructions(RegionLabels(type="blur"), draw=draw)[2]
        assert "blur" not in untrue.question
    assert len({instructions(RegionLabels(type="blur"), draw=draw)[2].question for draw in range(6)}) == 6


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"quality": 1.2}, "a region's quality is 1.2: it must be in"),
        ({"severity": -0.1}, "a region's severity is -0.1"),
        ({"type": "rain"}, "a region's type is 'rain': choose blur"),
    ],
)
def test_labels_out_of_range_are_refused(labels: dict[str, Any], said: str):
    with pytest.raises(PocketiqaError, match=said):
        RegionLabels(**labels)


def test_extractor_projector_and_adapters_learn_and_nothing_else(fresh: SeagullTeacher, photo: np.ndarray):
    assert fresh.fitted_with == {"variant": "tiny", "lora_rank": 4, "lora_alpha": 16.0, "lora_dropout": 0.05}
    names = set(fresh.trained_state())
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name in names if ".lora_" in name}
    # All linear layers of the language model but the last.
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {name.partition(".")[0] for name in names if ".lora_" not in name} == {"extractor", "projector"}
    before = {name: value.clone() for name, value in fresh.model.state_dict().items()}
    loss = AnswerLoss(fresh.model, fresh.tokens).train()
    optimizer = torch.optim.SGD([value for value in loss.parameters() if value.requires_grad], lr=0.1)
    for _ in range(2):  # the second factor of an adapter begins at zero, so that the first one learns later
        loss(batch_of(fresh, photo, PAIRS)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    changed = {name for name, value in fresh.model.state_dict().items() if not torch.equal(value, before[name])}
    # The softmax does not see what all its keys have in common.
    assert changed == names - {"extractor.cross_att_res.cross_attn.k_proj.bias"} or changed == names
    assert not fresh.model.tower.training


def test_new_adapters_change_nothing(photo: np.ndarray, fresh: SeagullTeacher):
    plain = build_seagull(variant="tiny", pretrained=False, precision="fp32", most_tokens=4)
    mask = np.ones(photo.shape[:2], dtype=bool)
    assert fresh.score_regions(photo, [mask])[0].answers == plain.score_regions(photo, [mask])[0].answers


def test_the_loss_is_that_of_the_answer_alone(moved: SeagullTeacher, photo: np.ndarray):
    """Against transformers' own loss on each whole sequence by itself, with -100 on all but the answer."""
    model, tokens = moved.model, moved.tokens
    batch = batch_of(moved, photo, PAIRS)
    loss = AnswerLoss(model, tokens).eval()
    with torch.no_grad():
        given = loss(batch)
        for row, pair in enumerate(PAIRS):
            whole, length = tokens.with_answer(pair.question, pair.answer)
            picture = model.look(batch.maps[batch.picture[row]])
            region = model.embed(picture, batch.masks[row : row + 1], batch.crops[row : row + 1])[0]
            sequence = torch.cat([model.before_region(picture, whole), region, model.words(whole.after_region)])
            labels = torch.full((1, len(sequence)), -100)
            labels[0, -length:] = torch.tensor(whole.after_region[-length:])
            expected = model.language(inputs_embeds=sequence[None], labels=labels).loss
            assert float(given[row]) == pytest.approx(float(expected), rel=1e-4)
            assert whole.after_region[-1] == tokens.eos


def test_ratings_of_whole_images_can_be_learned(moved: SeagullTeacher, photo: np.ndarray):
    """The score that is learned is the one that an answer gives, and has a gradient."""
    check_fittable(moved, "seagull")
    module = moved.fitting_module().eval()
    items = [moved.preprocess(picture, None) for picture in (photo, np.ascontiguousarray(photo[:, ::-1]))]
    score, terms = module(stack(items, "cpu"), torch.tensor([0.3, 0.9]), torch.ones(2))
    score.sum().backward()
    assert moved.model.extractor.get_parameter("res2.weight").grad is not None
    moved.model.zero_grad()
    for row, (pixels, crop) in enumerate(items):
        picture = moved.look(pixels)
        question, answer = QUESTIONS["quality"], ("Quality: poor.", "Quality: excellent.")[row]
        whole, length = moved.tokens.with_answer(question, answer)
        with torch.inference_mode():
            mask = torch.ones((1, moved.side_px, moved.side_px), dtype=torch.bool)
            region = moved.model.embed(picture, mask, crop[None])[0]
            given = torch.cat(
                [moved.model.before_region(picture, whole), region, moved.model.words(whole.after_region)]
            )
            logits = moved.model.language(inputs_embeds=given[None]).logits[0, -length - 1 : -1]
        level = moved.tokens.level("quality", whole.after_region[-length:], logits)
        assert level is not None
        assert score[row].item() == pytest.approx(level.value, abs=1e-5)
    assert set(terms) == {"answer"}
    assert terms["answer"].item() > 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gaussian_blur", "blur"), ("white_noise", "noise"), ("camera_exposure", "exposure"), ("jpeg", "compression"),
        ("camera_contrast", "contrast"), ("pixelate", ""), ("noise", "noise"), ("none", "none"), ("rain", ""), ("", ""),
    ],
)  # fmt: skip
def test_distortions_of_the_catalogue_have_seagulls_types(name: str, kind: str):
    assert type_of(name) == kind


def test_a_batch_may_be_cut(moved: SeagullTeacher, photo: np.ndarray):
    loss = AnswerLoss(moved.model, moved.tokens).eval()
    batch = batch_of(moved, photo, PAIRS)
    with torch.no_grad():
        whole = loss(batch)
        parts = [loss(part.to(torch.device("cpu"))) for part in batch.cut(2)]
    assert [len(part) for part in parts] == [2, 1]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-5)


def answers(teacher: SeagullTeacher, photo: np.ndarray) -> list[dict[str, str]]:
    mask = np.zeros(photo.shape[:2], dtype=bool)
    mask[:, :70] = True
    return [score.answers for score in teacher.score_regions(photo, [mask, ~mask])]


def first_logits(language: Any, width: int) -> Tensor:
    given = torch.randn((1, 7, width), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return language(inputs_embeds=given).logits


def test_the_merged_export_is_a_checkpoint_of_the_published_layout(
    moved: SeagullTeacher, photo: np.ndarray, tmp_path: Path
):
    export_merged(moved.model, moved.tokens, tmp_path / "merged", shard_bytes=100_000)
    files = sorted(path.name for path in (tmp_path / "merged").glob("*.safetensors"))
    assert len(files) > 3
    sizes = VARIANTS["tiny"]
    official = load_official(tmp_path / "merged", target=Target(torch.float32, torch.float32), sizes=sizes)
    expected = first_logits(moved.model.language, 64)
    torch.testing.assert_close(first_logits(official.model.language, 64), expected, rtol=1e-4, atol=1e-4)
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["model_type"] == "seagull"
    merged = build_teacher("seagull", variant="tiny", precision="fp32", most_tokens=4, weights=tmp_path / "merged")
    assert isinstance(merged, SeagullTeacher)
    assert answers(merged, photo) == answers(moved, photo)


def test_the_adapters_are_read_by_peft(moved: SeagullTeacher, tmp_path: Path):
    save_adapters(moved.model, Adapters(4), tmp_path / "adapters")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = build_seagull(variant="tiny", pretrained=False, precision="fp32").model.language
    assert isinstance(plain, LlamaForCausalLM)
    wrapped = PeftModel.from_pretrained(plain, str(tmp_path / "adapters"))
    torch.testing.assert_close(first_logits(wrapped, 64), first_logits(moved.model.language, 64), rtol=1e-4, atol=1e-4)
    others = load_file(tmp_path / "adapters" / "non_lora_trainables.safetensors")
    assert torch.equal(others["mask_extractor.res2.bias"], moved.model.extractor.get_parameter("res2.bias"))
    assert {name.split(".")[0] for name in others} == {"mask_extractor", "model"}


def test_what_has_no_adapters_exports_none(tmp_path: Path):
    tiny = VARIANTS["tiny"]
    model = build(tiny, language_config(tiny.language))
    with pytest.raises(PocketiqaError, match="this model has no adapters: build it with lora_rank above 0"):
        save_adapters(model, Adapters(0), tmp_path)


def test_a_fitted_folder_gives_the_same_teacher(moved: SeagullTeacher, photo: np.ndarray, tmp_path: Path):
    options = {**OPTIONS, "pretrained": False}
    write_fitted_folder(
        tmp_path / "teacher", moved, name="seagull", options=options, scale="0 to 1", licence="none", seen=[], about={}
    )
    again = build_teacher(str(tmp_path / "teacher"))
    assert isinstance(again, SeagullTeacher)
    assert answers(again, photo) == answers(moved, photo)
    assert again.stamp.weights == moved.stamp.weights != build_seagull(**options).stamp.weights
    with pytest.raises(PocketiqaError, match=r"was fitted with other options .*lora_rank: 4 -> 2"):
        build_teacher("seagull", **{**options, "lora_rank": 2, "head": tmp_path / "teacher" / "fitted.safetensors"})


@pytest.mark.parametrize("wrong", [{"lora_alpha": 0.0}, {"lora_dropout": 1.0}])
def test_adapters_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(PocketiqaError, match="at least 0, above 0, and from 0 to below 1 are needed"):
        Adapters(4, **wrong)
