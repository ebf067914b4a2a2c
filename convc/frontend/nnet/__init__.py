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

from convc.frontend.nnet import (
    conv,
    conv3d2d,
    dnn,
    signal,
)
from convc.frontend.nnet.abstract_conv import (
    AbstractConv2d,
    AbstractConv2d_gradInputs,
    AbstractConv2d_gradWeights,
    AbstractConv3d,
    AbstractConv3d_gradInputs,
    AbstractConv3d_gradWeights,
)
from convc.frontend.nnet.composed import (
    causal_conv1d,
    separable_conv2d,
    separable_conv3d,
)
from convc.frontend.nnet.conv3d_rct import (
    conv3D,
    convGrad3D,
    convTransp3D,
)
from convc.frontend.nnet.conv_gradients import (
    conv2d_grad_wrt_inputs,
    conv2d_grad_wrt_weights,
    conv2d_transpose,
    conv3d_grad_wrt_inputs,
    conv3d_grad_wrt_weights,
    conv3d_transpose,
)
from convc.frontend.nnet.conv_layers import (
    conv2d,
    conv3d,
)
from convc.frontend.nnet.corr import (
    Corr3dMM,
    Corr3dMM_gradInputs,
    Corr3dMM_gradWeights,
    CorrMM,
    CorrMM_gradInputs,
    CorrMM_gradWeights,
    GpuCorr3dMM,
    GpuCorr3dMM_gradInputs,
    GpuCorr3dMM_gradWeights,
    GpuCorrMM,
    GpuCorrMM_gradInputs,
    GpuCorrMM_gradWeights,
)
from convc.frontend.nnet.cuda_convnet import (
    FilterActs,
    ImageActs,
    WeightActs,
)
from convc.frontend.nnet.dnn import (
    dnn_conv,
    dnn_conv3d,
    dnn_gradinput,
    dnn_gradinput3d,
    dnn_gradweight,
    dnn_gradweight3d,
    dnn_pool,
)
from convc.frontend.nnet.dnn_ops import (
    GpuDnnConv,
    GpuDnnConvDesc,
    GpuDnnConvGradI,
    GpuDnnConvGradW,
)
from convc.frontend.nnet.fft import (
    conv2d_fft,
    conv3d_fft,
)
from convc.frontend.nnet.geometry import (
    border_mode_to_pad,
)
from convc.frontend.nnet.pool import (
    Pool,
    max_pool_2d_same_size,
    pool_2d,
    pool_3d,
)
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
from convc.frontend.nnet.softmax import (
    GpuDnnSoftmax,
    GpuDnnSoftmaxGrad,
    logsoftmax,
    softmax,
)
from convc.frontend.nnet.upsampling import (
    bilinear_kernel_1D,
    bilinear_kernel_2D,
    bilinear_upsampling,
    frac_bilinear_upsampling,
)

__all__ = [
    "AbstractConv2d",
    "AbstractConv2d_gradInputs",
    "AbstractConv2d_gradWeights",
    "AbstractConv3d",
    "AbstractConv3d_gradInputs",
    "AbstractConv3d_gradWeights",
    "Corr3dMM",
    "Corr3dMM_gradInputs",
    "Corr3dMM_gradWeights",
    "CorrMM",
    "CorrMM_gradInputs",
    "CorrMM_gradWeights",
    "FilterActs",
    "GpuCorr3dMM",
    "GpuCorr3dMM_gradInputs",
    "GpuCorr3dMM_gradWeights",
    "GpuCorrMM",
    "GpuCorrMM_gradInputs",
    "GpuCorrMM_gradWeights",
    "GpuDnnConv",
    "GpuDnnConvDesc",
    "GpuDnnConvGradI",
    "GpuDnnConvGradW",
    "GpuDnnSoftmax",
    "GpuDnnSoftmaxGrad",
    "ImageActs",
    "Pool",
    "WeightActs",
    "assert_conv_shape",
    "assert_shape",
    "bilinear_kernel_1D",
    "bilinear_kernel_2D",
    "bilinear_upsampling",
    "border_mode_to_pad",
    "causal_conv1d",
    "check_conv_gradinputs_shape",
    "conv",
    "conv2d",
    "conv2d_fft",
    "conv2d_grad_wrt_inputs",
    "conv2d_grad_wrt_weights",
    "conv2d_transpose",
    "conv3D",
    "conv3d",
    "conv3d2d",
    "conv3d_fft",
    "conv3d_grad_wrt_inputs",
    "conv3d_grad_wrt_weights",
    "conv3d_transpose",
    "convGrad3D",
    "convTransp3D",
    "dnn",
    "dnn_conv",
    "dnn_conv3d",
    "dnn_gradinput",
    "dnn_gradinput3d",
    "dnn_gradweight",
    "dnn_gradweight3d",
    "dnn_pool",
    "frac_bilinear_upsampling",
    "get_conv_gradinputs_shape",
    "get_conv_gradinputs_shape_1axis",
    "get_conv_gradweights_shape",
    "get_conv_gradweights_shape_1axis",
    "get_conv_output_shape",
    "get_conv_shape_1axis",
    "logsoftmax",
    "max_pool_2d_same_size",
    "pool_2d",
    "pool_3d",
    "separable_conv2d",
    "separable_conv3d",
    "signal",
    "softmax",
]
