"""CONV_GRID: the convolutions that every algorithm is tested on, in groups, each row with the reason it is there.

tiny    every field of ConvSpec varied alone, from one small convolution
edges   where code for tiles, blocks, borders and groups goes wrong
nets    layers of known networks, scaled down in H and W (and K), with their own channels, filters, strides and pads
large   the same layers at full size; only under the `slow` marker
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from convc.ir import ConvSpec

__all__ = ["CONV_GRID", "LARGE_GRID", "Row"]


@dataclass(frozen=True, slots=True)
class Row:
    """One convolution and why it is in the grid."""

    group: str
    reason: str
    spec: ConvSpec

    @property
    def id(self) -> str:
        return f"{self.group}:{self.spec.key}"


def _pads(rank: int, pads: int | tuple[int, ...]) -> tuple[int, ...]:
    return (pads,) * (2 * rank) if isinstance(pads, int) else pads


def _conv(c, k, extents, kernel, *, n=1, s=1, p=0, d=1, g=1, transposed=False, op=0) -> ConvSpec:
    """Return the convolution of C channels to K; whole numbers mean the same on every spatial axis."""
    rank = len(extents)

    def each(value):
        return (value,) * rank if isinstance(value, int) else value

    first, second = (c, k // g) if transposed else (k, c // g)
    return ConvSpec.of(
        (n, c, *extents),
        (first, second, *each(kernel)),
        strides=each(s),
        pads=_pads(rank, p),
        dilations=each(d),
        group=g,
        transposed=transposed,
        output_padding=each(op) if transposed else (),
    )


def _transposed(c, k, extents, kernel, **fields) -> ConvSpec:
    return _conv(c, k, extents, kernel, transposed=True, **fields)


_TINY = (
    ("the starting point", _conv(4, 8, (6, 6), 3)),
    ("batch", _conv(4, 8, (6, 6), 3, n=2)),
    ("one input channel", _conv(1, 8, (6, 6), 3)),
    ("one output channel", _conv(4, 1, (6, 6), 3)),
    ("height", _conv(4, 8, (9, 6), 3)),
    ("width", _conv(4, 8, (6, 9), 3)),
    ("filter of one tap", _conv(4, 8, (6, 6), 1)),
    ("filter of two taps", _conv(4, 8, (6, 6), 2)),
    ("filter as large as the data", _conv(4, 8, (6, 6), 6)),
    ("strides", _conv(4, 8, (7, 7), 3, s=2)),
    ("pads", _conv(4, 8, (6, 6), 3, p=1)),
    ("dilations", _conv(4, 8, (6, 6), 3, d=2)),
    ("group", _conv(4, 8, (6, 6), 3, g=2)),
    ("transposed", _transposed(4, 8, (4, 4), 3)),
    ("one spatial axis", _conv(4, 8, (9,), 3)),
    ("three spatial axes", _conv(4, 8, (4, 4, 4), 3)),
)

# Every remainder that matters to blocks of 4, 8 and 16: none, one, one less, half, half and one.
_CHANNELS = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 24, 31, 33, 40)

_EDGES = (
    *(
        (f"C = {c}: the last block of input channels", _conv(c, 6, (5, 5), 3, p=1))
        for c in _CHANNELS
    ),
    *(
        (f"K = {k}: the last block of output channels", _conv(6, k, (5, 5), 3, p=1))
        for k in _CHANNELS
    ),
    ("K = 72: more blocks than one register tile holds, and one left over", _conv(5, 72, (3, 15), 1)),
    ("pointwise on one pixel", _conv(17, 9, (1, 1), 1)),
    ("pointwise with a stride", _conv(8, 8, (7, 8), 1, s=2)),
    ("pointwise with padding: a border of biases", _conv(8, 8, (3, 3), 1, p=1)),
    ("stride larger than the filter", _conv(5, 8, (11, 11), 2, s=3)),
    ("stride leaves rows and columns unread", _conv(5, 8, (10, 9), 3, s=4)),
    ("strides that differ", _conv(5, 8, (9, 9), 3, s=(1, 3))),
    ("pad as wide as the filter", _conv(5, 8, (4, 4), 3, p=3)),
    ("pad wider than the filter: whole rows of zeros", _conv(5, 8, (2, 2), 2, p=4)),
    ("pads that all differ", _conv(5, 8, (6, 7), 3, p=(0, 1, 2, 3))),
    ("padding before the data alone", _conv(5, 8, (6, 6), 3, p=(2, 2, 0, 0))),
    ("padding behind the data alone", _conv(5, 8, (6, 6), 3, p=(0, 0, 2, 2))),
    ("padding that the strides skip", _conv(5, 8, (6, 6), 3, s=2, p=(1, 1, 2, 2))),
    ("dilations that differ", _conv(5, 8, (9, 9), 3, d=(3, 2), p=2)),
    ("dilation with a stride", _conv(5, 8, (11, 11), 3, d=2, s=2, p=2)),
    ("dilated filter as large as the padded data", _conv(5, 8, (3, 3), 3, d=2, p=1)),
    ("filter wider than high", _conv(5, 8, (6, 9), (1, 7), p=(0, 3, 0, 3))),
    ("filter higher than wide", _conv(5, 8, (9, 6), (7, 1), p=(3, 0, 3, 0))),
    ("filter of even extent", _conv(5, 8, (7, 7), 4, p=(1, 1, 2, 2))),
    ("filter of 5 taps", _conv(5, 8, (9, 9), 5, p=2)),
    ("P = 1: one row of results", _conv(5, 8, (3, 9), 3)),
    ("Q = 1: one column of results", _conv(5, 8, (9, 3), 3)),
    ("P = Q = 1: one point of results", _conv(5, 8, (3, 3), 3)),
    ("Q = 29: full tiles and a tail", _conv(5, 40, (2, 29), 3, p=1)),
    ("P = 15, Q = 2: tiles of several rows and a tail", _conv(5, 40, (15, 2), 3, p=1)),
    ("batch of 3 with odd channels", _conv(7, 9, (5, 5), 3, n=3, p=1)),
    *(
        (f"depthwise, {c} channels", _conv(c, c, (6, 7), 3, p=1, g=c))
        for c in (3, 8, 16, 17, 24, 40)
    ),
    ("depthwise with a stride", _conv(24, 24, (9, 9), 3, s=2, p=1, g=24)),
    ("depthwise with a dilation", _conv(9, 9, (9, 9), 3, d=2, p=2, g=9)),
    ("depthwise, 5 x 5, asymmetric pads", _conv(9, 9, (9, 8), 5, s=2, p=(1, 1, 2, 2), g=9)),
    ("depthwise, filter larger than the data", _conv(9, 9, (5, 6), 9, p=4, g=9)),
    ("depthwise, filter higher than the data, stride, pads that differ", _conv(17, 17, (4, 9), (7, 3), s=(2, 1), p=(2, 1, 5, 1), g=17)),
    ("depthwise, filter larger than the data, padding on one side", _conv(8, 8, (3, 4), 7, s=(1, 2), p=(4, 0, 5, 4), g=8)),
    ("depthwise, batch of 2, one row", _conv(5, 5, (1, 9), (1, 3), n=2, g=5)),
    ("depthwise, channel multiplier 2", _conv(8, 16, (5, 5), 3, p=1, g=8)),
    ("depthwise, channel multiplier 3, odd channels", _conv(5, 15, (5, 5), 3, p=1, g=5)),
    ("groups of 16 channels", _conv(32, 32, (5, 5), 3, p=1, g=2)),
    ("groups of 16 to 48 channels", _conv(32, 96, (5, 5), 1, g=2)),
    ("groups of 48 channels: three blocks a group", _conv(96, 96, (3, 3), 3, p=1, g=2)),
    ("groups of 32 to 16 channels, stride", _conv(64, 32, (5, 5), 3, s=2, p=1, g=2)),
    ("groups of 8 channels: half a block", _conv(16, 16, (5, 5), 3, p=1, g=2)),
    ("groups of 5 channels", _conv(15, 10, (5, 5), 3, p=1, g=5)),
    ("groups of 4 channels: four in a block", _conv(36, 36, (5, 9), 3, p=1, g=9)),
    ("groups of 4 channels to 8, stride, dilation", _conv(24, 48, (9, 9), 3, s=2, d=2, p=2, g=6)),
    ("groups of 8 channels to 4, pointwise", _conv(32, 16, (3, 5), 1, g=4)),
    ("groups of 12 channels: a vector of results in two groups", _conv(48, 48, (5, 5), 3, p=1, g=4)),
    ("groups of 20 channels to 40", _conv(60, 120, (4, 5), (1, 3), p=(0, 1, 0, 1), g=3)),
    ("1-D, groups of 4 channels", _conv(32, 32, (19,), 5, p=2, g=8)),
    ("1-D, depthwise, stride", _conv(24, 24, (19,), 5, s=2, p=2, g=24)),
    ("3-D, groups of 8 channels", _conv(16, 16, (3, 4, 5), 3, p=1, g=2)),
    ("3-D, depthwise, stride, dilation", _conv(17, 17, (5, 7, 7), 3, s=(1, 2, 2), d=(2, 1, 1), p=(2, 1, 1, 2, 1, 1), g=17)),
    ("3-D, more blocks than one register tile holds", _conv(20, 72, (2, 3, 15), (3, 1, 1), p=(1, 0, 0, 1, 0, 0))),
    ("1-D, stride, dilation, pads", _conv(5, 7, (17,), 3, s=2, d=2, p=(3, 1))),
    ("1-D, groups, batch of 3", _conv(6, 9, (8,), 3, n=3, g=3)),
    ("1-D, one point", _conv(3, 5, (1,), 1)),
    ("3-D, stride, pads that differ", _conv(3, 5, (4, 5, 6), (1, 2, 3), s=(1, 2, 1), p=(0, 1, 2, 1, 0, 1))),
    ("3-D, dilation, groups", _conv(4, 6, (5, 5, 5), 2, d=2, g=2, n=2)),
    *(
        (
            f"transposed, stride {s}, kernel {k}, pad {p}, output padding {op}",
            _transposed(5, 7, (4, 5), k, s=s, p=p, op=op),
        )
        for s, k, p, op in (
            (1, 1, 0, 0),
            (1, 3, 1, 0),
            (1, 4, 2, 0),
            (2, 1, 0, 0),
            (2, 2, 0, 0),
            (2, 3, 1, 1),
            (2, 4, 1, 0),
            (2, 5, 2, 1),
            (3, 1, 0, 2),
            (3, 2, 0, 1),
            (3, 3, 0, 0),
            (3, 4, 1, 1),
            (3, 5, 1, 0),
        )
    ),
    ("few results, stride, dilation", _conv(20, 3, (9, 9), 3, s=2, d=2, p=2)),
    ("few results, batch of 2, pads that differ", _conv(24, 5, (6, 11), (3, 5), n=2, p=(1, 0, 2, 3))),
    ("few results, 1-D", _conv(32, 1, (30,), 5, p=2)),
    ("few results, 3-D, strides that differ", _conv(16, 2, (3, 4, 5), 3, p=1, s=(1, 2, 1))),
    ("few results, transposed, rows of more than a tile", _transposed(20, 3, (3, 31), 4, s=2, p=1)),
    ("few results, transposed, batch of 2, a phase with fewer taps", _transposed(16, 1, (4, 5), 3, n=2, s=2, p=1, op=1)),
    ("few results, transposed, output no multiple of the strides", _transposed(24, 3, (4, 4), 3, s=2)),
    ("few results, transposed, phases without taps", _transposed(16, 7, (4, 5), 3, s=(4, 2), d=(2, 4), p=(1, 2, 0, 1), op=(1, 3))),
    ("few results, transposed 1-D", _transposed(17, 2, (6,), 4, s=2, p=1, op=1)),
    ("few results, transposed 3-D", _transposed(16, 3, (2, 3, 3), 2, s=2)),
    ("transposed, output no multiple of the strides", _transposed(5, 7, (4, 4), 3, s=2)),
    ("transposed, asymmetric pads", _transposed(5, 8, (4, 4), 4, s=2, p=(0, 1, 2, 1))),
    ("transposed, strides and kernels that differ", _transposed(5, 8, (3, 4), (2, 5), s=(1, 2), p=(0, 2, 0, 1))),
    ("transposed, dilation", _transposed(5, 8, (4, 4), 3, s=2, d=2, op=1)),
    ("transposed, groups", _transposed(6, 8, (4, 4), 4, s=2, p=1, g=2)),
    ("transposed depthwise", _transposed(8, 8, (4, 4), 4, s=2, p=1, g=8)),
    ("transposed, one point", _transposed(17, 9, (1, 1), 4, s=2, p=1)),
    ("transposed, one point, stride 1", _transposed(17, 9, (1, 1), 4)),
    ("transposed, a row of one point, crops, output padding", _transposed(5, 8, (1, 3), (5, 3), s=(2, 2), p=(1, 0, 2, 1), op=(1, 0))),
    ("transposed, batch of 3, odd channels", _transposed(17, 33, (3, 3), 2, n=3, s=2)),
    ("transposed, crops more than a stride", _transposed(5, 8, (6, 6), 4, s=2, p=3)),
    ("transposed, dilation and stride with a common factor: phases without taps", _transposed(5, 8, (4, 5), 3, s=(4, 2), d=(2, 4), p=(1, 2, 0, 1), op=(1, 3))),
    ("transposed, groups of 12 channels, no multiple of the strides", _transposed(24, 24, (4, 4), 3, s=2, p=1, g=2)),
    ("transposed 3-D, stride, dilation, groups, odd output", _transposed(6, 4, (2, 3, 4), (1, 2, 3), s=(1, 2, 2), d=(1, 1, 3), p=(0, 0, 1, 0, 1, 0), g=2)),
    ("transposed 1-D, groups, dilation", _transposed(8, 8, (7,), 3, s=3, d=2, g=4, op=1)),
    ("transposed 1-D", _transposed(3, 5, (6,), 4, s=2, p=1, op=1)),
    ("transposed 3-D", _transposed(2, 3, (3, 3, 3), 2, s=2)),
)  # fmt: skip

# (network/layer, scaled down, at full size)
_LAYERS = (
    ("resnet50/conv1 7x7", _conv(3, 64, (23, 23), 7, s=2, p=3), _conv(3, 64, (224, 224), 7, s=2, p=3)),
    ("resnet50/conv2_x 1x1", _conv(64, 64, (7, 7), 1), _conv(64, 256, (56, 56), 1)),
    ("resnet50/conv2_x 3x3", _conv(64, 64, (7, 7), 3, p=1), _conv(64, 64, (56, 56), 3, p=1)),
    ("resnet50/conv3_1 3x3, stride", _conv(32, 64, (14, 14), 3, s=2, p=1), _conv(128, 128, (56, 56), 3, s=2, p=1)),
    ("resnet50/conv5_1 1x1, stride", _conv(64, 128, (7, 7), 1, s=2), _conv(1024, 2048, (14, 14), 1, s=2)),
    ("resnext50/conv3_x 3x3, 32 groups", _conv(128, 128, (7, 7), 3, p=1, g=8), _conv(256, 256, (28, 28), 3, p=1, g=32)),
    ("alexnet/conv1 11x11", _conv(3, 64, (31, 31), 11, s=4, p=2), _conv(3, 64, (224, 224), 11, s=4, p=2)),
    ("alexnet/conv2 5x5, 2 groups", _conv(32, 64, (9, 9), 5, p=2, g=2), _conv(96, 256, (27, 27), 5, p=2, g=2)),
    ("vgg16/conv3_1 3x3", _conv(32, 64, (8, 8), 3, p=1), _conv(128, 256, (56, 56), 3, p=1)),
    ("squeezenet/fire2 squeeze", _conv(96, 16, (9, 9), 1), _conv(96, 16, (54, 54), 1)),
    ("mobilenet_v2/block 3x3 depthwise", _conv(96, 96, (12, 12), 3, s=2, p=1, g=96), _conv(96, 96, (112, 112), 3, s=2, p=1, g=96)),
    ("mobilenet_v2/project 1x1", _conv(96, 24, (7, 7), 1), _conv(96, 24, (56, 56), 1)),
    ("efficientnet_b0/block 5x5 depthwise", _conv(40, 40, (14, 14), 5, p=2, g=40), _conv(240, 240, (28, 28), 5, p=2, g=240)),
    ("shufflenet_v2/branch 1x1", _conv(58, 58, (7, 7), 1), _conv(58, 58, (28, 28), 1)),
    ("inception_v3/1x7", _conv(32, 48, (9, 17), (1, 7), p=(0, 3, 0, 3)), _conv(128, 192, (17, 17), (1, 7), p=(0, 3, 0, 3))),
    ("deeplab/aspp 3x3, dilation 6", _conv(32, 32, (9, 9), 3, p=6, d=6), _conv(320, 256, (33, 33), 3, p=6, d=6)),
    ("super_resolution/conv4", _conv(32, 9, (14, 14), 3, p=1), _conv(32, 9, (224, 224), 3, p=1)),
    ("dcgan/up 4x4", _transposed(64, 32, (4, 4), 4, s=2, p=1), _transposed(512, 256, (8, 8), 4, s=2, p=1)),
    ("unet/up 2x2", _transposed(64, 32, (7, 7), 2, s=2), _transposed(512, 256, (28, 28), 2, s=2)),
)  # fmt: skip

CONV_GRID: Final = (
    *(Row("tiny", reason, spec) for reason, spec in _TINY),
    *(Row("edges", reason, spec) for reason, spec in _EDGES),
    *(Row("nets", reason, small) for reason, small, _ in _LAYERS),
)
LARGE_GRID: Final = tuple(Row("large", reason, full) for reason, _, full in _LAYERS)
