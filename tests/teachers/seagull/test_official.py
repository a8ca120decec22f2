import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from teachers.seagull.model import VARIANTS, build, language_config, meta_model
from teachers.seagull.official import Official, Target, load_official, official_name
from teachers.seagull.teacher import SeagullTeacher
from tests.teachers.seagull.published import published_tensors, save_published

TINY, FULL = VARIANTS["tiny"], VARIANTS["7b"]
FLOAT = Target(torch.float32, torch.float32)

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def folder(teacher: SeagullTeacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_published(tmp_path_factory.mktemp("published"), teacher.model, teacher.tokens)


def load(folder: Path) -> Official:
    return load_official(folder, target=FLOAT, sizes=TINY)


@pytest.mark.parametrize(("kind", "shards"), [("bin", 3), ("safetensors", 2), ("bin", 0), ("safetensors", 0)])
def test_every_layout_gives_the_same_model(kind: str, shards: int, teacher: SeagullTeacher, tmp_path: Path):
    saved = save_published(tmp_path, teacher.model, teacher.tokens, kind=kind, shards=shards)
    official = load(saved)
    own, given = teacher.model.state_dict(), official.model.state_dict()
    assert own.keys() == given.keys()
    assert all(torch.equal(own[name], given[name]) for name in own)
    assert not any(value.requires_grad for value in official.model.parameters())
    assert len(official.tokens.tokenizer) == len(teacher.tokens.tokenizer)


def test_what_plays_no_part_is_listed(folder: Path):
    unused = load(folder).unused
    assert [name for name in unused if "mask_linear" not in name] == [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.vision_tower.vision_tower.visual.head.proj.weight",
        "model.vision_tower.vision_tower.visual.trunk.head.norm.weight",
    ]
    assert sum("mask_extractor.mask_linear.layers" in name for name in unused) == 6


def test_the_digest_follows_the_tensors_in_use(folder: Path, teacher: SeagullTeacher, tmp_path: Path):
    def moved(tensors: Tensors) -> Tensors:
        return {**tensors, "mask_extractor.res2.bias": tensors["mask_extractor.res2.bias"] + 1}

    def idle(tensors: Tensors) -> Tensors:
        return {**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}

    digest = load(folder).digest
    same = save_published(tmp_path / "same", teacher.model, teacher.tokens, kind="safetensors", change=idle, shards=5)
    other = save_published(tmp_path / "other", teacher.model, teacher.tokens, change=moved)
    assert load(same).digest == digest
    assert load(other).digest != digest


def test_the_names_and_counts_of_the_published_model():
    model = meta_model(FULL, language_config(FULL.language))
    names = {official_name(name): value for name, value in model.state_dict().items()}
    shapes = {
        "model.embed_tokens.weight": (32002, 4096),
        "model.layers.31.mlp.down_proj.weight": (4096, 11008),
        "model.norm.weight": (4096,),
        "lm_head.weight": (32002, 4096),
        "model.mm_projector.0.weight": (4096, 768),
        "model.mm_projector.2.bias": (4096,),
        "mask_extractor.final_mlp.weight": (4096, 8192),
        "model.vision_tower.vision_tower.visual.trunk.stem.0.weight": (192, 3, 4, 4),
        "model.vision_tower.vision_tower.visual.trunk.stages.2.blocks.26.mlp.fc1.weight": (3072, 768),
        "model.vision_tower.vision_tower.visual.trunk.stages.3.downsample.1.weight": (1536, 768, 2, 2),
    }
    assert {name: tuple(names[name].shape) for name in shapes} == shapes
    # LLaMA-7B has 6,738,415,616 parameters; each of two more words has a row in two tables.
    counts = {name: sum(value.numel() for value in part.parameters()) for name, part in model.named_children()}
    assert counts == {
        "tower": 196_227_264,
        "extractor": 102_875_674,
        "projector": 768 * 4096 + 4096 + 4096 * 4096 + 4096,
        "language": 6_738_415_616 + 2 * 2 * 4096,
    }


def lacking(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def holding(**more: Tensor) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, **{name.replace("__", "."): value for name, value in more.items()}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lacking("mask_extractor.res5.bias"), "does not fit SEAGULL: it lacks mask_extractor.res5.bias"),
        (lacking("model.mm_projector.2.weight"), "it lacks model.mm_projector.2.weight"),
        (holding(model__layers__9__mlp__up_proj__weight=torch.ones(1)), "it has the foreign model.layers.9.mlp.up_pro"),
        (
            holding(model__vision_tower__vision_tower__visual__trunk__stages__3__blocks__7__gamma=torch.ones(1)),
            "it has the foreign .*stages.3.blocks.7.gamma",
        ),
        (holding(mask_extractor__res2__bias=torch.ones(3)), r"mask_extractor.res2.bias of shape \[3\] instead of \[32"),
        (lambda _: {"model.decoder.weight": torch.ones(2)}, "is no SEAGULL checkpoint: it holds model.decoder.weight"),
    ],
)
def test_another_checkpoint_is_refused_by_its_own_names(
    change: Callable[[Tensors], Tensors], said: str, teacher: SeagullTeacher, tmp_path: Path
):
    saved = save_published(tmp_path, teacher.model, teacher.tokens, change=change)
    with pytest.raises(PocketiqaError, match=said):
        load(saved)


