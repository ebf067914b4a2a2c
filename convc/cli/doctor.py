"""`convc doctor`: what is wrong with this machine, and how to repair it."""

from __future__ import annotations

import typer

from convc.cli.exits import TOOLCHAIN
from convc.cli.parameters import JsonOption, QuietOption, VerboseOption
from convc.cli.render import Column, Output, console, print_json, table

__all__ = ["doctor"]


def doctor(
    json: JsonOption = False, quiet: QuietOption = False, verbose: VerboseOption = False
) -> None:
    """Check Python, TVM, LLVM, the CPU and the optional pieces; exit 5 if convc cannot work here."""
    from convc.doctor import diagnose

    output = Output(json, quiet, verbose)
    checks = diagnose()
    failed = [c for c in checks if c.status == "fail"]
    if output.json:
        print_json({"ok": not failed, "checks": checks})
    else:
        shown = [c for c in checks if c.status != "ok"] if output.quiet else checks
        if shown:
            columns = (Column(""), Column("what"), Column("found"), Column("to do"))
            console().print(
                table(None, columns, [(c.status, c.name, c.detail, c.fix) for c in shown])
            )
        if not output.quiet:
            verdict = (
                f"convc cannot work: {', '.join(c.name for c in failed)}"
                if failed
                else "convc can work here."
            )
            console().print(verdict, markup=False)
    if failed:
        raise typer.Exit(TOOLCHAIN)
