"""Every argument of everything in `nnet`, replaced by what it is not: taken, or refused in the house's form, never by Python or NumPy."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import numpy as np
import pytest

from convc import dsl, nnet
from convc.errors import DTypeError, ShapeError
from tests.frontend.odd_arguments import ODD, complaints_about


def _x(*shape: int) -> dsl.Tensor:
    return dsl.input("x", shape)


def _w(*shape: int) -> np.ndarray:
    return np.ones(shape)


# Theano's own words belong among what an argument may be by mistake, and shapes of another rank.
THEANOS: Final[list[Any]] = [
    *ODD, "valid", "half", "max", "float64", (None, None), ((1,), (2,)), ((1, 2), (3, 4)), ((1, 2, 3), 1), (1.5, 1.5), (10**9, 10**9), 2**70,
    (1, 4, 8, 8), tuple(range(1, 8)), lambda: 1,
]  # fmt: skip

_X2, _X3 = {"input": _x(1, 4, 8, 8)}, {"input": _x(1, 4, 5, 5, 5)}
_W2, _W3 = {"filters": _w(4, 4, 3, 3)}, {"filters": _w(4, 4, 3, 3, 3)}
_TOP2, _TOP3 = {"output_grad": _x(1, 4, 6, 6)}, {"output_grad": _x(1, 4, 3, 3, 3)}
_GEOMETRY: Final[dict[str, Any]] = {"border_mode": "valid", "subsample": (1, 1)}
_SHAPES = {"image_shape": (1, 4, 8, 8), "kernel_shape": (4, 4, 3, 3), "top_shape": (1, 4, 6, 6)}
_AXIS: Final[dict[str, Any]] = {"image_shape": 8, "kernel_shape": 3, "top_shape": 6}
_DNN2: Final[dict[str, Any]] = {"img": _x(1, 4, 8, 8), "kerns": _w(4, 4, 3, 3), "topgrad": _x(1, 4, 6, 6), "img_shp": (1, 4, 8, 8), "kerns_shp": (4, 4, 3, 3)}  # fmt: skip
_DNN3: Final[dict[str, Any]] = {"img": _x(1, 4, 5, 5, 5), "kerns": _w(4, 4, 3, 3, 3), "topgrad": _x(1, 4, 3, 3, 3), "img_shp": (1, 4, 5, 5, 5), "kerns_shp": (4, 4, 3, 3, 3)}  # fmt: skip
_CORR2 = {"img": _x(1, 4, 8, 8), "kern": _w(4, 4, 3, 3), "topgrad": _x(1, 4, 6, 6)}
_CORR3 = {"img": _x(1, 4, 5, 5, 5), "kern": _w(4, 4, 3, 3, 3), "topgrad": _x(1, 4, 3, 3, 3)}
_ACTS: Final[dict[str, Any]] = {"images": _x(4, 8, 8, 1), "filters": _w(4, 3, 3, 4), "hid_grads": _x(4, 6, 6, 1)}  # fmt: skip
_RCT: Final[dict[str, Any]] = {"V": _x(1, 5, 5, 5, 2), "W": _w(3, 2, 2, 2, 2), "d": (1, 1, 1), "dCdH": _x(1, 4, 4, 4, 3)}  # fmt: skip


def _flops(inp: Any, outp: Any) -> int:
    return nnet.AbstractConv2d().flops(inp, outp)


def _out_shape(ishape: Any, kshape: Any, border_mode: Any, subsample: Any) -> object:
    return nnet.GpuDnnConvDesc.get_out_shape(ishape, kshape, border_mode, subsample)


# Every function, and arguments that it takes; those it has no parameter for are left out.
FUNCTIONS: Final[dict[Callable[..., object], dict[str, Any]]] = {
    nnet.conv2d: _X2 | _W2,
    nnet.conv3d: _X3 | _W3,
    nnet.conv2d_transpose: {"input": _x(1, 4, 6, 6), "output_shape": (1, 4, 8, 8)} | _W2,
    nnet.conv3d_transpose: {"input": _x(1, 4, 3, 3, 3), "output_shape": (1, 4, 5, 5, 5)} | _W3,
    nnet.conv2d_grad_wrt_inputs: _TOP2 | _W2 | {"input_shape": (1, 4, 8, 8)},
    nnet.conv3d_grad_wrt_inputs: _TOP3 | _W3 | {"input_shape": (1, 4, 5, 5, 5)},
    nnet.conv2d_grad_wrt_weights: _X2 | _TOP2 | {"filter_shape": (4, 4, 3, 3)},
    nnet.conv3d_grad_wrt_weights: _X3 | _TOP3 | {"filter_shape": (4, 4, 3, 3, 3)},
    nnet.separable_conv2d: _X2 | {"depthwise_filters": _w(4, 1, 3, 3), "pointwise_filters": _w(2, 4, 1, 1), "num_channels": 4},
    nnet.separable_conv3d: _X3 | {"depthwise_filters": _w(4, 1, 3, 3, 3), "pointwise_filters": _w(2, 4, 1, 1, 1), "num_channels": 4},
    nnet.causal_conv1d: {"input": _x(1, 4, 8), "filters": _w(4, 4, 3), "filter_shape": (4, 4, 3)},
    nnet.conv.conv2d: _X2 | _W2,
    nnet.conv2d_fft: _X2 | _W2,
    nnet.conv3d_fft: _X3 | _W3,
    nnet.conv3d2d.conv3d: {"signals": _x(1, 5, 4, 6, 6), "filters": _w(3, 2, 4, 3, 3)},
    nnet.signal.conv2d: {"input": _x(2, 8, 8), "filters": _w(3, 3)},
    nnet.conv3D: _RCT | {"b": np.zeros(3)},
    nnet.convTransp3D: _RCT | {"b": np.zeros(2), "H": _x(1, 4, 4, 4, 3)},
    nnet.convGrad3D: _RCT | {"WShape": (3, 2, 2, 2, 2)},
    nnet.dnn_conv: _DNN2,
    nnet.dnn_gradinput: _DNN2,
    nnet.dnn_gradweight: _DNN2,
    nnet.dnn_conv3d: _DNN3,
    nnet.dnn_gradinput3d: _DNN3,
    nnet.dnn_gradweight3d: _DNN3,
    nnet.dnn_pool: _DNN2 | {"ws": (2, 2)},
    nnet.pool_2d: _X2 | {"ws": (2, 2), "ignore_border": True},
    nnet.pool_3d: _X3 | {"ws": (2, 2, 2), "ignore_border": True},
    nnet.max_pool_2d_same_size: _X2 | {"patch_size": (2, 2)},
    nnet.softmax: {"c": _x(3, 4)},
    nnet.logsoftmax: {"c": _x(3, 4)},
    nnet.bilinear_kernel_1D: {"ratio": 2},
    nnet.bilinear_kernel_2D: {"ratio": 2},
    nnet.bilinear_upsampling: _X2 | {"ratio": 2},
    nnet.frac_bilinear_upsampling: _X2 | {"frac_ratio": (3, 2)},
    nnet.border_mode_to_pad: {"mode": "half", "convdim": 2, "kshp": (3, 3)},
    nnet.assert_shape: {"x": _x(1, 2), "expected_shape": (1, None)},
    nnet.assert_conv_shape: {"shape": (1, 2, 3)},
    nnet.check_conv_gradinputs_shape: _SHAPES | {"output_shape": (1, 4, 6, 6)} | _GEOMETRY,
    nnet.get_conv_output_shape: _SHAPES | _GEOMETRY,
    nnet.get_conv_gradinputs_shape: _SHAPES | _GEOMETRY,
    nnet.get_conv_gradweights_shape: _SHAPES | _GEOMETRY,
    nnet.get_conv_shape_1axis: {**_AXIS, "border_mode": "valid", "subsample": 1},
    nnet.get_conv_gradinputs_shape_1axis: {**_AXIS, "border_mode": "valid", "subsample": 1, "dilation": 1},
    nnet.get_conv_gradweights_shape_1axis: {**_AXIS, "border_mode": "valid", "subsample": 1, "dilation": 1},
    _flops: {"inp": [(1, 4, 8, 8), (4, 4, 3, 3)], "outp": [(1, 4, 6, 6)]},
    _out_shape: {"ishape": (1, 4, 8, 8), "kshape": (4, 4, 3, 3)} | _GEOMETRY,
}  # fmt: skip

_DESC: Final[dict[str, Any]] = {"desc": nnet.GpuDnnConvDesc("valid"), "alpha": 0.5, "beta": 2.0}

# Every class: what it is made with beside its defaults, and what it is then called with.
CLASSES: Final[dict[type, tuple[dict[str, Any], dict[str, Any]]]] = {
    nnet.AbstractConv2d: ({}, _CORR2),
    nnet.AbstractConv2d_gradInputs: ({}, _CORR2 | {"shape": (8, 8)}),
    nnet.AbstractConv2d_gradWeights: ({}, _CORR2 | {"shape": (3, 3)}),
    nnet.AbstractConv3d: ({}, _CORR3),
    nnet.AbstractConv3d_gradInputs: ({}, _CORR3 | {"shape": (5, 5, 5)}),
    nnet.AbstractConv3d_gradWeights: ({}, _CORR3 | {"shape": (3, 3, 3)}),
    nnet.CorrMM: ({}, _CORR2),
    nnet.CorrMM_gradInputs: ({}, _CORR2),
    nnet.CorrMM_gradWeights: ({}, _CORR2),
    nnet.Corr3dMM: ({}, _CORR3),
    nnet.Corr3dMM_gradInputs: ({}, _CORR3),
    nnet.Corr3dMM_gradWeights: ({}, _CORR3),
    nnet.FilterActs: ({}, _ACTS),
    nnet.ImageActs: ({}, _ACTS),
    nnet.WeightActs: ({}, _ACTS | {"output_shape": (3, 3)}),
    nnet.GpuDnnConv: ({}, _CORR2 | {"output": _x(1, 4, 6, 6)} | _DESC),
    nnet.GpuDnnConvGradI: ({}, _CORR2 | {"output": _x(1, 4, 8, 8)} | _DESC),
    nnet.GpuDnnConvGradW: ({}, _CORR2 | {"output": _x(4, 4, 3, 3)} | _DESC),
    nnet.GpuDnnSoftmax: ({}, {"x": _x(1, 4, 2, 2)}),
    nnet.GpuDnnSoftmaxGrad: ({}, {"dy": _x(1, 4, 2, 2), "sm": _x(1, 4, 2, 2)}),
    nnet.Pool: ({}, {"x": _x(1, 4, 8, 8), "ws": (2, 2)}),
}


def _calls() -> dict[str, tuple[Callable[..., object], dict[str, Any]]]:
    """Return every function, every class, made and called in one, and every object's call."""
    found = {f"{f.__module__.split('.')[-1]}.{f.__name__}": (f, given) for f, given in FUNCTIONS.items()}  # fmt: skip
    for made, (arguments, given) in CLASSES.items():
        object_ = made(**arguments)
        taken = {k: v for k, v in given.items() if k in inspect.signature(object_).parameters}
        found[f"{made.__name__}()()"] = object_, taken
        found[made.__name__] = _MadeAndCalled(made, taken), arguments
    found["GpuDnnConvDesc"] = nnet.GpuDnnConvDesc, {"border_mode": "valid"}
    return found


