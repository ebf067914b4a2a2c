"""The device check: rehearsed on the emulated device, its table, and its errors where no device is."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks import gpu_check
from benchmarks.gpu.build import layer_jobs
from benchmarks.gpu.job import Case, Job, beyond_rounding, worst_error
from benchmarks.gpu.report import collect, table
from benchmarks.gpu.run import keep
from benchmarks.gpu.supervise import Limits, supervise
from benchmarks.layer_list import layers
from convc.cli.exits import TOOLCHAIN
from convc.ir import ConvSpec
from convc.runtime.driver import Device, look
from convc.schedules.algorithm import KIND
from convc.schedules.weight_gradient_problem import WEIGHT_GRADIENT, WeightGradientProblem
from convc.target import parse_target
from convc.tuning.log import read_log
from tests.cuda_emulation.emulation import worker

CHILD = [sys.executable, "-m", "tests.benchmarks.gpu_child", "run", "--no-peer"]
# Jobs of this test: a module that is cut off, a library that is none (an error behind which the device may be lost), one that ends its
# process.
DAMAGED, LOST, FATAL = "grid-direct-00", "calls-lost", "calls-fatal"


@dataclass(frozen=True)
class Rehearsal:
    """A check that was run: its jobs' names, what the parent said, and the results by name."""

    folder: Path
    jobs: list[str]
    said: list[str]
    results: dict[str, Any]

    def cases(self, part: str) -> list[Any]:
        found = (r for r in self.results.values() if r["job"]["part"] == part)
        return [c for r in found for c in r.get("cases", ())]


def supervised(folder: Path, said: list[str], seconds: float = 1e4) -> int:
    limits = Limits(seconds, job=1e4, idle=1e4)
    return supervise([*CHILD, "--folder", str(folder), "--child"], folder, limits, said.append)


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    folder, said = tmp_path_factory.mktemp("gpu"), []
    jobs = worker().call("tests.benchmarks.gpu_rehearsal:rehearse", str(folder))
    damaged = folder / f"{DAMAGED}.so"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    for name in (LOST, FATAL):
        Job(name=name, part="calls", turn=-1).write(folder)
    (folder / f"{LOST}.so").write_bytes(b"no library")
    (folder / "fatal.c").write_text("#include <signal.h>\n__attribute__((constructor)) static void end(void) { raise(SIGKILL); }")  # fmt: skip
    command = ["gcc", "-shared", "-fPIC", "-o", f"{FATAL}.so", "fatal.c"]
    subprocess.run(command, cwd=folder, check=True)
    assert supervised(folder, said, 0.0) == len(jobs) + 2
    assert not list((folder / "results").iterdir())
    assert supervised(folder, said) == 0
    results = {r["job"]["name"]: r for r in collect(folder / "results")}
    return Rehearsal(folder, [*jobs, LOST, FATAL], said, results)


def test_every_job_runs_and_every_case_is_right(rehearsed):
    assert set(rehearsed.results) == set(rehearsed.jobs)
    failed = {name: r["failed"] for name, r in rehearsed.results.items() if r.get("failed")}
    assert set(failed) == {DAMAGED, LOST, FATAL}
    assert "PackageError" in failed[DAMAGED]
    assert failed[FATAL].startswith("the process ended while this job ran: SIGKILL")
    assert [line for line in rehearsed.said if "FAILED" in line] == [
        f"{FATAL}: FAILED {failed[FATAL]}"
    ]
    cases = rehearsed.cases("grid")
    assert {c["algorithm"] for c in cases} >= {"depthwise", "subpixel", "fft"}
    assert all(c["ok"] for r in rehearsed.results.values() for c in r.get("cases", ()))
    # Transforms of more than two points are no whole numbers.
    assert {c["exact_error"] for c in cases if c["algorithm"] != "fft"} == {0.0}


