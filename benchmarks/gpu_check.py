"""Check and tune convc on a CUDA device, in steps that can be cut off and go on.

python -m benchmarks.gpu_check build --sm 90 --folder gpu      anywhere with nvcc, no device; --plan first: what is younger than a run
python -m benchmarks.gpu_check pack --folder gpu -o gpu.tar.xz   for a machine without network: jobs, runtime, this program
python -m benchmarks.gpu_check run --folder gpu                on the device; again after an interruption
python -m benchmarks.gpu_check report --folder gpu             anywhere: gpu/report.json, gpu/report.md
python -m benchmarks.gpu_check restore report.json --folder gpu  the results of an earlier machine: run goes on behind them
python -m benchmarks.gpu_check records report.json             times of layers and gradients, our kernels' alone, as records
python -m benchmarks.gpu_check tasks -o tasks.jsonl            where the networks are: their layers, to be tuned
python -m benchmarks.gpu_check tune --tasks tasks.jsonl        on the device, with TVM, nvcc and g++: tuning_logs/cuda/<device>.jsonl
python -m benchmarks.gpu_check pack --tasks tasks.jsonl -o tune.tar.xz  for a machine without network: TVM and convc whole, to tune there
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.arguments import exit_code, names
from benchmarks.gpu.command_line import PARTS, parser_of
from benchmarks.gpu.job import Job
from benchmarks.gpu.report import collect, table
from benchmarks.gpu.run import keep, waiting
from benchmarks.gpu.share import device_turn, share_of
from benchmarks.gpu.supervise import unfinished
from convc.cli.exits import INTERRUPTED
from convc.errors import ToolchainError, unknown_name
from convc.runtime.driver import Device

__all__ = ["end_as_by_ctrl_c", "main"]

_FACTS = "device.json"


def _say(text: str) -> None:
    print(text, flush=True)


def _build(given: argparse.Namespace) -> int:
    from benchmarks.gpu.build import make
    from benchmarks.gpu.plans import Asked, jobs_of, planned
    from benchmarks.zoo import NAMES
    from convc.runtime.libraries.cutlass import find_cutlass
    from convc.target import parse_target

    target = parse_target(f"cuda -arch={given.sm}")
    asked = Asked(
        parts=names(given.parts),
        layers=names(given.layers),
        batches=[int(n) for n in names(given.batches)],
        algos=given.algos,
        types=names(given.types),
        settings=given.settings,
        models=names(given.models) or NAMES,
    )
    if unknown := [p for p in asked.parts if p not in names(PARTS)]:
        raise unknown_name("part of the check", unknown[0], names(PARTS))
    jobs = list(planned(given.plan, target) if given.plan else jobs_of(asked, target))
    if find_cutlass() is None:
        without = [j for j in jobs if not (j.cases and j.cases[0].algorithm == "cutlass")]
        if left_out := len(jobs) - len(without):
            _say(f"{left_out} jobs of cutlass are left out: its headers are not here (pip install 'convc[cutlass]').")  # fmt: skip
        jobs = without
    if given.dry_run:
        for job in jobs:
            _say(f"{job.part:<9} {job.name}  {len(job.cases) or 1} cases")
        return 0
    failed = make(jobs, given.folder, target, _say, given.jobs)
    _say(f"{len(jobs) - len(failed)} of {len(jobs)} jobs are in '{given.folder}'.")
    return 1 if failed else 0


def _run(given: argparse.Namespace) -> int:
    from benchmarks.gpu.supervise import Limits, supervise

    if given.child:
        return _run_here(given)
    # First: what torch is missed for needs one.
    _require_same_device(given.folder / _FACTS, _require_device())
    if not given.no_peer and find_spec("torch") is None:
        raise ToolchainError(
            "gpu_check run must have torch for the peer's times; got no module 'torch'. "
            "Install torch, or leave the peer out with --no-peer."
        )
    command = [sys.executable, "-m", "benchmarks.gpu_check", "run", "--folder", str(given.folder)]
    command += ["--no-peer"] if given.no_peer else []
    command += ["--share", given.share]
    share = share_of(given.share)
    limits = Limits(given.seconds, given.job_seconds, given.compile_seconds, idle=given.job_seconds)
    left_to_run = waiting(given.folder, given.folder / "results")
    compiled = sum(j.part == "compiled" for j in left_to_run)
    if compiled and (given.no_peer or share.of > 1):
        why = "--no-peer" if given.no_peer else f"--share {share}; a run without it takes them"
        _say(f"{compiled} jobs by torch.compile are left out: {why}.")
    command += ["--child"]
    left = supervise(command, given.folder, limits, _say, peer=not given.no_peer, share=share)
    if left:
        _say(f"{left} jobs are left: run the same command again.")
    return 0


def _require_device() -> Device:
    from convc.runtime.driver import look

    state = look()
    if not state.devices:
        raise ToolchainError(f"gpu_check run must find a CUDA device; got none: {state.problem}.")
    return state.devices[0]


def _require_same_device(facts: Path, device: Device) -> None:
    """Raise ToolchainError if a folder has another device's results; one report is of one device."""
    if not facts.is_file():
        return
    had, have = _identity(json.loads(facts.read_bytes())), f"{device.name}, sm {device.sm}"
    if had and had != have:
        raise ToolchainError(
            f"results of one folder must be of one device; got {have}, and '{facts.parent}' has results of {had}. "
            "Build another folder (--folder), or take 'results' and 'device.json' out of this one."
        )


def _identity(facts: Mapping[str, Any]) -> str:
    """Return which device a `device.json` is of."""
    return f"{facts['name']}, sm {facts['sm']}" if facts else ""


