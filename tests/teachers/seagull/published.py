"""A tiny checkpoint in the layout of the published one, its names written out independently of the reader's."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from teachers.seagull.language import RegionTokenizer
from teachers.seagull.model import Seagull

ALL_QUESTIONS = ("quality", "importance", "type", "severity")
TRUNK = "model.vision_tower.vision_tower.visual.trunk"

CONFIG = {
    "architectures": ["SeagullLlamaForCausalLM"],
    "model_type": "seagull",
    "hidden_act": "silu",
    "mm_vision_tower": "convnext_large/open_clip_pytorch_model.bin",
    "mm_hidden_size": 768,
    "rope_scaling": None,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.31.0",
    "use_cache": True,
}


def published_tensors(model: Seagull) -> dict[str, Tensor]:
    """The model's tensors under the published names, and some that play no part."""
    tensors = {f"mask_extractor.{name}": value for name, value in model.extractor.state_dict().items()}
    tensors |= {f"model.mm_projector.{name}": value for name, value in model.projector.state_dict().items()}
    tensors |= dict(model.language.state_dict())  # lm_head.weight, model.layers..., as transformers has them
    for name, value in model.tower.state_dict().items():
        part, rest = name.split(".", 1)  # stem_0, stages_3
        tensors[f"{TRUNK}.{part.replace('_', '.')}.{rest}"] = value
    tensors[f"{TRUNK}.head.norm.weight"] = torch.ones(4)
    tensors["model.vision_tower.vision_tower.visual.head.proj.weight"] = torch.ones(4, 4)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    return {name: value.detach().clone() for name, value in tensors.items()}


def save_published(
    folder: Path,
    model: Seagull,
    tokens: RegionTokenizer,
    *,
    kind: str = "bin",
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
    shards: int = 3,
) -> Path:
    """Write a checkpoint in shards (``kind`` bin or safetensors), or in one file (``shards`` 0)."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = change(published_tensors(model))
    numbers = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    sizes = {name: getattr(model.language.config, name) for name in (*numbers, "rms_norm_eps")}
    (folder / "config.json").write_text(json.dumps(CONFIG | sizes))
    tokens.tokenizer.save_pretrained(folder)
    stem = "pytorch_model" if kind == "bin" else "model"
    names = sorted(tensors)
    weight_map = {}
    for number in range(max(shards, 1)):
        file = f"{stem}-{number + 1:05d}-of-{shards:05d}.{kind}" if shards else f"{stem}.{kind}"
        part = {name: tensors[name] for name in names[number :: max(shards, 1)]}
        weight_map |= dict.fromkeys(part, file)
        torch.save(part, folder / file) if kind == "bin" else save_file(part, folder / file)
    if shards:
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / f"{stem}.{kind}.index.json").write_text(json.dumps(index))
    return folder
