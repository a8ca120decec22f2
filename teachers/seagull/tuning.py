"""How SEAGULL is fitted to region labels: adapters, instruction pairs, the loss of answers, and what is exported.

As in the paper: next-token cross entropy of the answer alone, low-rank adapters (Hu et al. 2021, LoRA, arXiv
2106.09685) on all linear layers of the language model but its last, extractor and projector trained whole, vision tower
frozen. Ours: where a label lies between two level words, the word's token is learned as a mixture of both (You et al.
2025, DeQA-Score, arXiv 2501.11561), so that the expectation over the words can reach the label.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from pseudo_labels.distort.catalogue import CATALOGUE
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import canonical_json, staged_folder, write_atomic
from teachers.seagull.extractor import parameters_in_use
from teachers.seagull.language import (
    DISTORTIONS,
    LEVEL_WORDS,
    QUALITY,
    QUESTIONS,
    TYPE,
    UNDISTORTED,
    Prompt,
    RegionTokenizer,
    answer_text,
    level_of,
    mixture_of,
)
from teachers.seagull.model import Seagull
from teachers.seagull.official import MODEL_TYPE, official_name

_ADAPTER = "default"
_SHARD_BYTES = 4 << 30
_YES_OR_NO = "Answer yes or no."


@dataclass(frozen=True)
class Adapters:
    """Low-rank adapters of the language model; the defaults of alpha and dropout are those of the authors' code.

    Attributes:
        lora_rank: rank, 0 for no adapters; the paper has 128, the authors' code 64.
        lora_alpha: their scale, times the rank.
        lora_dropout: dropout of their input in training.

    Raises:
        PocketiqaError: a value out of range.
    """

    lora_rank: int
    lora_alpha: float = 16.0
    lora_dropout: float = 0.05

    def __post_init__(self) -> None:
        if self.lora_rank < 0 or self.lora_alpha <= 0 or not 0 <= self.lora_dropout < 1:
            raise PocketiqaError(
                f"lora_rank {self.lora_rank}, lora_alpha {self.lora_alpha}, lora_dropout {self.lora_dropout}: at least "
                "0, above 0, and from 0 to below 1 are needed"
            )

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return asdict(self)


def add_adapters(model: Seagull, adapters: Adapters) -> None:
    """Add new adapters in place, which change nothing at first, and let them, extractor and projector learn."""
    model.requires_grad_(False)
    config = LoraConfig(
        r=adapters.lora_rank,
        lora_alpha=adapters.lora_alpha,  # type: ignore[arg-type] - a scale, of any number
        lora_dropout=adapters.lora_dropout,
        target_modules=sorted({name.rpartition(".")[2] for name in _linear_layers(model)}),
        exclude_modules=["lm_head"],
    )
    inject_adapter_in_model(config, model.language, adapter_name=_ADAPTER)
    for name, value in model.language.named_parameters():
        if "lora_" in name:
            # What is trained is in float32, whatever the frozen weights beside it are in.
            value.data = value.data.float()
            value.requires_grad_(True)
    for value in (*parameters_in_use(model.extractor, together=False), *model.projector.parameters()):
        value.requires_grad_(True)


def _linear_layers(model: Seagull) -> list[str]:
    return [name for name, layer in model.language.model.named_modules() if isinstance(layer, nn.Linear)]


_TYPES = {
    "blur": "blur",
    "noise": "noise",
    "compression": "compression",
    "colour": "colorfulness",
    "brightness": "exposure",
    "camera_blur": "blur",
    "camera_exposure": "exposure",
    "camera_contrast": "contrast",
    "camera_colorfulness": "colorfulness",
    "camera_compression": "compression",
    "contrast_change": "contrast",
}
"""Family or name in the distortion catalogue -> the type that SEAGULL calls it; others have none."""


def type_of(distortion: str) -> str:
    """SEAGULL's type of a distortion of the catalogue (``pseudo_labels.distort``), or of its own; else empty."""
    if distortion in (*DISTORTIONS, UNDISTORTED):
        return distortion
    family = CATALOGUE[distortion].family if distortion in CATALOGUE else ""
    return _TYPES.get(distortion) or _TYPES.get(family, "")