def _run_here(given: argparse.Namespace) -> int:
    """Run jobs in this process, which may die of them."""
    from benchmarks.gpu.run import DeviceLostError, run_jobs, waiting
    from benchmarks.gpu.supervise import LOST

    device = _require_device()
    seconds, *only = given.child
    results, facts = given.folder / "results", given.folder / _FACTS
    peer = None
    if not given.no_peer:
        from benchmarks.gpu.peer import Peer

        peer = Peer()
    while not facts.is_file():
        with device_turn(given.folder):
            if facts.is_file():
                break
            plain = {"name": device.name, "sm": device.sm, "driver": device.facts}
            facts.write_text(json.dumps(peer.facts() if peer else plain, indent=1))
    left = waiting(given.folder, results, share_of(given.share))
    mine = [j for j in left if (j.name in only if only else j.part != "compiled")]
    try:
        run_jobs(mine, given.folder, results, float(seconds), peer, _say)
    except DeviceLostError:
        return LOST
    return 0


def _report(given: argparse.Namespace) -> int:
    results = given.folder / "results"
    found = collect(results)
    facts_file = given.folder / _FACTS
    facts = json.loads(facts_file.read_text()) if facts_file.is_file() else {}
    cut_off = unfinished(results)
    left = len(list(given.folder.glob("*.job.json"))) - len(found)
    text = table(found, facts, left, cut_off)
    document = {"device": facts, "results": found, "unfinished": [msgspec.to_builtins(u) for u in cut_off]}  # fmt: skip
    (given.folder / "report.md").write_text(text)
    (given.folder / "report.json").write_text(json.dumps(document, indent=1))
    _say(text)
    wrong = any(r.get("failed") or not r.get("ok", True) or not all(c["ok"] for c in r.get("cases", ())) for r in found)  # fmt: skip
    return 1 if wrong else 0


def _restore(given: argparse.Namespace) -> int:
    document = json.loads(given.report.read_bytes())
    results = given.folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    facts = given.folder / _FACTS
    theirs = _identity(document["device"])
    ours = _identity(json.loads(facts.read_bytes())) if facts.is_file() else ""
    if theirs and ours and theirs != ours:
        raise ToolchainError(
            f"results of one folder must be of one device; got a report of {theirs}, and '{given.folder}' has results of {ours}. "
            "Restore into another folder (--folder)."
        )
    if theirs and not ours:
        facts.write_text(json.dumps(document["device"], indent=1))
    # When a job runs is nothing that a result depends on.
    known = {j.name: msgspec.structs.replace(j, turn=0) for j in waiting(given.folder, results)}
    count = changed = 0
    for result in document["results"]:
        job = msgspec.convert(result["job"], Job)
        if job.name not in known:
            continue
        if known[job.name] != msgspec.structs.replace(job, turn=0):
            changed += 1
            continue
        keep(results, job, {k: v for k, v in result.items() if k != "job"})
        count += 1
    _say(f"{count} of {len(document['results'])} results are in '{results}'; {changed} are of jobs that are built otherwise now and will run again, the others of no job there, or were there.")  # fmt: skip
    return 0


def _records(given: argparse.Namespace) -> int:
    from benchmarks.gpu.records import write_records

    log, count = write_records(given.report, given.logs)
    _say(f"{count} records are new in {log}")
    return 0


def _tasks(given: argparse.Namespace) -> int:
    from benchmarks.gpu.tasks import write_tasks, zoo_tasks
    from benchmarks.zoo import NAMES

    batches, steps = ([int(n) for n in names(text)] for text in (given.batches, given.steps))
    tasks = zoo_tasks(names(given.models) or NAMES, batches, names(given.types), steps)
    write_tasks(tasks, given.output)
    _say(f"{len(tasks)} layers are in '{given.output}'.")
    return 0


def _tune(given: argparse.Namespace) -> int:
    from benchmarks.gpu.tasks import policy_of, read_tasks, tune
    from benchmarks.gpu.tuned import write_tuned
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
        warm_start=given.warm_start,
        fresh=given.fresh,
    )
    tasks = read_tasks(given.tasks)
    _say(f"{len(tasks)} layers, {given.seconds:g} s at most; a line for each that is done")
    session = tune(tasks, target, log, options, _say, lambda s: write_tuned(s, given.output))
    write_tuned(session, given.output)
    done = sum(layer.done for layer in session.layers)
    _say(
        f"{done} of {len(session.layers)} layers done; trials: {session.counts}; records are in {log}"
    )
    return 0


def _pack(given: argparse.Namespace) -> int:
    from benchmarks.gpu.pack import pack

    if given.tasks is not None:
        _say("packing TVM's compiler, 260 MB: about 4 minutes of one core")
    size = pack(given.folder, given.output, given.python, given.tasks)
    _say(f"{given.output}  {size / 2**20:.1f} MiB")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one step; return the exit code."""
    given = parser_of(__doc__).parse_args(arguments)
    steps = {
        "build": _build,
        "run": _run,
        "report": _report,
        "restore": _restore,
        "pack": _pack,
        "records": _records,
        "tasks": _tasks,
        "tune": _tune,
    }
    try:
        return exit_code(lambda: steps[given.step](given))
    except KeyboardInterrupt:
        _say("interrupted: the same command goes on.")
        return INTERRUPTED


def end_as_by_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP interrupt: a machine's time is over, or its terminal gone; the job that runs is not to blame."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Under nohup SIGHUP stays ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


if __name__ == "__main__":
    end_as_by_ctrl_c()
    sys.exit(main())
