"""The tree of errors, the form of their texts, and one whole message of every class."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

import convc
from convc import errors
from convc.compiler import compile
from convc.errors import ConvcError, unknown_name
from convc.ir import ConvSpec, Graph, Output, Step
from convc.ir.passes import Pass, run_passes
from convc.ir.text import parse
from convc.lowering.package import link
from convc.runtime.loading import _for_this_machine
from convc.runtime.manifest import Manifest, TargetInfo
from convc.schedules.select import select
from convc.target import parse_target
from convc.verify import verify

RELU = "graph @g { %x = input : f32[2]  %y = relu(%x)  return %y }"
CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, ConvcError)
}

# ---- the tree ---------------------------------------------------------------------------------------------------


def drawn() -> dict[str, tuple[str, ...]]:
    """Return class -> bases, as the module's text draws them by indentation and `(also ...)`."""
    found: dict[str, tuple[str, ...]] = {}
    trail: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        entry = re.match(r"^( +)([A-Z]\w+Error)\b(?:\s+\(also (\w+)\))?", line)
        if not entry:
            continue
        indent = len(entry[1])
        trail = [(i, n) for i, n in trail if i < indent]
        parents = (trail[-1][1],) if trail else ("Exception",)
        found[entry[2]] = (*parents, *([entry[3]] if entry[3] else []))
        trail.append((indent, entry[2]))
    return found


def test_the_tree_is_as_drawn():
    assert drawn() == {name: tuple(b.__name__ for b in c.__bases__) for name, c in CLASSES.items()}


def test_all_classes_are_offered():
    assert set(errors.__all__) == {*CLASSES, "unknown_name"}


@cache
def raised() -> dict[str, list[tuple[str, ast.Raise]]]:
    """Return class -> where the package raises it."""
    found: dict[str, list[tuple[str, ast.Raise]]] = {}
    root = Path(convc.__file__).parent
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                name = ast.unparse(node.exc.func).rpartition(".")[2]
                place = f"{path.relative_to(root)}:{node.lineno}"
                found.setdefault(name, []).append((place, node))
    return found


# Bases for callers to catch, and one that `unknown_name` returns.
NEVER_RAISED = {"ConvcError", "FrontendError", "ScheduleError", "UnknownNameError"}


def test_every_class_is_raised_somewhere():
    # The command line raises AccuracyError by returning an exit code; the class is for callers of `verify`. UntunedError is given its
    # notes, a layer each, before it is raised.
    elsewhere = {"AccuracyError", "InvalidKnobsError", "UntunedError"}
    assert set(CLASSES) - set(raised()) - NEVER_RAISED <= elsewhere


def text_of(node: ast.Raise) -> str:
    """Return the message's literal parts, `{}` for what is filled in."""
    assert isinstance(node.exc, ast.Call)
    parts: list[str] = []
    for argument in node.exc.args[:1]:
        for piece in ast.walk(argument):
            if isinstance(piece, ast.Constant) and isinstance(piece.value, str):
                parts.append(piece.value)
            elif isinstance(piece, ast.FormattedValue):
                parts.append("{}")
    return "".join(parts)


# Forms that say it otherwise, each with the reason it may.
OTHER_FORMS = (
    # One line per package that is wrong, each in the usual form, and then the command that repairs all of them.
    "Run: pip install {}",
)


def test_messages_say_what_must_be_and_what_was_got():
    odd = []
    for name in CLASSES:
        for place, node in raised().get(name, []):
            text = text_of(node)
            # A message that is put together elsewhere has no literal text here.
            if re.search(r"[a-z]{3}", text) and not re.search(r"\bmust\b|\bcannot\b", text):
                odd.append(f"{place}: {text}")
    assert all(any(form in line for form in OTHER_FORMS) for line in odd), "\n".join(odd)


@pytest.mark.parametrize(
    ("name", "known", "message"),
    [
        ("winogard", ["direct", "winograd"], "unknown algorithm 'winogard'; known: direct, winograd. Did you mean 'winograd'?"),
        ("xyz", ["direct"], "unknown algorithm 'xyz'; known: direct."),
        ("xyz", [], "unknown algorithm 'xyz'; known: none."),
    ],
)  # fmt: skip
def test_unknown_names(name, known, message):
    assert str(unknown_name("algorithm", name, known)) == message


# ---- one whole message of every class -----------------------------------------------------------------------------

CONV = "%x = input : f32[1,3,4,4]  %w = constant splat(1.0) : f32[2,3,3,3]  %c = conv(%x, %w)"


def onnx_model(body: str):
    header = (
        '<ir_version: 8, opset_import: ["": 18, "acme": 1]> net (float[1, 4] x) => (float[1, 4] y)'
    )
    return onnx.parser.parse_model(f"{header} {{ {body} }}")


def broken_pass(graph: Graph) -> Graph:
    return graph.with_nodes(graph.nodes, [Output("y", "gone")])


