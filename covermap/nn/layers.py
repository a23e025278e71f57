"""Convolution blocks that backbones and decoders share."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval


def conv_norm(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution without bias, then batch norm; size is kept (divided by the stride)."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3 x 3 convolutions with norm and ReLU."""
    return nn.Sequential(
        conv_norm(inputs, outputs), nn.ReLU(inplace=True), conv_norm(outputs, outputs), nn.ReLU(inplace=True)
    )


def conv_relu(inputs: int, outputs: int, *, kernel: int = 3, dilation: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(*conv_norm(inputs, outputs, kernel=kernel, dilation=dilation), nn.ReLU(inplace=True))


def enlarge(x: Tensor, to: Tensor | tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """(B, C, h, w) -> (B, C, H, W) of a given size or that of another map, bilinear."""
    size = (to.shape[-2], to.shape[-1]) if isinstance(to, Tensor) else to
    if (x.shape[-2], x.shape[-1]) == size:
        return x
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def nearest_stride(strides: Sequence[float], wanted: float) -> int:
    """Position of the stride that is nearest, by ratio; the last of equals."""
    ratios = [max(stride / wanted, wanted / stride) for stride in strides]
    return len(ratios) - 1 - ratios[::-1].index(min(ratios))


class LenientNorm(nn.BatchNorm2d):
    """Batch norm that takes its running numbers where a batch holds one value a channel, which has no variance."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        if self.training and x.numel() == x.shape[1]:
            return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each place."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def channels_last(network: nn.Module) -> nn.Module:
    """The network with the kernels of its two-dimensional convolutions in the order that is fastest for pictures."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def fold_norms(network: nn.Module) -> nn.Module:
    """A copy for inference: batch norms that follow a convolution in a Sequential become part of its weights.

    A network without batch norms is given back as it is, in evaluation mode.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network.eval()
    folded = copy.deepcopy(network).eval()
    for chain in [module for module in folded.modules() if isinstance(module, nn.Sequential)]:
        for i, (first, second) in enumerate(pairwise(list(chain))):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                chain[i], chain[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return folded


class Residual(nn.Module):
    """Basic residual block; with a stride the shortcut averages first (ResNet-D, He et al. 2019)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.first = conv_norm(inputs, outputs, stride=stride)
        self.second = conv_norm(outputs, outputs)
        shortcut: list[nn.Module] = [nn.AvgPool2d(stride)] if stride > 1 else []
        if inputs != outputs:
            shortcut.append(conv_norm(inputs, outputs, kernel=1))
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        y = self.second(functional.relu(self.first(x)))
        return functional.relu(y + self.shortcut(x))
