"""Builds a SEAGULL teacher from its options: weights, precision, adapters, devices."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import dispatch_model, infer_auto_device_map
from torch import Tensor, nn

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.tensor_files import misfits, read_tensors
from teachers.checksummed import tensor_digest
from teachers.fitting import head_file
from teachers.launch import PRECISIONS, check_precision
from teachers.seagull.first_weights import standardise, strengthen
from teachers.seagull.language import PUBLISHED_QUESTIONS, RegionTokenizer, train_tokenizer
from teachers.seagull.model import Seagull, Sizes, build, language_config, variant_named
from teachers.seagull.official import DeviceOf, Target, load_official
from teachers.seagull.teacher import Asking, SeagullTeacher
from teachers.seagull.tuning import Adapters, add_adapters

WEIGHTS_VARIABLE = "POCKETIQA_WEIGHTS"
_DEFAULT_FOLDER = Path("~/.cache/pocketiqa/weights")
_REPOSITORY = "SEAGULL"
_LICENCE = "SEAGULL weights: Apache-2.0; language model Vicuna/LLaMA (Llama licence), CLIP tower trained on LAION-2B"
_RANDOM_LICENCE = "random weights"
_BITS = (16, 8, 4)
_RANDOM = ("tiny", "small")
_LAYER = "LlamaDecoderLayer"


@dataclass(frozen=True)
class Memory:
    """Where the language model's weights are, and in how many bits.

    Attributes:
        precision: ``bf16`` (and the vision tower in float16, as the authors compute) or ``fp32``.
        load_bits: 16 leaves the weights as they are; 8 and 4 need bitsandbytes.
        device_map: None for one device; ``auto`` spreads the layers over all GPUs; or names of parts to devices, as
            Accelerate takes it.

    Raises:
        PocketiqaError: an unknown choice, or bitsandbytes is not installed.
    """

    precision: str = "bf16"
    load_bits: int = 16
    device_map: str | dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_precision(self.precision)
        if self.load_bits not in _BITS:
            raise PocketiqaError(f"load_bits {self.load_bits}: choose {', '.join(map(str, _BITS))}")
        if self.load_bits != 16 and find_spec("bitsandbytes") is None:
            raise PocketiqaError(
                f"load_bits {self.load_bits} needs bitsandbytes: install it with pip install bitsandbytes, or give "
                "load_bits=16"
            )
        if isinstance(self.device_map, str) and self.device_map != "auto":
            raise PocketiqaError(f"device_map {self.device_map!r}: choose auto, or give part: device for each part")

    @property
    def types(self) -> dict[str, torch.dtype]:
        """Types of the language model and of the vision tower."""
        half = self.precision != "fp32"
        return {"language": PRECISIONS[self.precision], "tower": torch.float16 if half else torch.float32}

    def target(self) -> Target:
        """How a checkpoint is taken in."""
        return Target(**self.types, prepare=self._prepare, put=_put_quantized if self.load_bits != 16 else None)  # type: ignore[arg-type]

    def _prepare(self, model: Seagull) -> DeviceOf:
        if self.load_bits != 16:
            _empty_quantized(model, self.load_bits, self.types["language"])
        places = self._devices(model)
        prefix = "language."
        # The last of those that fit is the most exact one: the map is sorted by name.
        return lambda name: next(
            (places[part] for part in sorted(places, reverse=True) if name.startswith(prefix + part)), "cpu"
        )

    def _devices(self, model: Seagull) -> dict[str, Any]:
        if self.device_map is None:
            # bitsandbytes packs weights where they are going to be computed.
            return {"": "cuda"} if self.load_bits != 16 and torch.cuda.is_available() else {}
        if isinstance(self.device_map, dict):
            return self.device_map
        return dict(
            infer_auto_device_map(model.language, no_split_module_classes=[_LAYER], dtype=self.types["language"])
        )

    def spread(self, model: Seagull) -> bool:
        """Have layers on several devices, whose weights are there already, pass on what they compute.

        Returns:
            Whether the language model is to stay where it is.
        """
        if len({value.device for value in model.language.parameters()}) > 1:
            dispatch_model(model.language, self._devices(model), skip_keys="past_key_values")
        return self.device_map is not None or self.load_bits != 16


def build_seagull(
    *,
    variant: str = "7b",
    weights: str | Path | None = None,
    head: str | Path | None = None,
    tower_weights: str | Path | None = None,
    pretrained: bool = True,
    seed: int = 0,
    questions: Sequence[str] = PUBLISHED_QUESTIONS,
    together: bool = False,
    lora_rank: int = 0,
    lora_alpha: float = 16.0,
    lora_dropout: float = 0.05,
    precision: str = "bf16",
    load_bits: int = 16,
    device_map: str | dict[str, Any] | None = None,
    regions_at_once: int = 8,
    most_tokens: int = 32,
) -> SeagullTeacher:
    """Build a SEAGULL teacher; equal arguments give equal weights.

    Args:
        variant: ``7b``; ``tiny`` for tests and ``small`` (vision tower MobileNetV2), which have random weights and a
            tokenizer trained on the spot, unless ``weights`` names a folder that was exported.
        weights: folder of the published checkpoint; None means ``SEAGULL`` in ``$POCKETIQA_WEIGHTS``, by default
            ``~/.cache/pocketiqa/weights``.
        head: file of what was fitted, or ``new``.
        tower_weights: for random weights, a safetensors file with the vision tower's own under timm's names, as of a
            classifier: what follows the last map is left out.
        pretrained: False takes random weights, for tests and measurements.
        seed: seed of random weights and new adapters.
        questions: what is asked of each region; ``severity`` only of a model that was fitted to it.
        together: whether the regions of a picture see each other, see ``teacher.Asking``.
        lora_rank: rank of the adapters of the language model; 0 fits nothing. Above 0, extractor and projector learn
            too.
        lora_alpha: scale of the adapters, times their rank.
        lora_dropout: dropout before the adapters while they learn.
        precision: ``bf16`` or ``fp32`` for the language model; extractor and projector are always in float32.
        load_bits: 8 or 4 for smaller weights of the language model, see ``Memory``.
        device_map: for a language model that fits on no single GPU, see ``Memory``.
        regions_at_once: regions in one pass; more are faster and take more memory.
        most_tokens: longest answer.

    Raises:
        PocketiqaError: an unknown choice; weights or what was fitted is missing, corrupt or of another model.
    """
    sizes, asking = variant_named(variant), Asking(tuple(questions), together, regions_at_once, most_tokens)
    memory, adapters = Memory(precision, load_bits, device_map), Adapters(lora_rank, lora_alpha, lora_dropout)
    if not pretrained and (weights is not None or load_bits != 16):
        raise PocketiqaError("pretrained is False: leave out weights and load_bits, which are of a checkpoint")
    if pretrained and (variant not in _RANDOM or weights is not None):
        official = load_official(_folder(weights), target=memory.target(), sizes=sizes)
        model, tokens, base, licence = official.model, official.tokens, official.digest, _LICENCE
    else:
        model, tokens, base = _random(sizes, memory, seed, tower_weights)
        licence = _RANDOM_LICENCE
    if lora_rank:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            add_adapters(model, adapters)
    return SeagullTeacher(
        model,
        tokens,
        asking,
        facts={"variant": variant, "precision": precision, "load_bits": load_bits},
        fitted_with={"variant": variant, **adapters.as_dict()},
        base=base,
        licence=licence,
        head=head_file(head),
        spread=memory.spread(model),
    )


def _folder(weights: str | Path | None) -> Path:
    if weights is not None:
        return Path(weights).expanduser()
    folder = Path(os.environ.get(WEIGHTS_VARIABLE) or _DEFAULT_FOLDER).expanduser() / _REPOSITORY
    if folder.is_dir():
        return folder
    raise PocketiqaError(
        f"no SEAGULL weights at {folder}: fetch the checkpoint that the README of chencn2020/SEAGULL links to (14 GB) "
        f"and put it there, or name it with weights=FOLDER or {WEIGHTS_VARIABLE}=FOLDER"
    )


def _random(
    sizes: Sizes, memory: Memory, seed: int, tower_weights: str | Path | None
) -> tuple[Seagull, RegionTokenizer, str]:
    """A model with random weights, its tokenizer and a digest of both."""
    tokens = train_tokenizer()
    # Random weights are drawn from torch's global generator: seeded here, and put back for the caller.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(sizes, language_config(sizes.language)).requires_grad_(False)
        strengthen(model)
    if tower_weights is not None:
        _load_tower(model, Path(tower_weights).expanduser())
    standardise(model, seed)
    digest = tensor_digest(model.state_dict())
    nn.Module.to(model.language, memory.types["language"])
    model.tower.to(memory.types["tower"])
    return model, tokens, digest


def _load_tower(model: Seagull, path: Path) -> None:
    """Give the vision tower its weights.

    Raises:
        PocketiqaError: the file is missing or corrupt, or lacks a tensor of the tower.
    """
    given, own = read_tensors(path), model.tower.state_dict()
    said = misfits(own, {name: value for name, value in given.items() if name in own})
    if said:
        raise PocketiqaError(f"{path} does not fit the vision tower {model.sizes.tower}: {said}; give weights of that")
    model.tower.load_state_dict({name: given[name].to(value.dtype) for name, value in own.items()})


def _empty_quantized(model: Seagull, bits: int, compute: torch.dtype) -> None:
    """Replace the linear layers of the language model, on the meta device, by those of bitsandbytes."""
    import bitsandbytes as bnb  # type: ignore[import-not-found] - installed by those who want it

    body = model.language.model
    for name, layer in list(body.named_modules()):
        if isinstance(layer, nn.Linear):
            shape = (layer.in_features, layer.out_features)
            with torch.device("meta"):
                if bits == 4:
                    packed = bnb.nn.Linear4bit(*shape, bias=False, compute_dtype=compute, quant_type="nf4")
                else:
                    packed = bnb.nn.Linear8bitLt(*shape, bias=False, has_fp16_weights=False)
            body.set_submodule(name, packed)


def _put_quantized(module: nn.Module, leaf: str, tensor: Tensor) -> None:
    """Put a weight, packed where its layer is one of bitsandbytes: it packs when it is moved."""
    import bitsandbytes as bnb  # type: ignore[import-not-found] - installed by those who want it

    if isinstance(module, bnb.nn.Linear4bit) and leaf == "weight":
        packed = bnb.nn.Params4bit(tensor.cpu(), requires_grad=False, quant_type="nf4", module=module)
        module.weight = packed.to(tensor.device)
    elif isinstance(module, bnb.nn.Linear8bitLt) and leaf == "weight":
        module.weight = bnb.nn.Int8Params(tensor.cpu(), requires_grad=False).to(tensor.device)
    else:
        module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
