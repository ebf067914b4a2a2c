"""One module with code for several CPUs, chosen when it is loaded."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import convc
from convc.errors import TargetMismatchError, ToolchainError
from convc.ir import Graph
from convc.runtime import Manifest, TargetInfo, host, load, read_manifest
from convc.runtime.variants import choose, every_variant, only
from convc.target import parse_target, parse_targets
from tests.deploy.small_net import ALGORITHM, expected, image, small_net

CPUS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
V2, V3, V4 = (set(parse_target("llvm", cpu).features) for cpu in CPUS)


@pytest.fixture(scope="module")
def net() -> Graph:
    return small_net()


@pytest.fixture(scope="module")
def fat(net: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiled = convc.compile(net, mcpu=",".join(CPUS), threads=1, algo=ALGORITHM)
    return compiled.export(tmp_path_factory.mktemp("fat") / "fat.so")


def test_every_variant_has_its_own_plan(fat: Path) -> None:
    manifest = read_manifest(fat, verify_checksums=True)
    variants = every_variant(manifest)
    assert [v.target.mcpu for v in variants] == list(CPUS)
    assert [v.entry for v in variants] == ["main", "v1_main", "v2_main"]
    symbols = [s.symbol for v in variants for s in v.steps]
    assert len(set(symbols)) == sum(len({s.symbol for s in v.steps}) for v in variants)


@pytest.mark.parametrize(
    ("features", "entry"),
    [(V4, "v2_main"), (V3, "v1_main"), (V2 | {"avx"}, "main"), (V2 - {"popcnt"}, None)],
)
def test_the_cpu_decides(fat: Path, features: set[str], entry: str | None) -> None:
    chosen = choose(read_manifest(fat), "x86_64", features)
    assert (chosen.entry if chosen else None) == entry


@pytest.mark.isa("avx2")
@pytest.mark.isa("fma")
def test_every_variant_computes_the_same(fat: Path, monkeypatch) -> None:
    x, here, seen = image(), host.cpu(), set()
    for features in (V2, V3, here.features):
        monkeypatch.setattr(
            host, "cpu", lambda f=features: host.Cpu("test", "x86_64", frozenset(f))
        )
        module = load(fat, threads=1)
        seen.add(module.manifest.target.mcpu)
        for name, result in module.run({"x": x}).items():
            np.testing.assert_array_equal(result, expected(x)[name])
    assert {"x86-64-v2", "x86-64-v3"} <= seen


def test_no_variant_fits(fat: Path, monkeypatch) -> None:
    monkeypatch.setattr(host, "cpu", lambda: host.Cpu("old", "x86_64", frozenset(V2 - {"popcnt"})))
    with pytest.raises(TargetMismatchError) as caught:
        load(fat, threads=1)
    text = str(caught.value)
    assert text.startswith(
        "module for x86-64-v2 must run on a CPU with popcnt; or for x86-64-v3 with avx"
    )
    assert text.endswith("; got old without. Compile it for this machine.")


def test_half_precision_conversions_stay_with_their_cpu(fat: Path) -> None:
    """They are weak functions in every object: shared, code for one CPU would run another's instructions."""
    table = subprocess.run(["nm", fat], capture_output=True, text=True, check=True).stdout
    kinds = [line.split()[-2] for line in table.splitlines() if line.endswith("__truncsfhf2")]
    assert kinds == ["t"] * len(CPUS)


def test_equal_arrays_lie_once(net: Graph) -> None:
    """v4 and znver4 pack alike, so the second adds no weights; its code and plan are its own."""
    one = convc.compile(net, mcpu="znver4", threads=1).manifest
    two = convc.compile(net, mcpu="znver4,znver5", threads=1).manifest
    assert two.weights_bytes == one.weights_bytes
    assert len(two.variants) == 1


def test_one_variant_is_the_manifest_itself() -> None:
    target = TargetInfo("llvm", "x86_64-linux-gnu", "x86-64-v3", ("avx2",))
    plain = Manifest(
        name="n", convc="", tvm="", tvm_ffi="", target=target, inputs=(), outputs=(), arena_bytes=64
    )
    assert only(plain, every_variant(plain)[0]) == plain


def test_names_of_targets() -> None:
    names = [t.mcpu for t in parse_targets("llvm", "x86-64-v3, host,x86-64-v3")]
    assert names[0] == "x86-64-v3"
    assert len(set(names)) == len(names)
    with pytest.raises(ToolchainError, match=r"^mcpu must be one CPU for target 'cuda"):
        parse_targets("cuda -arch=sm_90", "a,b")
    with pytest.raises(
        ToolchainError, match=r"^mcpu must name a CPU of aarch64-linux-gnu; got 'host'"
    ):
        parse_target("llvm", mtriple="aarch64-linux-gnu")
    arm = parse_target("llvm", "neoverse-n1", mtriple="aarch64-linux-gnu")
    assert (arm.lanes, arm.registers) == (4, 32)
    assert {"neon", "dotprod"} <= set(arm.features)