@dataclass(frozen=True)
class RegionLabels:
    """What is known of a region; what is not known is NaN or empty, and no pair is made of it.

    Attributes:
        quality: in [0, 1], 1 best.
        importance: in [0, 1], 1 most important.
        severity: of its distortion, in [0, 1], 1 most severe.
        type: of its distortion, of ``language.DISTORTIONS``, or ``none``.
    """

    quality: float = math.nan
    importance: float = math.nan
    severity: float = math.nan
    type: str = ""

    def __post_init__(self) -> None:
        if self.type and self.type not in (*DISTORTIONS, UNDISTORTED):
            raise PocketiqaError(
                f"a region's type is {self.type!r}: choose {', '.join(DISTORTIONS)} or {UNDISTORTED}, or leave it empty"
            )
        for name in LEVEL_WORDS:
            value = getattr(self, name)
            if not (math.isnan(value) or 0 <= value <= 1):
                raise PocketiqaError(f"a region's {name} is {value}: it must be in [0, 1], or NaN if it is not known")


@dataclass(frozen=True)
class Instruction:
    """A question about a region, and its answer.

    Attributes:
        question: as it is asked.
        answer: as it should be given.
        grade: what is graded, key of ``LEVEL_WORDS``; empty where the answer is no level word.
        value: the label that the level word stands for, in [0, 1].
    """

    question: str
    answer: str
    grade: str = ""
    value: float = math.nan


def instructions(
    labels: RegionLabels, *, questions: Collection[str] = tuple(QUESTIONS), judgements: bool = True, draw: int = 0
) -> list[Instruction]:
    """A region's labels as instruction pairs.

    Args:
        labels: what is known.
        questions: keys of ``language.QUESTIONS``; of others no pair is made.
        judgements: whether yes-or-no questions are asked as well.
        draw: which untrue statement the yes-or-no questions ask about; any number, such as that of the region.

    Returns:
        One pair for each label that is known, and of quality and type two judgements each: one true, one not.
    """
    pairs = []
    for name, words in LEVEL_WORDS.items():
        value = getattr(labels, name)
        if not math.isnan(value) and name in questions:
            word = words[level_of(value)]
            pairs.append(Instruction(QUESTIONS[name], answer_text(name, word), name, value))
            if name == QUALITY and judgements:
                pairs += _judgements(f"Is the quality of this region {{}}? {_YES_OR_NO}", word, words, draw)
    if labels.type and TYPE in questions:
        pairs.append(Instruction(QUESTIONS[TYPE], answer_text(TYPE, labels.type)))
        if judgements:
            known = (*DISTORTIONS, UNDISTORTED)
            pairs += _judgements(f"Is the distortion of this region {{}}? {_YES_OR_NO}", labels.type, known, draw)
    return pairs


def _judgements(question: str, true: str, words: Sequence[str], draw: int) -> list[Instruction]:
    others = [word for word in words if word != true]
    false = others[draw % len(others)]
    return [Instruction(question.format(true), "Yes."), Instruction(question.format(false), "No.")]


@dataclass(frozen=True)
class RegionBatch:
    """Regions with one pair each.

    Attributes:
        maps: feature maps of each picture, [C, h, w] each.
        picture: of each region, its picture in ``maps``.
        masks: bool [B, side, side].
        crops: float32 [B, 3, side, side].
        pairs: of each region.
    """

    maps: Sequence[Sequence[Tensor]]
    picture: Sequence[int]
    masks: Tensor
    crops: Tensor
    pairs: Sequence[Instruction]

    def to(self, device: torch.device) -> "RegionBatch":
        """The same on ``device``."""
        maps = [[level.to(device, non_blocking=True) for level in levels] for levels in self.maps]
        return RegionBatch(maps, self.picture, self.masks.to(device), self.crops.to(device), self.pairs)

    def cut(self, most: int) -> list["RegionBatch"]:
        """The same regions in parts of at most so many."""
        parts = [slice(start, start + most) for start in range(0, len(self.pairs), most)]
        return [
            RegionBatch(self.maps, self.picture[part], self.masks[part], self.crops[part], self.pairs[part])
            for part in parts
        ]


