"""The house's rules that no type checker knows: who imports whom, how large files are, that tables and files agree."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from convc.ir.ops import OPS
from convc.runtime.host import LLVM_FEATURES
from convc.schedules.cuda import backend as cuda
from convc.schedules.llvm import backend as llvm
from convc.schedules.llvm.convolutions import SCHEDULES
from convc.schedules.operators import OPERATORS
from convc.schedules.table import ALGORITHMS
from convc.target import ISA_FEATURES
from tests.source_files import TESTS, sources, tree


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the house: the parts of convc and the packages that it may import. Itself, `errors` and the standard library always."""

    name: str
    convc: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


_DATA = ("numpy", "ml_dtypes")
_FRONTENDS = ("frontend.dsl", "frontend.nnet", "frontend.onnx")
_TOOLS = ("compiler", "compiled_model", "open_areas", "explaining", "planning", "lock", "source", "lowering", "schedules", "target", "runtime", "toolchain", *_FRONTENDS, "ir", "ir.passes", "version",
          "inputs", "npz")  # fmt: skip

# A module belongs to the part with the longest name that fits. A row may also allow one module of another part.
PARTS: Final = (
    Part("errors"),
    Part("version"),
    Part("toolchain"),
    Part("target", ("runtime.driver",), ("tvm",)),
    Part("ir", (), (*_DATA, "networkx")),
    Part("ir.passes", ("ir",), _DATA),
    Part("frontend"),
    Part("frontend.dsl", ("ir",), _DATA),
    Part("frontend.nnet", ("ir", "frontend.dsl"), _DATA),
    Part("frontend.onnx", ("ir", "version"), (*_DATA, "onnx", "google")),
    Part("runtime.libraries", (), ("tvm_ffi",)),
    Part("runtime", ("ir.types", "ir.resampling", "runtime.libraries"), (*_DATA, "tvm_ffi", "msgspec")),
    Part("object_cache", (), ("filelock", "platformdirs")),
    Part("schedules", ("ir", "target", "runtime.libraries", "object_cache"), (*_DATA, "tvm", "tvm_ffi")),
    Part("lowering", ("ir", "target", "schedules", "toolchain", "runtime.manifest", "runtime.package", "runtime.elf", "runtime.seal"), (*_DATA, "tvm", "tvm_ffi", "msgspec")),
    Part("deploy", ("lowering.package", "runtime.manifest", "runtime.package", "runtime.elf", "runtime.variants"), ("numpy", "msgspec")),
    Part("source", ("ir", "ir.passes", "frontend.onnx"), (*_DATA, "onnx")),
    Part("tuning", ("schedules", "lowering", "ir", "target", "runtime", "runtime.libraries", "toolchain", "machine", "version"), (*_DATA, "tvm", "tvm_ffi", "msgspec", "filelock", "platformdirs", "psutil")),
    Part("lock", ("schedules", "ir", "target", "toolchain", "version"), ("msgspec",)),
    Part("planning", ("lock", "tuning", "schedules", "ir", "target")),
    Part("compiled_model", ("planning", "deploy", "ir", "schedules", "lowering", "runtime"), ("numpy",)),
    Part("open_areas", ("ir", "lowering", "runtime"), ("numpy", "msgspec")),
    Part("compiler", ("compiled_model", "open_areas", "planning", "source", "deploy", "ir", "ir.passes", "target", "schedules", "lowering", "runtime", "toolchain", "version"), (*_DATA, "onnx")),
    Part("explaining", ("compiler", "planning", "source", "ir", "target", "schedules", "runtime"), ("numpy",)),
    # The tools: all that stands on the compiler, but for the command line.
    Part("signature", (), ("cryptography",)),
    Part("inputs", ("ir.types", "runtime.memory"), _DATA),
    Part("npz", ("ir.types", "runtime.memory"), _DATA),
    Part("machine", ("target", "schedules", "runtime"), (*_DATA, "tvm")),
    Part("deviation", (), _DATA),
    Part("rounding", ("ir", "ir.passes", "schedules", "deviation"), _DATA),
    Part("references", ("ir", "onnxruntime_peer"), _DATA),
    Part("verify", (*_TOOLS, "deviation", "rounding", "references"), _DATA),
    Part("first_wrong_layer", (*_TOOLS, "deviation", "verify"), _DATA),
    Part("bench", (*_TOOLS, "machine", "verify", "onnxruntime_peer"), (*_DATA, "psutil")),
    Part("doctor", (*_TOOLS, "machine", "runtime.libraries"), ("tvm", "psutil")),
    Part("onnxruntime_peer", _TOOLS, (*_DATA, "onnxruntime", "onnx")),
    Part("cli", (*_TOOLS, "tuning", "deploy", "signature", "machine", "references", "verify", "first_wrong_layer", "bench", "doctor", "onnxruntime_peer"), (*_DATA, "typer", "rich", "msgspec")),
    Part("__main__", ("cli",)),
    Part("__init__", ("compiler", "explaining", "source", *_FRONTENDS, "ir", "runtime", "target", "version")),
)  # fmt: skip