def not_linked(folder: Path) -> None:
    part = folder / "part.o"
    part.write_bytes(b"no object")
    link([part], compile(parse(RELU), threads=1).manifest, [], folder / "m.so")


def wrong_outputs(folder: Path) -> None:
    model = compile(parse(RELU), threads=1).load(threads=1)
    verify(model, parse(RELU.replace("return %y", 'return %y as "z"')))


MESSAGES: list[tuple[type[ConvcError], Callable[[Path], object], str]] = [
    (
        errors.UnsupportedModelError,
        lambda _: compile(onnx_model("a = acme.Foo(x) y = Relu(a)")),
        (
            r"net cannot be compiled: 1 operator is not supported\n  acme::Foo  v1  x1  a  no rule for domain \"acme\"\n"
            r"help: `convc ops` lists what is supported"
        ),
    ),
    (
        errors.InvalidModelError,
        lambda _: compile("no/such.onnx"),
        r"model must be a file; got 'no/such\.onnx', which does not exist\.",
    ),
    (
        errors.ShapeError,
        lambda _: ConvSpec.of((1, 64, 8, 8), (128, 64, 3, 3), group=2),
        r"Conv weight must have C/group = 64/2 = 32 input channels; got 64 \(weight \(128, 64, 3, 3\)\)\.",
    ),
    (
        errors.DTypeError,
        lambda _: ConvSpec.of((1, 1, 8), (1, 1, 3), dtype="int8"),
        r"Conv element type must be one of float64, float32, float16, bfloat16, int32, uint8; got 'int8'\.",
    ),
    (
        errors.TextError,
        lambda _: parse("graph @g { %x = input : f32[2] return %y }"),
        r"<text>:1:39: output must be defined above; got %y\.\n    graph @g { %x = input : f32\[2\] return %y }\n +\^",
    ),
    (
        errors.VerifyError,
        lambda _: run_passes(parse(RELU), [Pass("broken", broken_pass)]),
        r"output 'y' must be a defined value; %gone is not\.",
    ),
    (
        errors.UnsupportedConvError,
        lambda _: select(
            parse(f"graph @g {{ {CONV} return %c }}"), parse_target(), algo_for={"c": "subpixel"}
        ),
        r"algorithm 'subpixel' cannot compute 'c': convolution must be transposed\. These can: direct, .*generic\.",
    ),
    (
        errors.UnknownNameError,
        lambda _: Step("reul"),
        r"unknown epilogue step 'reul'; known: bias, add, mul, relu, .*\. Did you mean 'relu'\?",
    ),
    (
        errors.LoweringError,
        not_linked,
        r"`g\+\+ .* module\.so .*part\.o payload\.o` must succeed; got exit code 1:\n(.|\n)*",
    ),
    (
        errors.ToolchainError,
        lambda _: parse_target("cuda"),
        r"target 'cuda' must name its compute capability where no device is; got none\. Add --sm 90 .*",
    ),
    (
        errors.PackageError,
        lambda folder: convc.load(_written(folder / "m.so", b"no module")),
        r"module must be a 64-bit little-endian ELF file \(7f 45 4c 46 02 01 01 \.\.\.\); got 6e 6f 20 6d 6f 64 75\..*",
    ),
    (
        errors.InputError,
        lambda _: compile(parse(RELU), threads=1).run({"x": np.zeros(3, np.float32)}),
        r"input 'x' must have shape \(2,\); got \(3,\)\.",
    ),
    (
        errors.InputError,
        wrong_outputs,
        r"module and reference must name the same outputs; got y and z\.",
    ),
]


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("kind", "action", "message"), MESSAGES, ids=[f"{k.__name__}-{i}" for i, (k, _, _) in enumerate(MESSAGES)]
)  # fmt: skip
def test_whole_messages(kind, action, message, tmp_path):
    with pytest.raises(ConvcError) as caught:
        action(tmp_path)
    assert type(caught.value) is kind
    assert re.fullmatch(message, str(caught.value)), str(caught.value)


def test_a_pass_that_breaks_the_graph_is_named():
    with pytest.raises(errors.VerifyError) as caught:
        run_passes(parse(RELU), [Pass("first", lambda g: g), Pass("broken", broken_pass)])
    assert caught.value.__notes__ == ["in pass broken, after first"]


def test_a_module_of_another_machine():
    target = TargetInfo("llvm", "x86_64-linux-gnu", "future", ("sse3", "avx1024"))
    with pytest.raises(errors.TargetMismatchError) as caught:
        _for_this_machine(
            Manifest(name="m", convc="", tvm="", tvm_ffi="", target=target, inputs=(), outputs=()),
            None,
        )
    assert re.fullmatch(
        r"module for future must run on a CPU with avx1024; got .* without\. Compile it for this machine\.",
        str(caught.value),
    )
