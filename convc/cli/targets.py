"""`convc targets`: what can be built for."""

from __future__ import annotations

from convc.cli.parameters import JsonOption, QuietOption, VerboseOption
from convc.cli.render import Column, Output, console, print_json, table

__all__ = ["targets"]


def targets(
    json: JsonOption = False, quiet: QuietOption = False, verbose: VerboseOption = False
) -> None:
    """List the CPUs that `--mcpu` takes: this machine's, the x86-64 levels, and (-v) every name of LLVM."""
    from convc.target import PRESETS, known_cpus, parse_target
    from convc.toolchain import check_toolchain

    check_toolchain()
    output = Output(json, quiet, verbose)
    host = parse_target("llvm", "host")
    # The levels are x86's; on another architecture LLVM does not know them.
    names = known_cpus(host.triple)
    rows = [
        ("host", host),
        *((name, parse_target("llvm", name)) for name in PRESETS if name in names),
    ]
    if output.json:
        print_json({"targets": [{"mcpu": name, **_facts(t)} for name, t in rows], "cpus": names})
        return
    columns = (
        Column("--mcpu"),
        Column("cpu"),
        Column("float32 lanes", True),
        Column("instruction sets"),
    )
    cells = [(name, t.mcpu, str(t.lanes), " ".join(t.features)) for name, t in rows]
    screen = console()
    screen.print(table("--target llvm", columns, cells))
    if output.verbose:
        screen.print(" ".join(names), markup=False)
    else:
        screen.print(
            f"and {len(names)} more names of LLVM: `convc targets -v` lists them.", markup=False
        )


def _facts(target: object) -> dict[str, object]:
    names = ("kind", "triple", "features", "lanes", "registers", "l1_bytes", "l2_bytes", "l3_bytes")
    return {"cpu": getattr(target, "mcpu"), **{n: getattr(target, n) for n in names}}  # noqa: B009
