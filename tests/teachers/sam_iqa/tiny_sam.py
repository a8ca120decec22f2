"""A tiny SAM with random weights, and its checkpoint in the form of the official files."""

from pathlib import Path

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from teachers.sam_iqa.variants import VARIANTS, build_vit


def random_vit(seed: int = 0) -> ImageEncoderViT:
    """The tiny encoder; its position embeddings, zero in a new one, are random too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vit = build_vit(VARIANTS["tiny"])
        for name, parameter in vit.named_parameters():
            if "pos" in name:
                torch.nn.init.normal_(parameter, std=0.5)
    return vit.eval()


def save_sam(path: Path, seed: int = 0) -> Path:
    """A whole SAM around the tiny encoder, saved as the official files are."""
    width, grid, side = 32, 16, 128
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prompts = PromptEncoder(width, (grid, grid), (side, side), 4)
        masks = MaskDecoder(transformer_dim=width, transformer=TwoWayTransformer(1, width, 2, 16))
    torch.save(Sam(random_vit(seed), prompts, masks).state_dict(), path)
    return path