class _MadeAndCalled:
    """A class and its object's call, in one; what it takes is what the class takes."""

    def __init__(self, made: type, taken: dict[str, Any]) -> None:
        self._made, self._taken = made, taken
        self.__signature__ = inspect.signature(made)

    def __call__(self, **arguments: Any) -> object:
        return self._made(**arguments)(**self._taken)


CALLS: Final = _calls()


def test_everything_is_here():
    named = {getattr(nnet, n) for n in nnet.__all__}
    modules = {m for m in named if isinstance(m, ModuleType)}
    named |= {getattr(m, n) for m in modules for n in m.__all__}
    # What the functions of `dnn` share is none of Theano's.
    others = {nnet.GpuDnnConvDesc, nnet.dnn.convolution_of}
    assert named - modules == (FUNCTIONS.keys() | CLASSES.keys() | others) - {_flops, _out_shape}


# Not to say whether borders count is warned about, as in Theano; what NumPy says of a result that is infinite is no fault.
@pytest.mark.filterwarnings("error", "ignore::RuntimeWarning", "ignore:ignore_border")
@pytest.mark.parametrize("call", CALLS)
def test_odd_arguments_are_taken_or_refused_in_form(call):
    function, given = CALLS[call]
    parameters = inspect.signature(function).parameters
    given = {k: v for k, v in given.items() if k in parameters}
    function(**given)
    named = [n for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD]
    assert not [c for a in named for c in complaints_about(function, given, a, THEANOS)]