class AnswerLoss(nn.Module):
    """What the fitting loop trains: the model, with the loss of its answers.

    Each region is embedded as if it were the only one of its picture, as it is scored by default.

    Args:
        model: with adapters.
        tokens: its tokenizer.
    """

    def __init__(self, model: Seagull, tokens: RegionTokenizer):
        super().__init__()
        self.model, self._tokens = model, tokens

    def train(self, mode: bool = True) -> "AnswerLoss":
        """Training is for adapters alone: nothing else has dropout or statistics, and the tower is frozen."""
        super().train(mode)
        self.model.tower.eval()
        return self

    def forward(self, batch: RegionBatch) -> Tensor:
        """Cross entropy of each region's answer, mean over its tokens with the end of sequence: float32 [B]."""
        answers = zip(batch.pairs, self._answers(batch), strict=True)
        return torch.stack([self._loss(pair, logits, ids) for pair, (logits, ids) in answers])

    def graded(self, batch: RegionBatch) -> tuple[Tensor, Tensor]:
        """The same where all answers are level words, and the expectation over these words: float32 [B] each."""
        losses, values = [], []
        for pair, (logits, ids) in zip(batch.pairs, self._answers(batch), strict=True):
            losses.append(self._loss(pair, logits, ids))
            place, words = self._tokens.graded_token(pair.grade, ids.tolist())
            steps = torch.linspace(0, 1, len(words), device=logits.device)
            values.append(logits[place, words].softmax(0) @ steps)
        return torch.stack(losses), torch.stack(values)

    def _loss(self, pair: Instruction, logits: Tensor, ids: Tensor) -> Tensor:
        losses = functional.cross_entropy(logits, ids, reduction="none")
        if not pair.grade:
            return losses.mean()
        # A label between two words is a mixture of both: what differs within a word would be lost otherwise.
        place, words = self._tokens.graded_token(pair.grade, ids.tolist())
        mixture = torch.tensor(mixture_of(pair.value), device=logits.device)
        graded = -(logits[place].log_softmax(0)[words] * mixture).sum()
        return (losses.sum() - losses[place] + graded) / len(losses)

    def _answers(self, batch: RegionBatch) -> list[tuple[Tensor, Tensor]]:
        """Float32 logits [n, vocabulary] of each answer's tokens, and these tokens, int64 [n]."""
        prompts = [self._tokens.with_answer(pair.question, pair.answer) for pair in batch.pairs]
        sequences = self._sequences(batch, [prompt for prompt, _ in prompts])
        lengths = [len(sequence) for sequence in sequences]
        given = pad_sequence(sequences, batch_first=True)
        inside = torch.arange(given.shape[1])[None] < torch.tensor(lengths)[:, None]
        hidden = self.model.language.model(
            inputs_embeds=given, attention_mask=inside.to(given.device), use_cache=False
        ).last_hidden_state
        answers = []
        for row, (prompt, length) in enumerate(prompts):
            # A token is predicted at the position before it.
            logits = self.model.language.lm_head(hidden[row, lengths[row] - length - 1 : lengths[row] - 1]).float()
            answers.append((logits, torch.tensor(prompt.after_region[-length:], device=logits.device)))
        return answers

    def _sequences(self, batch: RegionBatch, prompts: Sequence[Prompt]) -> list[Tensor]:
        """Inputs of the language model, [n, width] each; what regions of a picture share is computed once."""
        sequences: dict[int, Tensor] = {}
        for number in sorted(set(batch.picture)):
            rows = [row for row, picture in enumerate(batch.picture) if picture == number]
            picture = self.model.look(batch.maps[number])
            regions = self.model.embed(picture, batch.masks[rows], batch.crops[rows])
            before = self.model.before_region(picture, prompts[rows[0]])
            for row, region in zip(rows, regions, strict=True):
                after = self.model.words(prompts[row].after_region)
                sequences[row] = torch.cat([before, region.to(before), after])
        return [sequences[row] for row in range(len(prompts))]