def test_calls_of_cudnn_are_right_and_their_cost_is_known(rehearsed):
    found = rehearsed.results["calls-cudnn"]
    assert "failed" not in found, found
    plans = {c["key"]: c["plan"] for c in found["cases"]}
    assert len(plans) == len(found["cases"]) > 50
    assert plans["policy fft"].startswith("cuDNN 92800 must have an engine")
    assert plans["forward 2-d"].startswith("engine=25;knobs=17:4;workspace=")
    assert all(v > 0 for v in found["call_microseconds"].values())
    assert all(c["named_seconds"] > 0 for c in found["cases"] if c["plan"].startswith("engine="))
    text = table([found], {}, 0)
    assert "| weight_gradient 3-d | right | 0.0 | engine=" in text
    # What is refused as expected is nothing wrong.
    for call in ("forward + add", "forward float16 + add", "policy fft"):
        assert f"| {call} | none offered |  | cuDNN 92800 must have an engine for" in text
    assert "WRONG" not in text
    assert "Wrong:" not in text
    assert "us of the host's time; cuDNN's own" in text


def test_what_cudnn_is_made_to_refuse(rehearsed):
    said = {c["key"]: c["said"] for c in rehearsed.cases("refusals")}
    assert len(said) == 3
    one = "layer 'refused' runs convc's own '"
    assert said["an engine that does not exist"].startswith(one)
    assert "layer 'half' runs" in said["no cuDNN at all"]
    assert "--algo-for 'refused=ALGORITHM'" in said["an engine that does not exist, cuDNN required"]
    assert "| an engine that does not exist | right | layer 'refused' runs" in table(
        list(rehearsed.results.values()), {}, 0
    )


def test_layers_of_bytes_are_right_and_timed_beside_halves(rehearsed):
    *own, halves = rehearsed.cases("bytes")
    assert {c["algorithm"] for c in own} <= {"tensor_core_bytes", "tensor_core_bytes_folded"}
    assert halves["algorithm"] == "float16"
    assert [c["default"] for c in own] == [True, False]
    assert all(c["ok"] and c["seconds"] > 0 for c in (*own, halves))
    assert "| bytes-n2-tiny |" in table(list(rehearsed.results.values()), {}, 0)


def test_layers_are_timed(rehearsed):
    cases = rehearsed.cases("layers")
    assert len(cases) >= 3
    assert all(c["seconds"] > 0 for c in cases)
    text = table(list(rehearsed.results.values()), {"name": "emulated"}, 0)
    assert "| layer-n1-tiny |" in text
    assert "| direct |" in text
    assert f"- {DAMAGED}: PackageError" in text


def test_times_of_layers_become_records_of_our_kernels(rehearsed, tmp_path, capsys):
    assert gpu_check.main(["report", "--folder", str(rehearsed.folder)]) == 1
    report = rehearsed.folder / "report.json"
    document = json.loads(report.read_bytes())
    document["device"] = {"name": "NVIDIA Emulated", "sm": 90}
    layer = next(r for r in document["results"] if r["job"]["part"] == "layers" and r.get("cases"))
    wrong = {**layer["cases"][0], "ok": False, "knobs": {"rows": 7}}
    library = {**layer["cases"][0], "algorithm": "cudnn"}
    right = layer["cases"]
    layer["cases"] = [*right, wrong, library]
    (tmp_path / "report.json").write_text(json.dumps(document))
    asked = ["records", str(tmp_path / "report.json"), "--logs", str(tmp_path / "logs")]
    assert gpu_check.main(asked) == 0
    log = read_log(tmp_path / "logs/cuda/nvidia-emulated.jsonl").records
    layers = [r for r in log if not r.workload.startswith(f"{WEIGHT_GRADIENT}{KIND}")]
    found = {(r.algorithm, tuple(r.knobs.items())) for r in layers}
    assert found == {(c["algorithm"], tuple(c["knobs"].items())) for c in right}
    # Of weight gradients those of layers; the grid's are of no network.
    gradients = [r for r in log if r not in layers]
    tiny = ConvSpec.parse(right[0]["key"])
    assert {r.workload for r in gradients} == {WeightGradientProblem(tiny).key}
    assert {r.algorithm for r in gradients} == {"tensor_core", "direct", "plain"}
    assert all(
        r.seconds > 0
        and r.at > 0
        and 0 <= r.error < (1e-3 if r.algorithm == "tf32" else 1e-6)
        and r.target == "cuda sm_90"
        for r in log
    )
    assert gpu_check.main(asked) == 0
    assert "0 records are new" in capsys.readouterr().out


def test_a_report_without_a_device_becomes_no_records(tmp_path, capsys):
    (tmp_path / "report.json").write_text(json.dumps({"device": {}, "results": []}))
    assert gpu_check.main(["records", str(tmp_path / "report.json"), "--logs", str(tmp_path)]) != 0
    assert "must name its device" in capsys.readouterr().err


