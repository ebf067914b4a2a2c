"""The device check's command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

__all__ = ["PARTS", "parser_of"]

# Named here, too: `benchmarks.gpu.plans` imports the compiler, which a device's machine need not have.
PARTS: Final = "calls,refusals,grid,gradients,layers,bytes,models,compiled"
_PLANS: Final = ("bytes", "first")


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of all steps."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=description, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    steps = parser.add_subparsers(dest="step", required=True)
    for name, text in (
        ("build", "build the jobs that the folder lacks"),
        ("run", "run the jobs without a result"),
        ("report", "write JSON and table"),
        ("restore", "take the results of an earlier report into a folder"),
        (
            "records",
            "write the times of an earlier report's layers and gradients, our kernels' alone, as tuning records",
        ),
        ("pack", "put all that the device's machine needs into one archive"),
        ("tasks", "write the zoo's distinct layers to a file"),
        ("tune", "tune a file's layers on this machine's device"),
    ):
        step = steps.add_parser(name, help=text, description=text)
        step.add_argument("--folder", type=Path, default=Path("gpu"), help="of the jobs; default gpu")  # fmt: skip
        if name == "build":
            add = step.add_argument
            add("--sm", default="90", help="capabilities, as in `convc compile`; default 90")
            add("--plan", choices=sorted(_PLANS), help="first: what is younger than the last run on a device, in the order in which its minutes are best spent; bytes: layers of bytes; the options behind this one do not count then")  # fmt: skip
            add("--parts", default=PARTS, help=f"of {PARTS}: cuDNN call by call, what is done where cuDNN refuses, the test grid, weight gradients of grid and layers, layers, layers of bytes, networks, the same by torch.compile; default all")  # fmt: skip
            add(
                "--layers", default="*", metavar="GLOB,...", help="only layers whose id matches one"
            )
            add("--batches", default="1", help="of layers and networks, as in 1,32; default 1")
            add("--algos", default="*", metavar="GLOB", help="of grid and layers; default all")
            add("--types", default="float32", help="element types of layers, grid and networks, as in float32,float16; default float32")  # fmt: skip
            add("--settings", type=int, default=8, help="settings of a layer; default 8")
            add("--models", default="", help="networks of the zoo; default all")
            add("--jobs", type=int, default=1, help="built at the same time; default 1")
            add("--dry-run", action="store_true", help="list the jobs only")
        if name == "tasks":
            step.add_argument("--models", default="", help="networks of the zoo; default all")
            step.add_argument("--batches", default="1", help="as in 1,32; default 1")
            step.add_argument(
                "--types", default="float32", help="as in float32,float16; default float32"
            )
            step.add_argument(
                "--steps",
                default="",
                help="batches of ResNet-18's training step, with its weight gradients, as in 32; default none",
            )
            step.add_argument("-o", "--output", type=Path, default=Path("tasks.jsonl"), help="the file")  # fmt: skip
        if name == "tune":
            add = step.add_argument
            add("--tasks", type=Path, required=True, help="a file that the step tasks wrote")
            add("--logs", type=Path, default=Path("tuning_logs"), help="folder of the tuning logs")
            add("--seconds", type=float, default=450, help="for all layers; default 450")
            add("--trials-per-layer", type=int, default=28, help="default 28")
            add("--jobs", type=int, default=3, help="settings built at the same time; default 3")
            add("--algos", default="", help="as in `convc tune`")
            add("--warm-start", type=Path, metavar="LOG", help="as in `convc tune`: try the best settings of another log first")  # fmt: skip
            add("--fresh", action="store_true", help="as in `convc tune`: measure again what the log has already")  # fmt: skip
            add("-o", "--output", type=Path, default=Path("tuned"), help="what each layer has come to, written after each: OUTPUT.json and OUTPUT.md; default tuned")  # fmt: skip
        if name == "run":
            add = step.add_argument
            add("--seconds", type=float, default=450, help="stop starting jobs after so long; default 450")  # fmt: skip
            add("--job-seconds", type=float, default=120, help="a job that takes longer has failed, and a process that begins none for so long is stopped; default 120")  # fmt: skip
            add("--compile-seconds", type=float, default=240, help="for a network by torch.compile, which the next call goes on with; default 240")  # fmt: skip
            add("--share", default="1/1", metavar="I/N", help="every N-th job from the I-th on: N such runs beside each other compute their references at the same time and use the device by turns; default 1/1")  # fmt: skip
            add("--no-peer", action="store_true", help="without torch's times")
            # What a child is told: the seconds for which it may begin jobs, and which job it is for.
            add("--child", nargs="+", metavar="SECONDS [JOB]", help=argparse.SUPPRESS)
        if name in ("restore", "records"):
            step.add_argument("report", type=Path, help="report.json of the earlier machine")
        if name == "records":
            step.add_argument(
                "--logs", type=Path, default=Path("tuning_logs"), help="folder of the tuning logs"
            )
        if name == "pack":
            step.add_argument("-o", "--output", type=Path, default=Path("gpu.tar.xz"), help="the archive")  # fmt: skip
            step.add_argument("--python", default="3.12", help="the device machine's; default 3.12")
            step.add_argument("--tasks", type=Path, help="a file that the step tasks wrote: with TVM's compiler, to tune its layers there; jobs, if there are any, too")  # fmt: skip
    return parser