# TVM's compiler may be imported here and nowhere else.
TVM_FENCE: Final = ("schedules", "lowering", "target", "machine", "doctor", "tuning")

# Names that say nothing of what a file holds.
NAMELESS: Final = {"utils", "util", "common", "helpers", "helper", "base", "misc", "core"}

SOFT_LINES, HARD_LINES = 300, 400

# `except Exception`: file -> why every kind of failure is meant there.
BROAD_EXCEPT: Final[dict[str, str]] = {
    # A candidate that cannot be built or run is a record, and TVM raises almost every class there is for one.
    "tuning.bench": "any failure of a candidate is an answer",
}


def part_of(module: str) -> Part | None:
    """Return the part with the longest name that holds the module."""
    fitting = [p for p in PARTS if module == p.name or module.startswith(f"{p.name}.")]
    return max(fitting, key=lambda p: len(p.name), default=None)


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (module, line) of every import, also inside functions and for type checking."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            base = node.module or ""
            for alias in node.names:
                full = f"{base}.{alias.name}"
                # `from convc.ir import text` imports a module, `from convc.ir import Graph` a name.
                is_module = (
                    base.partition(".")[0] == "convc" and full.removeprefix("convc.") in sources()
                )
                yield (full if is_module else base), node.lineno


def allowed(part: Part, module: str) -> bool:
    """Whether a part may import a module of convc."""
    holds = (part.name, "errors", *part.convc)
    other = part_of(module)
    return other is not None and (other.name in holds or module in holds)


# ---- imports ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", sources())
def test_imports_follow_the_table(module):
    part = part_of(module)
    assert part is not None, f"convc/{module} is in no part of the table"
    wrong = []
    for name, line in imports(sources()[module]):
        top, _, rest = name.partition(".")
        if top == "convc":
            if rest and not allowed(part, rest):
                wrong.append(f"line {line}: {part.name} must not import {name}")
        elif top not in sys.stdlib_module_names and top not in part.packages:
            wrong.append(f"line {line}: {part.name} must not import {name}")
    assert not wrong, "\n".join([str(sources()[module]), *wrong])


def test_the_table_has_no_circle():
    order: list[str] = []

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join((*trail, name))}"
        if name in order:
            return
        for other in next((p.convc for p in PARTS if p.name == name), ()):
            holder = part_of(other) or next(p for p in PARTS if p.name.startswith(f"{other}."))
            if holder.name != name:
                visit(holder.name, (*trail, name))
        order.append(name)

    for part in PARTS:
        visit(part.name, ())
    assert (
        order.index("ir") < order.index("lowering") < order.index("compiler") < order.index("cli")
    )


def test_no_module_imports_itself_in_a_circle():
    """Imports at the top of files only: those inside functions and for type checking run later or never."""
    graph: dict[str, set[str]] = {}
    for module, path in sources().items():
        graph[module] = set()
        for node in tree(path).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                graph[module] |= {
                    name.removeprefix("convc.")
                    for name, line in imports(path)
                    if line == node.lineno and name.startswith("convc.")
                }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join((*trail, module))}"
        if module not in done:
            for other in sorted(graph.get(module, ())):
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())
    assert done >= set(sources())


def test_fences_of_third_parties():
    users: dict[str, set[str]] = {}
    for module, path in sources().items():
        for name, _ in imports(path):
            users.setdefault(name.partition(".")[0], set()).add(module)
    assert {m.partition(".")[0] for m in users["tvm"]} <= set(TVM_FENCE)
    assert all(
        m.startswith("frontend.onnx") or m in ("source", "compiler", "onnxruntime_peer")
        for m in users["onnx"]
    )
    assert users["onnxruntime"] == {"onnxruntime_peer"}
    assert {m.partition(".")[0] for m in users["typer"] | users["rich"]} == {"cli"}


HEAVY = ("tvm", "tvm_ffi", "onnx", "onnxruntime", "numpy", "networkx", "msgspec", "typer", "rich")


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import convc", HEAVY),
        (
            "from convc.runtime import read_manifest",
            ("tvm", "tvm_ffi", "onnx", "networkx", "typer"),
        ),
        ("from convc import load", ("tvm", "onnx", "networkx", "typer")),
        ("from convc.frontend import dsl", ("tvm", "tvm_ffi", "onnx", "typer")),
        ("from convc import nnet", ("tvm", "tvm_ffi", "onnx", "typer")),
        ("from convc import from_onnx", ("tvm", "tvm_ffi", "typer")),
        ("import convc.cli", ("tvm", "tvm_ffi", "onnx", "numpy", "networkx")),
    ],
)
def test_what_an_import_leaves_out(statement, absent):
    code = f"import sys; {statement}; print(*(m for m in {absent!r} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