# ---- what was cut off in silence, or never came to an end -------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nnet.pool_2d(_x(1, 1, 8, 8), 4, True, pad=(1.9, 1.9)), "pad must be whole numbers; got (1.9, 1.9)."),
        (lambda: nnet.CorrMM_gradInputs()(_w(4, 4, 3, 3), _x(1, 4, 6, 6), (8.5, 8.5)), "shape must be whole numbers; got (8.5, 8.5)."),
        (lambda: nnet.ImageActs()(_x(4, 6, 6, 1), _w(4, 3, 3, 4), (8.5, 8.5)), "output_shape must be whole numbers; got (8.5, 8.5)."),
        (lambda: nnet.conv2d(**_X2, **_W2, filter_flip="no"), "filter_flip must be True or False; got 'no'."),
    ],
)  # fmt: skip
def test_nothing_is_cut_off(build, message):
    with pytest.raises(DTypeError) as caught:
        build()
    assert str(caught.value) == message


@pytest.mark.parametrize("ratio", [2**70, 5462])
def test_ratios_whose_filters_no_memory_holds(ratio):
    with pytest.raises(ShapeError, match="ratio must need at most 268435456 taps"):
        nnet.bilinear_upsampling(_x(1, 1, 1, 1), ratio)
    with pytest.raises(ShapeError, match="ratio must need at most 268435456 taps"):
        nnet.frac_bilinear_upsampling(_x(1, 1, 1, 1), (ratio + 1, ratio))


def test_none_is_an_extent_a_stride_and_a_dilation_that_is_not_known():
    image, kernel = (1, 4, 8, 8), (4, 4, 3, 3)
    found = nnet.get_conv_output_shape(image, kernel, "valid", (None, 1), (1, None))
    assert found == (1, 4, None, None)
    assert nnet.get_conv_gradinputs_shape(kernel, image, "valid", (None, 1))[2:] == (None, 10)
    assert nnet.get_conv_gradweights_shape_1axis(8, 6, "valid", 1, None) is None
