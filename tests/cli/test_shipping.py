"""The command line around a module that leaves the house: forms, traces, checksums, signatures."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from convc.runtime import read_manifest
from tests.cli.command_line import Result

Convc = Callable[..., Result]


def test_bundle(convc: Convc, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "net"
    done = convc(
        *("compile", models / "tiny.cvc", "-o", out, "--format", "bundle", "--threads", "1"),
        *("--mcpu", "x86-64-v2,x86-64-v3", "--json"),
    )
    assert done.code == 0, done.err
    assert set(done.document["verified"]) == {"x86-64-v2", "x86-64-v3"}
    assert done.document["max_relative_error"] == max(done.document["verified"].values())
    manifest = read_manifest(out / "net.so")
    assert [v.target.mcpu for v in (manifest, *manifest.variants)] == ["x86-64-v2", "x86-64-v3"]
    assert (out / "lib" / "libconvc.so").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net"]
    again = convc("verify", out / "net.so", models / "tiny.cvc", "--json").document
    # The one that a loader takes comes first.
    assert [(v["mcpu"], v["ok"]) for v in again["variants"]] == [
        ("x86-64-v3", True),
        ("x86-64-v2", True),
    ]
    assert again["outputs"] == again["variants"][0]["outputs"]


def test_each_cpus_code_is_verified(convc: Convc, models: Path, tmp_path: Path) -> None:
    """Each on its own: an error names whose code it is."""
    other = tmp_path / "other.cvc"
    other.write_text((models / "tiny.cvc").read_text().replace("splat(0.25)", "splat(0.26)"))
    out = tmp_path / "net.so"
    flags = ("--threads", "1", "--mcpu", "x86-64-v2,x86-64-v3", "-o", out)
    assert convc("compile", models / "tiny.cvc", *flags, "-q").code == 0
    done = convc("verify", out, other, "--json")
    assert (done.code, [v["ok"] for v in done.document["variants"]]) == (4, [False, False])
    text = " ".join(convc("verify", out, other).err.split())
    assert "That is the module's code for x86-64-v3." in text


def test_static(convc: Convc, models: Path, tmp_path: Path) -> None:
    done = convc(
        *("compile", models / "tiny.cvc", "-o", tmp_path / "net.a", "--format", "static"),
        *("--threads", "1", "--no-verify", "-q"),
    )
    assert done.code == 0, done.err
    assert {p.name for p in tmp_path.iterdir()} == {"net.a", "net.h", "convc.h", "convc.hpp"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "net.a"], "-o must name a file that ends in .so for --format so; got 'net.a'."),
        (["-o", "net.so", "--format", "static"], "ends in .a for --format static; got 'net.so'."),
        (["-o", "net.zip", "--format", "bundle"], "a file that ends in .tar, for --format bundle"),
        (["--mtriple", "aarch64-linux-gnu"], "mcpu must name a CPU of aarch64-linux-gnu; got 'host'"),
    ],
)  # fmt: skip
def test_wrong_forms(convc: Convc, models: Path, arguments: list[str], message: str) -> None:
    done = convc("compile", models / "tiny.cvc", *arguments)
    assert done.code in (2, 5)
    assert message in " ".join(done.err.split())


def test_memory(convc: Convc, module: Path) -> None:
    (row,) = convc("inspect", module, "--memory", "--json").document["variants"]
    parts = ("weights", "arena", "workspace", "input", "output")
    assert row["peak_bytes"] == sum(row[f"{part}_bytes"] for part in parts)
    assert row["input_bytes"] == 4 * 4 * 64
    shown = convc("inspect", module, "--memory").out
    assert str(row["peak_bytes"]) in shown


def test_checksums(convc: Convc, module: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(module.read_bytes()).hexdigest()
    assert convc("inspect", module, "--expect-sha256", digest, "--verify-checksums").code == 0
    assert convc("run", module, "--expect-sha256", digest, "--verify-checksums", "-q").code == 0
    wrong = convc("run", module, "--expect-sha256", "0" * 64)
    assert wrong.code == 5
    assert "module must have SHA-256 000" in " ".join(wrong.err.split())
    assert convc("inspect", "x.cvc", "--memory").code == 2


@pytest.mark.parametrize("command", [["run"], ["bench", "--iterations", "3", "--warmup", "1ms", "--no-peak"]])  # fmt: skip
def test_trace(convc: Convc, module: Path, tmp_path: Path, command: list[str]) -> None:
    verb, *flags = command
    done = convc(verb, module, *flags, "--trace", tmp_path / "trace.json")
    assert done.code == 0, done.err
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    steps = read_manifest(module).steps
    rounds = len(spans) // len(steps)
    assert [e["name"] for e in spans] == rounds * [s.node for s in steps]
    assert all(a["ts"] <= b["ts"] for a, b in itertools.pairwise(spans))
    conv = next(e for e in spans if e["args"]["flops"])
    rate = conv["args"]["flops"] / (conv["dur"] * 1e3)
    assert conv["args"]["gflops_per_second"] == pytest.approx(rate)
    unwritable = convc(verb, module, *flags, "--trace", tmp_path / "no" / "trace.json")
    assert unwritable.code == 2
    assert "trace must be a file that can be written" in " ".join(unwritable.err.split())


def test_sign_and_refuse(convc: Convc, module: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    ours = Path(shutil.copyfile(module, tmp_path / "ours.so"))
    document = convc("sign", ours, "--new-key", tmp_path / "key", "--json").document
    assert document["sha256"] == hashlib.sha256(ours.read_bytes()).hexdigest()
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert convc("inspect", ours, "--public-key", tmp_path / "key.pub").code == 0

    data = bytearray(ours.read_bytes())
    data[len(data) // 2] ^= 1
    ours.write_bytes(data)
    (tmp_path / "theirs").mkdir()
    theirs = Path(shutil.copyfile(module, tmp_path / "theirs" / "ours.so"))
    convc("sign", theirs, "--new-key", tmp_path / "other")
    refused = convc("inspect", theirs, "--public-key", tmp_path / "key.pub")
    assert refused.code == 5
    assert "must have a signature by the key" in refused.err
    assert convc("sign", theirs, "--new-key", tmp_path / "key").code == 2
    assert convc("sign", theirs, "--key", tmp_path / "key.pub").code == 2
    assert convc("sign", ours, "--key", tmp_path / "key").code == 5


def test_openssl_checks_the_same_signature(convc: Convc, module: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed (apt-get install openssl)")
    ours = Path(shutil.copyfile(module, tmp_path / "ours.so"))
    convc("sign", ours, "--new-key", tmp_path / "key")
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", tmp_path / "key.pub", "-rawin"]
    done = subprocess.run(
        [*command, "-in", ours, "-sigfile", f"{ours}.sig"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_module_says_what_was_asked_of_its_devices_code(
    convc: Convc, models: Path, tmp_path: Path
) -> None:
    """So does a lock, which another wish than its own does not fit. The kernels' code is not looked at: nothing here runs."""
    out, lock = tmp_path / "net.so", tmp_path / "net.lock"
    plain = ("compile", models / "tiny.cvc", "-o", out, "--target", "cuda", "--sm", "90", "--no-verify")  # fmt: skip
    asked = ("--fast-math", "--early", "on")
    with mock.patch(
        "convc.schedules.cuda.nvcc.compile_source", lambda source, gpu: source.encode()
    ):
        done = convc(*plain, *asked, "--lock", lock)
        assert done.code == 0, done.err
        assert "cuda sm_90 -fast-math -early=on" in done.out
        early = read_manifest(out).early
        assert early > 0
        row = f"sm_90 -fast-math -early=on; kernels that begin while the one before ends: {early}\n"
        assert f"device   {row}" in convc("inspect", out).out
        written = out.read_bytes()
        assert convc(*plain, *asked, "--locked", lock).code == 0
        assert out.read_bytes() == written
        refused = convc(*plain, "--fast-math", "--locked", lock)
        assert refused.code == 2
        assert "got cuda sm_90 -fast-math -early=on, 1 threads, and here is cuda sm_90 -fast-math" in " ".join(refused.err.split())  # fmt: skip
        assert convc(*plain, "--ptx").code == 0
    assert "device   sm_90 ptx_90; kernels that begin while the one before ends: 0\n" in convc("inspect", out).out  # fmt: skip


