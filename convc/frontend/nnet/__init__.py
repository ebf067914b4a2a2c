"""Theano's and Aesara's convolution modules, by their names, argument names and exact meaning.

Everything here takes and returns the DSL's tensors. Two habits differ: shapes that are declared are always checked, and integers are
refused instead of failing later.

Example:
    >>> import numpy as np
    >>> from convc import dsl, nnet
    >>> x = dsl.input("x", (1, 3, 8, 8))
    >>> nnet.conv2d(x, np.ones((4, 3, 3, 3)), border_mode="half").shape
    (1, 4, 8, 8)
"""

from convc.frontend.nnet.conv_gradients import (
    conv2d_grad_wrt_inputs,
    conv2d_grad_wrt_weights,
    conv2d_transpose,
    conv3d_grad_wrt_inputs,
    conv3d_grad_wrt_weights,
    conv3d_transpose,
)
from convc.frontend.nnet.conv_layers import conv2d, conv3d
from convc.frontend.nnet.geometry import border_mode_to_pad
from convc.frontend.nnet.shapes import (
    assert_conv_shape,
    assert_shape,
    check_conv_gradinputs_shape,
    get_conv_gradinputs_shape,
    get_conv_gradinputs_shape_1axis,
    get_conv_gradweights_shape,
    get_conv_gradweights_shape_1axis,
    get_conv_output_shape,
    get_conv_shape_1axis,
)

__all__ = [
    "assert_conv_shape",
    "assert_shape",
    "border_mode_to_pad",
    "check_conv_gradinputs_shape",
    "conv2d",
    "conv2d_grad_wrt_inputs",
    "conv2d_grad_wrt_weights",
    "conv2d_transpose",
    "conv3d",
    "conv3d_grad_wrt_inputs",
    "conv3d_grad_wrt_weights",
    "conv3d_transpose",
    "get_conv_gradinputs_shape",
    "get_conv_gradinputs_shape_1axis",
    "get_conv_gradweights_shape",
    "get_conv_gradweights_shape_1axis",
    "get_conv_output_shape",
    "get_conv_shape_1axis",
]
