"""CASES: one operator, its attributes, operands and versions each. Together they reach every converter row."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import ModelProto, helper

from tests.frontend.onnx.onnx_models import NEWEST, make_model

rng = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


Operand = (
    tuple[int, ...] | np.ndarray | None
)  # a shape is a runtime input, an array a constant, None is left out


@dataclass(frozen=True)
class Case:
    """`since` keeps the operator's versions in [first, last]; onnx.reference is wrong in those of `wrong_in_onnx`."""

    op: str
    operands: tuple[Operand, ...]
    attributes: dict = field(default_factory=dict)
    since: tuple[int, int] = (1, 99)
    outputs: int = 1
    name: str = ""
    wrong_in_onnx: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        text = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.op}[{self.name or text}]"

    def model(self, opset: int, dtype: type = np.float32) -> ModelProto:
        names = ["" if o is None else f"i{i}" for i, o in enumerate(self.operands)]
        results = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op, names, results, **self.attributes)
        pairs = list(zip(names, self.operands, strict=True))
        return make_model(
            [node],
            {n: o for n, o in pairs if isinstance(o, tuple)},
            results,
            opset=opset,
            constants={n: o for n, o in pairs if isinstance(o, np.ndarray)},
            dtype=dtype,
        )

    def versions(self, known: tuple[int, ...]) -> list[int]:
        return [v for v in known if self.since[0] <= v <= min(self.since[1], NEWEST)]


EVER = (1, 99)
IMAGE = (2, 4, 7, 8)
UNARY = [
    "Relu",
    "Sigmoid",
    "Tanh",
    "Softplus",
    "Softsign",
    "Exp",
    "Erf",
    "Abs",
    "Neg",
    "Floor",
    "Ceil",
    "Sign",
    "Elu",
    "Selu",
    "LeakyRelu",
    "HardSigmoid",
    "HardSwish",
    "Mish",
    "Swish",
    "Gelu",
    "Identity",
    "Reciprocal",
]
BINARY = ("Add", "Sub", "Mul", "Div")

