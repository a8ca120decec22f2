import copy

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from students.padding import EvenSameConv2d, use_even_same


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("dilation", [1, 2])
def test_sizes_that_the_stride_divides_agree_with_timm(kernel: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    original = nn.Sequential(Conv2dSame(4, 6, kernel, stride, dilation=dilation, groups=2, bias=kernel == 3))
    ours = copy.deepcopy(original)
    use_even_same(ours)
    assert isinstance(ours[0], EvenSameConv2d)
    assert ours.state_dict().keys() == original.state_dict().keys()
    x = torch.randn(2, 4, 16, 24)
    torch.testing.assert_close(ours(x), original(x))


def test_odd_sizes_lose_no_pixel() -> None:
    same = Conv2dSame(1, 1, 3, 2, bias=False)
    same.load_state_dict({"weight": torch.ones(1, 1, 3, 3)})
    conv = nn.Sequential(same)
    use_even_same(conv)
    x = torch.ones(1, 1, 65, 97, requires_grad=True)
    found = conv(x)
    assert found.shape == (1, 1, 32, 48)
    found.sum().backward()
    assert x.grad is not None
    assert float(x.grad.min()) >= 1


def test_other_layers_stay() -> None:
    block = nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.Sequential(nn.ReLU()))
    before = list(block.modules())
    use_even_same(block)
    assert list(block.modules()) == before