def layer_result(name: str, *cases: tuple[str, float], peer: float = 0.0) -> dict[str, Any]:
    key = "conv2d-f16-n1c8h5w5-k8r3s3-st1x1-pd1.1.1.1-dl1x1-g1"
    rows = [{"key": key, "algorithm": a, "knobs": {}, "seconds": s, "ok": True, "default": a == "direct"} for a, s in cases]  # fmt: skip
    told = {"peer": {"fp16_nhwc": peer}} if peer else {}
    job = Job(name=name, part="layers")
    return {"job": msgspec.to_builtins(job), "cases": rows, **told}


def test_a_layers_jobs_are_one_row():
    found = [
        layer_result("layer-a-cudnn", ("cudnn", 4e-6)),
        layer_result("layer-a", ("direct", 9e-6), ("tensor_core", 8e-6), peer=6e-6),
        layer_result("layer-a-cutlass", ("cutlass", 3e-6), ("cutlass", 5e-6)),
    ]
    text = table(found, {}, 0)
    assert "| layer-a | 9.0 | 8.0 | tensor_core | 3.0 | 4.0 | 6.0 | 0.75 | 2.00 |  |  |" in text
    assert (
        "geometric mean of 1 layers: 0.75 by our kernels, 2.00 by the best of all, 2.00 where"
        in text
    )


def test_networks_are_right_and_timed(rehearsed):
    """Against float64: in float32, and in half precision within what its roundings cost."""
    found = {r["job"]["name"]: r for r in rehearsed.results.values() if r["job"]["part"] == "models"}  # fmt: skip
    plain, half = found["model-resnet18-n2"], found["model-resnet18-n1-float16-cudnn"]
    assert plain["ok"]
    assert half["ok"]
    assert plain["error"] < 1e-6 < plain["job"]["tolerance"] == 1e-4 < half["job"]["tolerance"]
    assert half["fallbacks"] == []
    assert {s["algorithm"] for s in half["steps"]} >= {"cudnn"}
    text = table(list(found.values()), {}, 0)
    assert "| resnet18, 2, float32 | " in text
    assert "| resnet18, 1, float16 | " in text


def test_weight_gradients_are_timed_by_every_row(rehearsed):
    cases = rehearsed.cases("gradients")
    dense, groups = ["tensor_core", "direct", "plain"], ["tensor_core", "direct", "grouped", "plain"]  # fmt: skip
    assert [c["algorithm"] for c in cases] == [*dense, *groups, *dense]
    assert all(c["seconds"] > 0 for c in cases)
    text = table(list(rehearsed.results.values()), {}, 0)
    assert "| convolution | default | tensor_core | direct | plain | grouped | wrong |" in text


def test_a_report_goes_to_another_machine_and_nothing_runs_twice(rehearsed, tmp_path, capsys):
    """The report's exit code says that jobs failed."""
    assert gpu_check.main(["report", "--folder", str(rehearsed.folder)]) == 1
    report = rehearsed.folder / "report.json"
    for job in rehearsed.folder.glob("*.job.json"):
        (tmp_path / job.name).write_bytes(job.read_bytes())
    gone = f"{DAMAGED}.job.json"
    (tmp_path / gone).unlink()
    assert gpu_check.main(["restore", str(report), "--folder", str(tmp_path)]) == 0
    count = len(rehearsed.jobs)
    assert f"{count - 1} of {count} results are in" in capsys.readouterr().out
    assert supervised(tmp_path, []) == 0
    restored = {r["job"]["name"]: r for r in collect(tmp_path / "results")}
    assert restored == {k: v for k, v in rehearsed.results.items() if k != DAMAGED}
    assert json.loads((tmp_path / "device.json").read_text())["sm"] == 90


def results_of(folder: Path, device: str, job: Job) -> Path:
    document = {"device": {"name": device, "sm": 90}, "results": [{"job": msgspec.to_builtins(job)}]}  # fmt: skip
    report = folder / f"{device}.json"
    report.write_text(json.dumps(document))
    return report


