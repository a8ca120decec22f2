import torch

from teachers.dp_iqa.adapters import TextAdapter, build_image_adapter


def test_text_adapter_adds_little_at_first_and_what_gamma_says_later():
    torch.manual_seed(0)
    adapter = TextAdapter(6, 6)
    features = torch.randn(5, 6)
    assert torch.all(adapter.gamma == 1e-4)
    first, second = (layer for layer in adapter.layers if isinstance(layer, torch.nn.Linear))
    inner = features @ first.weight.T + first.bias
    inner = 0.5 * inner * (1 + torch.erf(inner / 2**0.5))  # GELU in closed form
    change = inner @ second.weight.T + second.bias
    torch.testing.assert_close(adapter(features), features + 1e-4 * change)
    with torch.no_grad():
        adapter.gamma.copy_(torch.arange(6.0))
    torch.testing.assert_close(adapter(features), features + torch.arange(6.0) * change)


def test_text_adapter_leads_to_another_width_by_a_linear_map():
    adapter = TextAdapter(6, 10)
    with torch.no_grad():
        adapter.gamma.zero_()
    features = torch.randn(5, 6)
    context = adapter(features)
    assert tuple(context.shape) == (5, 10)
    torch.testing.assert_close(adapter(3 * features), 3 * context)


def test_image_adapter_has_a_residual_for_each_down_block():
    adapter = build_image_adapter((8, 16, 24, 24), downscale=8)
    residuals = adapter(torch.rand(2, 3, 128, 64))
    assert [tuple(residual.shape) for residual in residuals] == [
        (2, 8, 16, 8),
        (2, 16, 8, 4),
        (2, 24, 4, 2),
        (2, 24, 2, 1),
    ]
