"""The device check: rehearsed on the emulated device, its table, and its errors where no device is."""

from __future__ import annotations

import subprocess
import sys
import tarfile

import pytest

from benchmarks import gpu_check
from benchmarks.gpu import pack as packing
from benchmarks.gpu.report import table
from convc.cli.exits import TOOLCHAIN
from convc.runtime.driver import look
from tests.cuda_emulation.emulation import worker


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    return worker().call("tests.benchmarks.gpu_rehearsal:rehearse", str(folder), False)


def test_every_job_runs_and_every_case_is_right(rehearsed):
    found, left, _ = rehearsed
    assert left == len(found) > 3
    assert [r["job"]["name"] for r in found if r.get("failed")] == []
    cases = [c for r in found for c in r["cases"]]
    assert {c["algorithm"] for c in cases} >= {"direct", "depthwise", "subpixel", "generic", "fft"}
    assert all(c["ok"] for c in cases)
    # Transforms of more than two points are no whole numbers.
    assert {c["exact_error"] for c in cases if c["algorithm"] != "fft"} == {0.0}


def test_calls_of_cudnn_are_right_and_their_cost_is_known(tmp_path):
    (found,) = worker().call("tests.benchmarks.gpu_rehearsal:rehearse_calls", str(tmp_path))
    assert "failed" not in found, found
    assert [c for c in found["cases"] if not c["ok"]] == []
    plans = {c["key"]: c["plan"] for c in found["cases"]}
    assert len(plans) == len(found["cases"]) > 50
    assert plans["policy fft"].startswith("cuDNN 92800 must have an engine")
    assert plans["forward 2-d"].startswith("engine=25;knobs=17:4;workspace=")
    assert all(v > 0 for v in found["call_microseconds"].values())
    assert all(c["named_seconds"] > 0 for c in found["cases"] if c["plan"].startswith("engine="))
    text = table([found], {}, 0)
    assert "| weight_gradient 3-d | right | 0.0 | engine=" in text
    assert "us of the host's time; cuDNN's own" in text


def test_layers_are_timed(rehearsed):
    found, _, _ = rehearsed
    cases = [c for r in found if r["job"]["part"] == "layers" for c in r["cases"]]
    assert len(cases) >= 3
    assert all(c["ok"] and c["seconds"] > 0 for c in cases)
    text = table(found, {"name": "emulated"}, 0)
    assert "| layer-n1-tiny |" in text
    assert "| direct |" in text


def test_weight_gradients_are_right_and_timed_by_every_row(rehearsed):
    found, _, _ = rehearsed
    (job,) = (r for r in found if r["job"]["part"] == "gradients")
    assert [(c["algorithm"], c["ok"]) for c in job["cases"]] == [("direct", True), ("plain", True)] * 2  # fmt: skip
    assert all(c["seconds"] > 0 for c in job["cases"])
    text = table(found, {}, 0)
    assert "| convolution | default | direct | plain | wrong |" in text


def test_a_damaged_module_is_a_result_and_the_rest_goes_on(tmp_path):
    call = worker().call
    found, _, _ = call("tests.benchmarks.gpu_rehearsal:rehearse", str(tmp_path), True)
    failed = [r for r in found if r.get("failed")]
    assert len(failed) == 1
    assert "PackageError" in failed[0]["failed"]
    assert "Failed:" in table(found, {}, 0)


@pytest.mark.skipif(bool(look().devices), reason="there is a device")
def test_run_without_a_device_says_what_is_missing(tmp_path, capsys):
    assert gpu_check.main(["run", "--folder", str(tmp_path)]) == TOOLCHAIN
    assert "must find a CUDA device; got none" in capsys.readouterr().err


def test_build_lists_its_jobs(capsys):
    arguments = ["build", "--dry-run", "--parts", "layers,models", "--layers", "r50_2*"]
    assert gpu_check.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "layer-n1-r50_2_3x3" in shown
    assert "model-resnet50-n1" in shown


def test_the_archive_holds_jobs_runtime_and_program(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "_unpack_wheels", lambda python, wheels, packages: packages.mkdir())  # fmt: skip
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "a.job.json").write_text("{}")
    assert packing.pack(tmp_path / "jobs", tmp_path / "all.tar.xz", "3.12") < 20 << 20
    with tarfile.open(tmp_path / "all.tar.xz") as tar:
        names = set(tar.getnames())
    assert {"gpu_check/jobs/a.job.json", "gpu_check/lib/libtvm_runtime_cuda.so", "gpu_check/convc/runtime/cuda.py"} <= names  # fmt: skip
    assert "gpu_check/lib/libtvm_compiler.so" not in names


def test_a_device_without_the_compiler_runs_and_reports():
    # There is TVM's runtime only: 6 of 260 MB. What those two steps import must not want more.
    code = "import sys; sys.modules['tvm'] = None; import benchmarks.gpu_check, benchmarks.gpu.run, benchmarks.gpu.report"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