class RatingFit(nn.Module):
    """Fitting to ratings of whole images, as ``teachers.fitting`` has it; the loss of the answers is a further term.

    Args:
        model: with adapters.
        tokens: its tokenizer.
    """

    def __init__(self, model: Seagull, tokens: RegionTokenizer):
        super().__init__()
        self.model, self._answers = model, AnswerLoss(model, tokens)

    def train(self, mode: bool = True) -> "RatingFit":
        """See ``AnswerLoss.train``."""
        super().train(mode)
        self._answers.train(mode)
        return self

    def forward(self, inputs: Sequence[Tensor], target: Tensor, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Expectation over the level words [B], and the cross entropy of the answers."""
        pixels, crops = inputs
        levels = self.model.feature_maps(pixels)
        maps = [[level[row] for level in levels] for row in range(len(pixels))]
        masks = torch.ones((len(pixels), *pixels.shape[-2:]), dtype=torch.bool, device=pixels.device)
        pairs = [instructions(RegionLabels(quality=value))[0] for value in target.clamp(0, 1).tolist()]
        batch = RegionBatch(maps, range(len(pixels)), masks, crops, pairs)
        losses, values = self._answers.graded(batch)
        return values, {"answer": (losses * weight).sum() / weight.sum()}


def save_adapters(model: Seagull, adapters: Adapters, folder: Path) -> None:
    """Write the adapters alone in the layout of peft, for its ``PeftModel.from_pretrained`` on the same language model.

    Extractor and projector, which peft knows nothing of, lie beside it as ``non_lora_trainables.safetensors`` under the
    published names.

    Raises:
        PocketiqaError: the model has no adapters.
    """
    if not adapters.lora_rank:
        raise PocketiqaError("this model has no adapters: build it with lora_rank above 0, and fit it")
    config = LoraConfig(
        r=adapters.lora_rank,
        lora_alpha=adapters.lora_alpha,  # type: ignore[arg-type] - a scale, of any number
        lora_dropout=adapters.lora_dropout,
        target_modules=sorted({name.rpartition(".")[2] for name in _bare_linear_layers(model)}),
        exclude_modules=["lm_head"],
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    state = get_peft_model_state_dict(model.language, adapter_name=_ADAPTER)
    others = {
        official_name(name): value
        for name, value in model.state_dict().items()
        if name.startswith(("extractor.", "projector."))
    }
    with staged_folder(folder) as staged:
        config.save_pretrained(str(staged))
        save_file(
            {f"base_model.model.{name}": _plain(value) for name, value in state.items()},
            staged / "adapter_model.safetensors",
        )
        save_file({name: _plain(value) for name, value in others.items()}, staged / "non_lora_trainables.safetensors")


def _bare_linear_layers(model: Seagull) -> list[str]:
    return [name for name, layer in model.language.model.named_modules() if isinstance(layer, BaseTunerLayer)]


def merged_weight(layer: BaseTunerLayer) -> Tensor:
    """A linear layer's weight with its adapter added, in the type of the weight; the layer stays as it is."""
    linear: Any = layer  # of peft's classes, those of linear layers have these methods
    weight: Tensor = linear.get_base_layer().weight.detach()
    return (weight.float() + linear.get_delta_weight(_ADAPTER).detach().float()).to(weight.dtype)


def export_merged(model: Seagull, tokens: RegionTokenizer, folder: Path, *, shard_bytes: int = _SHARD_BYTES) -> None:
    """Write the model, adapters merged into the language model, in the layout of the published checkpoint.

    A tensor at a time is merged, so that the model is in memory once, and a shard more.

    Args:
        model: with adapters or without; unchanged.
        tokens: its tokenizer.
        folder: replaced if it is there.
        shard_bytes: most bytes of weights in a file, but for a larger tensor alone.

    Raises:
        PocketiqaError: the weights are packed in 8 or 4 bits.
        StorageFullError: the disk is full; an earlier folder is untouched.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)}
    entries: list[tuple[str, Tensor | BaseTunerLayer]] = []
    for name, value in model.state_dict().items():
        if ".lora_" in name:
            continue
        owner, _, leaf = name.rpartition(".")
        bare = owner.removesuffix(".base_layer")
        if not value.is_floating_point():
            raise PocketiqaError(f"{name} is {value.dtype}: build the teacher with load_bits=16 to export it")
        merged = layers.get(bare) if leaf == "weight" else None
        entries.append((official_name(f"{bare}.{leaf}"), merged if merged is not None else value))
    parts = _parts(entries, shard_bytes)
    with staged_folder(folder) as staged:
        weight_map: dict[str, str] = {}
        for number, part in enumerate(parts, start=1):
            file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
            tensors = {
                name: _plain(merged_weight(value) if isinstance(value, BaseTunerLayer) else value)
                for name, value in part
            }
            save_file(tensors, staged / file, {"format": "pt"})
            weight_map |= dict.fromkeys(tensors, file)
        write_atomic(
            staged / "model.safetensors.index.json", canonical_json({"metadata": {}, "weight_map": weight_map})
        )
        config: Mapping[str, Any] = model.language.config.to_dict()
        write_atomic(
            staged / "config.json",
            canonical_json({**config, "model_type": MODEL_TYPE, "architectures": ["SeagullLlamaForCausalLM"]}),
        )
        tokens.tokenizer.save_pretrained(staged)


def _parts(
    entries: Sequence[tuple[str, Tensor | BaseTunerLayer]], most: int
) -> list[list[tuple[str, Tensor | BaseTunerLayer]]]:
    """Entries in files of at most so many bytes."""
    parts: list[list[tuple[str, Tensor | BaseTunerLayer]]] = []
    room = 0
    for name, value in entries:
        weight = value.get_base_layer().weight if isinstance(value, BaseTunerLayer) else value
        size = weight.numel() * weight.element_size()  # type: ignore[operator,union-attr]
        if not parts or size > room:
            parts.append([])
            room = most
        parts[-1].append((name, value))
        room -= size
    return parts


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous()