# ---- files ------------------------------------------------------------------------------------------------------


def test_files_are_short():
    lines = {m: len(p.read_text(encoding="utf-8").splitlines()) for m, p in sources().items()}
    assert {m: n for m, n in lines.items() if n > HARD_LINES} == {}
    long = {m: n for m, n in lines.items() if n > SOFT_LINES}
    # Files of one table or one definition, which splitting would not make easier to read. A new one needs a reason here.
    assert set(long) <= {
        "ir.spec",
        "schedules.fft",
        "schedules.im2col",
        "schedules.winograd",
    }, long


def test_files_are_named_after_what_they_hold():
    files = [*sources().values(), *TESTS.rglob("*.py")]
    assert [str(p) for p in files if p.stem.removeprefix("test_") in NAMELESS] == []


def test_every_file_says_what_it_is_and_what_it_offers():
    silent = [m for m, p in sources().items() if not ast.get_docstring(tree(p))]
    assert silent == []
    hidden = []
    for module, path in sources().items():
        defined = [n for n in tree(path).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        public = [n for n in defined if not n.name.startswith("_")]
        assigned = {
            t.id
            for n in tree(path).body
            if isinstance(n, ast.Assign)
            for t in n.targets
            if isinstance(t, ast.Name)
        }
        if public and "__all__" not in assigned:
            hidden.append(module)
    assert hidden == []


@pytest.mark.parametrize("module", sources())
def test_what_a_file_offers_exists(module):
    if module in ("__init__", "__main__"):
        module = ""
    loaded = importlib.import_module(f"convc.{module}".rstrip("."))
    missing = [name for name in getattr(loaded, "__all__", ()) if not hasattr(loaded, name)]
    assert missing == []
    assert len(set(getattr(loaded, "__all__", ()))) == len(getattr(loaded, "__all__", ()))


def test_no_broad_except():
    broad = []
    for module, path in sources().items():
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = [k.id for k in kinds if isinstance(k, ast.Name)]
            if node.type is None or {"Exception", "BaseException"} & set(names):
                broad.append(module)
    assert sorted(set(broad)) == sorted(BROAD_EXCEPT)


# ---- tables -----------------------------------------------------------------------------------------------------


def test_algorithms_files_and_schedules_agree():
    names = [row.name for row in ALGORITHMS]
    assert len(set(names)) == len(names)
    files = [
        m
        for m, path in sources().items()
        if m.startswith("schedules.")
        and not m.startswith("schedules.cuda.")
        and any(
            isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "ALGORITHM"
            for n in tree(path).body
        )
    ]
    rows = {importlib.import_module(f"convc.{m}").ALGORITHM.name: m for m in files}
    assert set(rows) == set(names)
    assert rows == {name: f"schedules.{name}" for name in names}, (
        "a file is called after its algorithm"
    )
    # These are no convolutions: algorithms do not compete for them.
    gradients = {f"weight_gradient_{row.NAME}" for row in llvm.BACKEND.weight_gradients}
    assert set(SCHEDULES) == {*names, "dense", "bottleneck", "packing", "dense_packing", *gradients}
    # On a device the same names mean the same mathematics; each file there holds the model of its algorithm on devices.
    for row in cuda.ALGORITHMS:
        module = importlib.import_module(f"convc.schedules.cuda.{row.name}")
        assert module.ALGORITHM is row, "a file is called after its algorithm"
    gradients = {f"weight_gradient_{row.NAME}" for row in cuda.BACKEND.weight_gradients}
    assert set(cuda.SCHEDULES) == {
        *(row.name for row in cuda.ALGORITHMS),
        *(row.name for row in cuda.BACKEND.quantized),
        "dense",
        "packing",
        *gradients,
    }
    # The arithmetic of libraries and of tensor cores is their own, and so are blocks of 16 bytes.
    cores = {"tensor_core", "tensor_core_blocked", "tensor_core_folded", "tf32"}
    own = {"cudnn", "cutlass", "depthwise_blocked", *cores}
    assert {row.name for row in cuda.ALGORITHMS} <= {*names, *own}


def test_every_op_is_computed_somewhere():
    by_emit = {"conv", "conv_transpose", "reshape"}
    assert set(OPERATORS) == set(OPS) - by_emit
    assert not by_emit & set(OPERATORS)


def test_elementwise_ops_can_be_fused():
    assert {n for n, op in OPS.items() if op.elementwise} <= set(OPERATORS)


def test_features_of_a_target_are_ones_that_the_runtime_can_see():
    assert set(ISA_FEATURES) <= LLVM_FEATURES
