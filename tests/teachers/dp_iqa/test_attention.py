import copy
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

from teachers.dp_iqa.attention import SharedContextAttention, share_context
from teachers.dp_iqa.variants import VARIANTS, build_unet


def attend(processor: Any, tokens: Tensor, context: Tensor) -> Tensor:
    torch.manual_seed(1)
    attention = Attention(query_dim=12, cross_attention_dim=10, heads=3, dim_head=4, processor=processor)
    return attention(tokens, encoder_hidden_states=context)


def test_one_context_for_all_images_is_attended_to_as_by_diffusers():
    tokens, context = torch.randn(4, 7, 12), torch.randn(1, 9, 10)
    expected = attend(AttnProcessor2_0(), tokens, context.repeat(4, 1, 1))
    torch.testing.assert_close(attend(SharedContextAttention(), tokens, context), expected)


def test_a_context_for_each_image_is_attended_to_as_by_diffusers():
    tokens, context = torch.randn(4, 7, 12), torch.randn(4, 9, 10)
    expected = attend(AttnProcessor2_0(), tokens, context)
    torch.testing.assert_close(attend(SharedContextAttention(), tokens, context), expected)
    assert (expected - attend(AttnProcessor2_0(), tokens, context.flip(0))).abs().max() > 1e-3


def test_a_unet_that_shares_its_context_gives_what_it_gave_before():
    torch.manual_seed(2)
    before = build_unet(VARIANTS["tiny"].unet).eval()
    after = copy.deepcopy(before)
    share_context(after)
    latents, context = torch.randn(3, 4, 8, 8), torch.randn(1, 20, 32)
    with torch.no_grad():
        expected = before(latents, 1, encoder_hidden_states=context.repeat(3, 1, 1)).sample
        found = after(latents, 1, encoder_hidden_states=context).sample
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