def spoilt(folder: Path, to: Path, spoil: Callable[[Path], Any]) -> Path:
    shutil.copytree(folder, to)
    spoil(to)
    return to


SECOND = "pytorch_model-00002-of-00003.bin"
INDEX = "pytorch_model.bin.index.json"


def llava(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llava"}))


def swapped(folder: Path) -> None:
    shutil.copy(folder / "pytorch_model-00001-of-00003.bin", folder / SECOND)


def cut(folder: Path) -> None:
    (folder / SECOND).write_bytes((folder / SECOND).read_bytes()[:-3000])


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / SECOND).unlink(), f"lacks {SECOND} of the 3 files that {INDEX} lists"),
        (lambda folder: (folder / "config.json").unlink(), "configuration of the model"),
        (llava, "a model of the type 'llava', not 'seagull'"),
        (lambda folder: (folder / INDEX).write_text("{}"), f"{INDEX} is no index of weight files"),
        (lambda folder: (folder / INDEX).unlink(), "has no weights, only .*config.json"),
        (swapped, f"{SECOND} lacks .*which its index promises"),
        (cut, f"{SECOND} .*cut off or corrupt"),
        (without_tokenizer, "holds no usable tokenizer"),
    ],
)
def test_an_incomplete_download_is_named(spoil: Callable[[Path], Any], said: str, folder: Path, tmp_path: Path):
    with pytest.raises(PocketiqaError, match=said) as caught:
        load(spoilt(folder, tmp_path / "copy", spoil))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"no folder at .*nowhere: fetch all files"):
        load(tmp_path / "nowhere")


def test_a_cut_safetensors_shard_is_named(teacher: SeagullTeacher, tmp_path: Path):
    saved = save_published(tmp_path, teacher.model, teacher.tokens, kind="safetensors", shards=2)
    file = saved / "model-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(PocketiqaError, match=r"model-00001-of-00002.safetensors is cut off or corrupt"):
        load(saved)


def test_types_are_those_asked_for(folder: Path):
    model = load_official(folder, sizes=TINY).model
    types = {name: {value.dtype for value in part.parameters()} for name, part in model.named_children()}
    assert types == {
        "tower": {torch.float16},
        "extractor": {torch.float32},
        "projector": {torch.float32},
        "language": {torch.bfloat16},
    }


def high_water_mark() -> int:
    """Most memory of this process since it was last reset, in bytes."""
    line = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert line
    return int(line[1]) * 1024


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_a_checkpoint_is_never_in_memory_twice(kind: str, teacher: SeagullTeacher, tmp_path: Path):
    reset = Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")
    except OSError:
        pytest.skip("the high-water mark of memory cannot be reset here")
    # 65 MB of bfloat16 in four files, nearly all of it in the language model.
    values = {**TINY.language, "hidden_size": 64, "num_hidden_layers": 8, "intermediate_size": 20_000}
    large = build(TINY, language_config(values)).bfloat16()
    tensors = published_tensors(large)
    size = sum(value.nbytes for value in tensors.values())
    saved = save_published(tmp_path, large, teacher.tokens, kind=kind, shards=4)
    del large, tensors
    reset.write_text("5")
    before = high_water_mark()
    official = load_official(saved, sizes=TINY)
    grown = high_water_mark() - before
    assert size > 60e6
    assert grown < 1.25 * size  # the model itself; held twice, it would be 2
    assert official.model.language.dtype == torch.bfloat16
