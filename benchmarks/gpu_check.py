"""Check and tune convc on a CUDA device, in steps that can be cut off and go on.

python -m benchmarks.gpu_check build --sm 90 --folder gpu      anywhere with nvcc; no device
python -m benchmarks.gpu_check pack --folder gpu -o gpu.tar.xz   for a machine without network: jobs, runtime, this program
python -m benchmarks.gpu_check run --folder gpu                on the device; again after an interruption
python -m benchmarks.gpu_check report --folder gpu             anywhere: gpu/report.json, gpu/report.md
python -m benchmarks.gpu_check tasks -o tasks.jsonl            where the networks are: their layers, to be tuned
python -m benchmarks.gpu_check tune --tasks tasks.jsonl        on the device, with TVM and nvcc: tuning_logs/cuda/<device>.jsonl
"""

from __future__ import annotations

import argparse
import fnmatch
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu.job import Job
from benchmarks.gpu.report import collect, table
from benchmarks.gpu.run import run_jobs
from convc.cli.exits import REPORTED, report_error
from convc.errors import ToolchainError

__all__ = ["main"]

_FACTS = "device.json"


def _say(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    steps = parser.add_subparsers(dest="step", required=True)
    for name, text in (
        ("build", "build the jobs that the folder lacks"),
        ("run", "run the jobs without a result"),
        ("report", "write JSON and table"),
        ("pack", "put all that the device's machine needs into one archive"),
        ("tasks", "write the zoo's distinct layers to a file"),
        ("tune", "tune a file's layers on this machine's device"),
    ):
        step = steps.add_parser(name, help=text, description=text)
        step.add_argument("--folder", type=Path, default=Path("gpu"), help="of the jobs; default gpu")  # fmt: skip
        if name == "build":
            add = step.add_argument
            add("--sm", default="90", help="capabilities, as in `convc compile`; default 90")
            add("--parts", default="grid,gradients,layers,models,calls", help="of grid, gradients (weight gradients of grid and layers), layers, models, calls (cuDNN call by call); default all")  # fmt: skip
            add(
                "--layers", default="*", metavar="GLOB,...", help="only layers whose id matches one"
            )
            add("--batches", default="1", help="of layers and networks, as in 1,32; default 1")
            add("--algos", default="*", metavar="GLOB", help="of the grid; default all")
            add("--types", default="float32", help="element types of layers and grid, as in float32,float16; default float32")  # fmt: skip
            add("--settings", type=int, default=8, help="settings of a layer; default 8")
            add("--models", default="", help="networks of the zoo; default all")
            add("--jobs", type=int, default=1, help="built at the same time; default 1")
            add("--dry-run", action="store_true", help="list the jobs only")
        if name == "tasks":
            step.add_argument("--models", default="", help="networks of the zoo; default all")
            step.add_argument("--batches", default="1", help="as in 1,32; default 1")
            step.add_argument("-o", "--output", type=Path, default=Path("tasks.jsonl"), help="the file")  # fmt: skip
        if name == "tune":
            add = step.add_argument
            add("--tasks", type=Path, required=True, help="a file that the step tasks wrote")
            add("--logs", type=Path, default=Path("tuning_logs"), help="folder of the tuning logs")
            add("--seconds", type=float, default=450, help="for all layers; default 450")
            add("--trials-per-layer", type=int, default=28, help="default 28")
            add("--jobs", type=int, default=3, help="settings built at the same time; default 3")
            add("--algos", default="", help="as in `convc tune`")
        if name == "run":
            step.add_argument("--seconds", type=float, default=450, help="stop starting jobs after so long; default 450")  # fmt: skip
            step.add_argument("--torch-compile", action="store_true", help="also time torch.compile's max-autotune: minutes for a network")  # fmt: skip
            step.add_argument("--no-peer", action="store_true", help="without torch's times")
        if name == "pack":
            step.add_argument("-o", "--output", type=Path, default=Path("gpu.tar.xz"), help="the archive")  # fmt: skip
            step.add_argument("--python", default="3.12", help="the device machine's; default 3.12")
    return parser


def _build(given: argparse.Namespace) -> int:
    from benchmarks.gpu.build import grid_jobs, layer_jobs, make, model_jobs
    from benchmarks.gpu.gradients import gradient_jobs
    from benchmarks.layer_list import layers
    from benchmarks.zoo import NAMES
    from convc.runtime.libraries.cutlass import find_cutlass
    from convc.target import parse_target
    from tests.conv_grid import CONV_GRID

    target = parse_target(f"cuda -arch={given.sm}")
    batches = [int(n) for n in given.batches.split(",")]
    parts = given.parts.split(",")
    types = given.types.split(",")
    jobs = []
    for dtype in types if "grid" in parts else ():
        every = grid_jobs([replace(r.spec, dtype=dtype) for r in CONV_GRID], target)
        jobs += [j for j in every if fnmatch.fnmatchcase(j.cases[0].algorithm, given.algos)]
    for dtype, batch in itertools.product(types, batches) if "layers" in parts else ():
        chosen = dict.fromkeys(row for g in given.layers.split(",") for row in layers((), g))
        jobs += layer_jobs(list(chosen), batch, given.settings, target, dtype)
    for dtype in types if "gradients" in parts else ():
        specs = [replace(r.spec, dtype=dtype) for r in CONV_GRID]
        jobs += gradient_jobs(specs, target, f"gradients-grid-{dtype}")
        chosen = dict.fromkeys(row for g in given.layers.split(",") for row in layers((), g))
        for batch, row in itertools.product(batches, chosen):
            spec = replace(row.spec if batch == 1 else row.spec.with_batch(batch), dtype=dtype)
            jobs += gradient_jobs([spec], target, f"gradients-n{batch}-{dtype}-{row.name}")
    if "models" in parts:
        jobs += model_jobs(given.models.split(",") if given.models else NAMES, batches)
    if "calls" in parts:
        jobs.append(Job(name="calls-cudnn", part="calls"))
    if find_cutlass() is None:
        without = [j for j in jobs if not (j.cases and j.cases[0].algorithm == "cutlass")]
        if left_out := len(jobs) - len(without):
            _say(f"{left_out} jobs of cutlass are left out: its headers are not here (pip install 'convc[cutlass]').")  # fmt: skip
        jobs = without
    if given.dry_run:
        for job in jobs:
            _say(f"{job.part:<7} {job.name}  {len(job.cases) or 1} cases")
        return 0
    failed = make(jobs, given.folder, target, _say, given.jobs)
    _say(f"{len(jobs) - len(failed)} of {len(jobs)} jobs are in '{given.folder}'.")
    return 1 if failed else 0


def _run(given: argparse.Namespace) -> int:
    from convc.runtime.driver import look

    state = look()
    if not state.devices:
        raise ToolchainError(f"gpu_check run must find a CUDA device; got none: {state.problem}.")
    results = given.folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    peer = None
    facts = results.parent / _FACTS
    if not given.no_peer:
        try:
            from benchmarks.gpu.peer import Peer
        except ImportError as error:
            raise ToolchainError(
                f"gpu_check run must have torch for the peer's times; got no module '{error.name}'. "
                "Install torch, or leave the peer out with --no-peer."
            ) from None
        peer = Peer(compiled=given.torch_compile)
        if not facts.is_file():
            facts.write_text(json.dumps(peer.facts(), indent=1))
    elif not facts.is_file():
        device = state.devices[0]
        facts.write_text(json.dumps({"name": device.name, "sm": device.sm, "driver": device.facts}, indent=1))  # fmt: skip
    left = run_jobs(given.folder, results, given.seconds, peer, _say)
    if left:
        _say(f"{left} jobs are left: run the same command again.")
    return 0


def _report(given: argparse.Namespace) -> int:
    results = given.folder / "results"
    found = collect(results)
    facts_file = given.folder / _FACTS
    facts = json.loads(facts_file.read_text()) if facts_file.is_file() else {}
    left = len(list(given.folder.glob("*.job.json"))) - len(found)
    text = table(found, facts, left)
    (given.folder / "report.md").write_text(text)
    (given.folder / "report.json").write_text(json.dumps({"device": facts, "results": found}, indent=1))  # fmt: skip
    _say(text)
    wrong = any(r.get("failed") or not r.get("ok", True) or not all(c["ok"] for c in r.get("cases", ())) for r in found)  # fmt: skip
    return 1 if wrong else 0


def _tasks(given: argparse.Namespace) -> int:
    from benchmarks.gpu.tasks import write_tasks, zoo_tasks
    from benchmarks.zoo import NAMES

    names = given.models.split(",") if given.models else NAMES
    tasks = zoo_tasks(names, [int(n) for n in given.batches.split(",")])
    write_tasks(tasks, given.output)
    _say(f"{len(tasks)} layers are in '{given.output}'.")
    return 0


def _tune(given: argparse.Namespace) -> int:
    from benchmarks.gpu.tasks import policy_of, read_tasks, tune
    from convc.target import parse_target
    from convc.tuning.device import log_path
    from convc.tuning.options import Options

    target = parse_target("cuda")
    log = log_path(given.logs, target)
    log.parent.mkdir(parents=True, exist_ok=True)
    options = Options(
        seconds=given.seconds,
        trials_per_layer=given.trials_per_layer,
        jobs=given.jobs,
        policy=policy_of(given.algos),
    )
    session = tune(read_tasks(given.tasks), target, log, options, _say)
    done = sum(layer.done for layer in session.layers)
    _say(
        f"{done} of {len(session.layers)} layers done; trials: {session.counts}; records are in {log}"
    )
    return 0


def _pack(given: argparse.Namespace) -> int:
    from benchmarks.gpu.pack import pack

    size = pack(given.folder, given.output, given.python)
    _say(f"{given.output}  {size / 2**20:.1f} MiB")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one step; return the exit code."""
    given = _parser().parse_args(arguments)
    steps = {
        "build": _build,
        "run": _run,
        "report": _report,
        "pack": _pack,
        "tasks": _tasks,
        "tune": _tune,
    }
    try:
        return steps[given.step](given)
    except REPORTED as error:
        return report_error(error, as_json=False)


if __name__ == "__main__":
    sys.exit(main())