CASES = [
    *(Case(op, ((3, 5),)) for op in UNARY),
    Case("Log", (np.abs(floats(3, 5)) + 0.5,)),
    Case("Sqrt", (np.abs(floats(3, 5)),)),
    Case("Elu", ((3, 5),), {"alpha": 0.3}),
    Case("Selu", ((3, 5),), {"alpha": 1.5, "gamma": 2.0}),
    Case("LeakyRelu", ((3, 5),), {"alpha": 0.2}),
    Case("HardSigmoid", ((3, 5),), {"alpha": 0.3, "beta": 0.4}),
    Case("Swish", ((3, 5),), {"alpha": 1.5}),
    Case("Gelu", ((3, 5),), {"approximate": "tanh"}),
    Case("Clip", ((3, 5),), {"min": -0.5, "max": 1.25}, (6, 6)),
    Case("Clip", ((3, 5),), {"max": 0.25}, (6, 6)),
    Case(
        "Clip",
        ((3, 5), np.array(-0.5, np.float32), np.array(1.0, np.float32)),
        since=(11, 99),
        name="both",
    ),
    Case("Clip", ((3, 5), None, np.array(1.0, np.float32)), since=(11, 99), name="max"),
    Case("Clip", ((3, 5), np.array(-0.5, np.float32)), since=(11, 99), name="min"),
    Case("PRelu", (IMAGE, floats(4, 1, 1)), name="channel"),
    Case("PRelu", (IMAGE, floats(1)), name="scalar"),
    Case("PRelu", (IMAGE, (4, 1, 1)), name="runtime"),
    *(Case(op, (IMAGE, (4, 1, 1)), name="broadcast") for op in BINARY),
    *(Case(op, (IMAGE, floats(1, 4, 1, 1)), name="constant") for op in BINARY),
    Case("Pow", ((3, 5), np.array(2.0, np.float32)), name="square"),
    Case("Pow", ((3, 5), np.array(3)), since=(12, 99), name="integer exponent"),
    *(Case(op, ((3, 5), (3, 5), (3, 5)), name="three") for op in ("Max", "Min", "Sum", "Mean")),
    *(Case(op, ((3, 5),), name="one") for op in ("Max", "Min", "Sum", "Mean")),
    *(
        Case(op, ((3, 5), (5,)), since=(8, 99), name="broadcast")
        for op in ("Max", "Min", "Sum", "Mean")
    ),
    # convolutions
    Case("Conv", (IMAGE, floats(6, 4, 3, 3)), name="plain"),
    Case(
        "Conv",
        (IMAGE, floats(6, 2, 3, 2), floats(6)),
        {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2], "group": 2},
    ),
    Case("Conv", ((1, 3, 9), floats(2, 3, 4)), {"pads": [1, 2]}, name="1d"),
    Case("Conv", ((1, 2, 4, 5, 4), floats(3, 2, 2, 3, 2)), {"strides": [1, 2, 1]}, name="3d"),
    Case("Conv", (IMAGE, floats(6, 4, 3, 2)), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case("Conv", (IMAGE, floats(6, 4, 3, 2)), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    Case("Conv", (IMAGE, floats(6, 4, 3, 2)), {"auto_pad": "VALID"}),
    Case("Conv", (IMAGE, (6, 4, 3, 3), (6,)), name="runtime weight"),
    Case("ConvTranspose", ((1, 3, 4, 5), floats(3, 2, 3, 3)), name="plain"),
    Case(
        "ConvTranspose",
        ((1, 4, 4, 5), floats(4, 3, 3, 2), floats(3)),
        {"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 0]},
    ),
    Case(
        "ConvTranspose",
        ((1, 4, 4, 5), floats(4, 3, 3, 2)),
        {"group": 2, "dilations": [2, 1]},
        wrong_in_onnx=EVER,
    ),
    Case(
        "ConvTranspose",
        ((1, 3, 4, 5), floats(3, 2, 3, 3)),
        {"strides": [2, 2], "output_shape": [7, 9]},
        wrong_in_onnx=EVER,
    ),
    Case(
        "ConvTranspose",
        ((1, 3, 4, 5), floats(3, 2, 3, 3)),
        {"strides": [2, 2], "output_shape": [8, 10]},
        (11, 99),
        wrong_in_onnx=EVER,
    ),
    Case(
        "ConvTranspose",
        ((1, 3, 4, 5), floats(3, 2, 3, 3)),
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        (11, 99),
    ),
    Case(
        "ConvTranspose",
        ((1, 3, 4, 5), floats(3, 2, 3, 3)),
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        (11, 99),
    ),
    # pools
    Case("MaxPool", (IMAGE,), {"kernel_shape": [3, 2]}),
    Case("MaxPool", (IMAGE,), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    Case(
        "MaxPool", (IMAGE,), {"kernel_shape": [3, 3], "strides": [2, 3], "ceil_mode": 1}, (10, 99)
    ),
    Case("MaxPool", (IMAGE,), {"kernel_shape": [2, 2], "dilations": [2, 3]}, (10, 99)),
    Case(
        "MaxPool", (IMAGE,), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}
    ),
    Case(
        "MaxPool",
        (IMAGE,),
        {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
        wrong_in_onnx=EVER,
    ),
    Case("MaxPool", ((2, 3, 9),), {"kernel_shape": [2], "storage_order": 1}, (8, 99)),
    Case("AveragePool", (IMAGE,), {"kernel_shape": [3, 2]}),
    Case(
        "AveragePool", (IMAGE,), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 1]}
    ),
    Case(
        "AveragePool",
        (IMAGE,),
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1},
    ),
    Case(
        "AveragePool",
        (IMAGE,),
        {"kernel_shape": [3, 3], "strides": [2, 3], "ceil_mode": 1},
        (10, 99),
    ),
    Case("AveragePool", (IMAGE,), {"kernel_shape": [2, 2], "dilations": [2, 3]}, (19, 99)),
    Case("AveragePool", (IMAGE,), {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}),
    Case("GlobalAveragePool", (IMAGE,)),
    Case("GlobalMaxPool", (IMAGE,)),
    # normalization
    Case(
        "LRN",
        ((1, 7, 3, 3),),
        {"size": 5, "alpha": 0.5, "beta": 0.6, "bias": 1.5},
        wrong_in_onnx=EVER,
    ),
    Case("LRN", ((1, 7, 3, 3),), {"size": 3}, wrong_in_onnx=EVER),
    Case("InstanceNormalization", (IMAGE, floats(4), floats(4)), {"epsilon": 0.01}),
    Case(
        "BatchNormalization",
        (IMAGE, floats(4), floats(4), floats(4), np.abs(floats(4))),
        {"epsilon": 0.01},
        wrong_in_onnx=(7, 9),
    ),
    Case(
        "BatchNormalization",
        ((3, 4), floats(4), floats(4), floats(4), np.abs(floats(4))),
        name="rank 2",
        wrong_in_onnx=(7, 9),
    ),
    Case(
        "BatchNormalization",
        (IMAGE, (4,), floats(4), (4,), np.abs(floats(4))),
        {"momentum": 0.5},
        name="runtime parameters",
        wrong_in_onnx=(7, 9),
    ),
    Case(
        "BatchNormalization",
        (IMAGE, (4,), floats(4), (4,), np.abs(floats(4))),
        {"training_mode": 1, "epsilon": 0.01, "momentum": 0.75},
        (14, 99),
        outputs=3,
        name="its own statistics",
    ),
    Case(
        "BatchNormalization",
        ((1, 4, 6), floats(4), floats(4), floats(4), np.abs(floats(4))),
        {"training_mode": 1},
        (14, 99),
        name="standardised weights",
    ),
    # matrix products
    Case("Gemm", ((3, 4), floats(4, 5), floats(5)), name="bias row"),
    Case(
        "Gemm",
        ((4, 3), floats(5, 4), floats(1, 5)),
        {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0},
    ),
    Case("Gemm", ((3, 4), (4, 5), (3, 5)), {"alpha": 0.5, "beta": 2.0}, name="all runtime"),
    Case("Gemm", ((3, 4), (4, 5), (5,)), name="runtime bias"),
    Case("Gemm", ((3, 4), floats(4, 5), floats(3, 1)), name="bias column"),
    Case(
        "Gemm",
        ((3, 4), floats(4, 5), np.array(2.5, np.float32).reshape(1)),
        {"beta": 0.5},
        name="bias scalar",
    ),
    Case("Gemm", ((3, 4), floats(4, 5), floats(5)), {"beta": 0.0}, name="no bias"),
    Case("Gemm", ((3, 4), (4, 5)), {"alpha": 0.5}, (11, 99), name="two operands"),
    Case("MatMul", ((3, 4), floats(4, 5)), name="weight"),
    Case("MatMul", ((2, 3, 4), floats(4, 5)), name="batch by weight"),
    Case("MatMul", ((2, 1, 3, 4), (3, 4, 2)), name="batches"),
    Case("MatMul", ((4,), (4, 5)), name="vector left"),
    Case("MatMul", ((2, 3, 4), (4,)), name="vector right"),
    Case("MatMul", ((4,), (4,)), name="vectors"),
    # reductions
    *(
        Case(
            op, (IMAGE,), {"axes": [1, -1], "keepdims": keep}, (1, 12 if op == "ReduceSum" else 17)
        )
        for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
        for keep in (0, 1)
    ),
    *(
        Case(op, (IMAGE, ints(1, -1)), {"keepdims": keep}, (13 if op == "ReduceSum" else 18, 99))
        for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
        for keep in (0, 1)
    ),
    *(
        Case(op, (IMAGE,), {"keepdims": 0}, name="all axes")
        for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
    ),
    *(
        Case(
            op, (IMAGE, ints()), {"noop_with_empty_axes": 1}, (13 if op == "ReduceSum" else 18, 99)
        )
        for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
    ),
    # softmax
    *(
        Case(op, (IMAGE,), {"axis": axis}, (13, 99))
        for op in ("Softmax", "LogSoftmax")
        for axis in (1, -1)
    ),
    *(Case(op, (IMAGE,), since=(13, 99)) for op in ("Softmax", "LogSoftmax")),
    # shapes
    Case("Reshape", (IMAGE, ints(0, -1, 4))),
    Case("Reshape", (IMAGE, ints(-1))),
    Case("Flatten", (IMAGE,)),
    Case("Flatten", (IMAGE,), {"axis": 0}),
    Case("Flatten", (IMAGE,), {"axis": -1}, (11, 99)),
    Case("Squeeze", ((1, 3, 1, 2),), {"axes": [0, 2]}, (1, 11)),
    Case("Squeeze", ((1, 3, 1, 2), ints(0, -2)), since=(13, 99)),
    Case("Squeeze", ((1, 3, 1, 2),)),
    Case("Unsqueeze", ((3, 2),), {"axes": [0, 3]}, (1, 11)),
    Case("Unsqueeze", ((3, 2), ints(3, 0)), since=(13, 99)),
    Case("Unsqueeze", ((3, 2), ints(-1)), since=(13, 99)),
    Case("Transpose", ((2, 3, 4),)),
    Case("Transpose", ((2, 3, 4),), {"perm": [1, 2, 0]}),
    Case("DepthToSpace", ((2, 12, 3, 2),), {"blocksize": 2}),
    Case("DepthToSpace", ((2, 12, 3, 2),), {"blocksize": 2, "mode": "CRD"}, (11, 99)),
    Case("SpaceToDepth", ((2, 3, 4, 6),), {"blocksize": 2}),
    Case("SpaceToDepth", ((2, 3, 4, 6),), {"blocksize": 2, "mode": "CRD"}, (28, 99)),
    Case("Concat", ((2, 3), (2, 1), floats(2, 2)), {"axis": 1}),
    Case("Concat", ((2, 3), (2, 3)), {"axis": -2}, (11, 99)),
    Case("Slice", ((5, 6, 7),), {"starts": [1, -3], "ends": [4, 1000], "axes": [0, 2]}, (1, 1)),
    Case("Slice", ((5, 6, 7),), {"starts": [1, 2], "ends": [-1, 5]}, (1, 1)),
    Case("Slice", ((5, 6, 7), ints(1, -3), ints(4, 1000), ints(0, -1)), since=(10, 99)),
    Case("Slice", ((5, 6, 7), ints(1), ints(-1), None, ints(2)), since=(10, 99), name="step"),
    Case("Slice", ((5, 6, 7), ints(4), ints(2)), since=(10, 99), name="empty"),
    Case("Split", ((6, 4),), {"axis": 0}, (2, 13), 3),
    Case("Split", ((6, 4),), {"axis": 0, "split": [1, 5]}, (2, 11), 2),
    Case("Split", ((6, 4), ints(1, 3)), {"axis": -1}, (13, 99), 2),
    Case("Split", ((7, 4),), {"num_outputs": 3}, (18, 99), 3),
    Case("Pad", ((3, 4),), {"pads": [1, 0, 2, 3], "value": 1.5}, (2, 2)),
    Case("Pad", ((3, 4), ints(1, 0, 2, 3)), since=(11, 99), name="zero"),
    Case(
        "Pad", ((3, 4), ints(1, 0, 2, 3), np.array(1.5, np.float32)), since=(11, 99), name="value"
    ),
    Case("Pad", ((3, 4), ints(2, 3), None, ints(-1)), since=(18, 99), name="axes"),
    Case("Expand", ((3, 1), ints(2, 1, 4))),
    Case("Expand", ((3, 4), ints(1, 4)), name="nothing"),
    Case("Dropout", ((3, 4),), {"ratio": 0.3}, (7, 10)),
    Case("Dropout", ((3, 4), np.array(0.3, np.float32)), {"seed": 3}, (12, 99), name="inference"),
    Case(
        "Dropout", ((3, 4), np.array(0.3, np.float32), np.array(False)), {}, (12, 99), name="said"
    ),
    Case("Upsample", ((1, 2, 2, 3),), {"scales": [1.0, 1.0, 2.0, 3.0]}, (7, 7), wrong_in_onnx=EVER),
    Case("Upsample", ((1, 2, 2, 3), np.array([1, 1, 2, 3], np.float32)), since=(9, 9)),
    Case(
        "Resize",
        ((1, 2, 2, 3), np.array([1, 1, 2, 3], np.float32)),
        since=(10, 10),
        wrong_in_onnx=EVER,
    ),
    Case(
        "Resize",
        ((1, 2, 2, 3), np.zeros(0, np.float32), np.array([1, 1, 2, 3], np.float32)),
        {"mode": "nearest"},
        (11, 99),
        name="scales",
    ),
    Case(
        "Resize",
        ((1, 2, 2, 3), None, np.array([1, 1, 2, 3], np.float32)),
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        (13, 99),
        name="asymmetric",
    ),
    Case("Resize", ((1, 2, 2, 3), None, None, ints(1, 2, 4, 9)), since=(13, 99), name="sizes"),
    Case(
        "Resize",
        ((1, 2, 2, 3), None, None, ints(4, 9)),
        {"axes": [2, 3]},
        since=(18, 99),
        name="axes",
    ),
    Case("Cast", ((3, 4),), {"to": onnx.TensorProto.FLOAT}),
    Case("CastLike", ((3, 4), floats(1))),
    Case("Constant", (), {"value": onnx.numpy_helper.from_array(floats(3))}),
    Case("Constant", (), {"value_float": 1.5}, (12, 99)),
    Case("Constant", (), {"value_floats": [1.5, 2.5]}, (12, 99)),
    Case("OptionalGetElement", ((2, 3),), since=(18, 99)),
]