def test_a_kernel_beside_cudnns_calls(convc: Convc, models: Path, tmp_path: Path) -> None:
    """There by default, and told; not with --no-fallback. The kernels' code is not looked at: nothing here runs."""
    flags = ("--target", "cuda", "--sm", "90", "--cudnn", "prefer", "--no-verify", "--json")
    reports, tables = [], []
    with mock.patch(
        "convc.schedules.cuda.nvcc.compile_source", lambda source, gpu: source.encode()
    ):
        for use in ("--fallback", "--no-fallback"):
            out = tmp_path / f"net{use}.so"
            done = convc("compile", models / "tiny.cvc", "-o", out, *flags, use)
            assert done.code == 0, done.err
            reports.append(done.document)
            tables.append(convc("inspect", out, "--layers").out)
            own = [s for step in read_manifest(out).steps for s in step.otherwise]
            assert bool(own) == (use == "--fallback")
    beside, alone = reports
    assert beside["algorithms"] == alone["algorithms"]
    # The convolution, and the mean that cuDNN computes since it is preferred.
    assert (beside["fallback_layers"], alone["fallback_layers"]) == (["c", "m"], [])
    assert alone["fallback_bytes"] == 0
    assert beside["weights_bytes"] - alone["weights_bytes"] >= beside["fallback_bytes"]
    assert ["cudnn, else " in table for table in tables] == [True, False]