def test_results_of_another_build_or_device_are_not_taken(tmp_path, capsys):
    """Another turn is no other build."""
    job = Job(name="a", part="calls", sm="90")
    job.write(tmp_path)
    folder = ["--folder", str(tmp_path)]
    other = results_of(tmp_path, "one", Job(name="a", part="calls", sm="100"))
    assert gpu_check.main(["restore", str(other), *folder]) == 0
    assert "0 of 1 results are in" in (said := capsys.readouterr().out)
    assert "; 1 are of jobs that are built otherwise now" in said
    same = results_of(tmp_path, "one", Job(name="a", part="calls", sm="90", turn=3))
    assert gpu_check.main(["restore", str(same), *folder]) == 0
    assert "1 of 1 results are in" in capsys.readouterr().out
    assert gpu_check.main(["restore", str(results_of(tmp_path, "two", job)), *folder]) == TOOLCHAIN
    assert "must be of one device; got a report of two, sm 90" in capsys.readouterr().err


def test_a_folder_is_of_one_device(tmp_path, monkeypatch, capsys):
    device = Device("one", {"major": 9, "minor": 0})
    monkeypatch.setattr(gpu_check, "_require_device", lambda: device)
    run = ["run", "--no-peer", "--folder", str(tmp_path)]
    facts = tmp_path / "device.json"
    facts.write_text(json.dumps({"name": "one", "sm": 90}))
    Job(name="compiled-a", part="compiled", model="a").write(tmp_path)
    assert gpu_check.main(run) == 0
    assert "1 jobs by torch.compile are left out" in capsys.readouterr().out
    facts.write_text(json.dumps({"name": "one", "sm": 100}))
    assert gpu_check.main(run) == TOOLCHAIN
    assert "got one, sm 90, and" in capsys.readouterr().err


@pytest.mark.parametrize("place", [0, 1])
def test_a_result_that_is_no_number_is_wrong_wherever_it_is(place):
    right = np.array([1.0, 2.0])
    wrong = np.array([np.nan, np.nan])
    pairs = [(right, right), (right, right)]
    assert worst_error(pairs) == 0
    pairs[place] = (wrong, right)
    assert np.isnan(worst_error(pairs))


def test_a_half_result_s_own_rounding_is_no_error_of_its_record():
    """Otherwise no record of a narrow type would be chosen: its rounding alone is more than `Policy.record_error`."""
    expected = np.array([1.0, 2.0])
    rounded = np.array([2.0**-11, 0.0])
    assert beyond_rounding(rounded, expected, "float32") == 2.0**-12
    assert beyond_rounding(rounded, expected, "float16") == 0
    assert beyond_rounding(3 * rounded, expected, "float16") == 2.0**-11


def test_what_is_no_number_is_reported(tmp_path):
    """JSON has no NaN: it is kept as null, and neither a table nor a later case hides it."""
    spec = "x"
    cases = tuple(Case(key=spec, algorithm="direct", knobs={}) for _ in range(2))
    rows = [{"algorithm": "direct", "key": spec, "knobs": {}, "ok": ok, "exact_error": e, "error_of_bound": e} for ok, e in ((False, np.nan), (True, 0.5))]  # fmt: skip
    keep(tmp_path, Job(name="grid-a", part="grid", cases=cases), {"cases": rows})
    call = {**rows[0], "plan": "engine=1;"}
    keep(tmp_path, Job(name="calls-a", part="calls"), {"cases": [call]})
    network = {"error": np.inf, "ok": False, "seconds": 0.001, "steps": []}
    keep(tmp_path, Job(name="model-a", part="models", model="a"), network)
    text = table(collect(tmp_path), {}, 0)
    assert "| direct | 2 | 1 | 0 | NaN |" in text
    assert f"| {spec} | WRONG | NaN | engine=1; |" in text
    assert "| a, 1, float32 | NaN WRONG | 1.000 |" in text


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


def test_sums_in_clusters_are_tried_where_the_model_has_them_near_the_best():
    target = parse_target("cuda -arch=sm_90")
    (job,) = layer_jobs(
        layers(pattern="r50_5_1x1b"), 32, 8, target, "float16", "tensor_core_blocked"
    )
    clusters = [c.knobs.get("cluster") for c in job.cases]
    assert clusters[0] is None
    assert 2 <= sum(c is not None for c in clusters) <= 4


def test_a_device_without_the_compiler_runs_and_reports():
    # There is TVM's runtime only: 6 of 260 MB. What those two steps import must not want more.
    code = "import sys; sys.modules['tvm'] = None; import benchmarks.gpu_check, benchmarks.gpu.run, benchmarks.gpu.report"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
