"""The command line: `convc VERB`. Every verb is one file; nothing heavy is imported before a verb runs."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from convc.cli import (
    bench,
    check,
    compile,
    doctor,
    explain,
    inspect,
    log,
    ops,
    rpc,
    run,
    sign,
    targets,
    tune,
    verify,
)
from convc.cli.exits import INTERRUPTED, REPORTED, install_bug_report, report_error
from convc.version import VERSION

__all__ = ["VERBS", "invoke", "main"]

# In the order of a user's work; the verb is the function's name.
VERBS: Final = (
    check.check,
    inspect.inspect,
    compile.compile,
    tune.tune,
    run.run,
    bench.bench,
    verify.verify,
    sign.sign,
    explain.explain,
    ops.ops,
    targets.targets,
    rpc.rpc_tracker,
    rpc.rpc_server,
    doctor.doctor,
)

_SHORT_HELP: Final = """\
convc compiles convolution networks: an ONNX model in, one module that needs no compiler out.

  convc compile resnet50.onnx -o resnet50.so     compile for this machine, and check the result
  convc run resnet50.so -i random --print-top 5  run it once
  convc bench resnet50.so --profile              time it, layer by layer
  convc explain resnet50.onnx                    which algorithm each layer gets, and why

Verbs: {verbs}.
`convc --help` says what they do, `convc VERB --help` lists a verb's flags."""

_app = typer.Typer(
    name="convc",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb in VERBS:
    _app.command()(_verb)
_app.add_typer(log.app, name="log")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"convc {VERSION}")
        raise typer.Exit


@_app.callback(invoke_without_command=True)
def _convc(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Compile convolution networks: an ONNX model in, one module that needs no compiler out."""
    if context.invoked_subcommand is None:
        verbs = [v.__name__.replace("_", "-") for v in VERBS]
        typer.echo(_SHORT_HELP.format(verbs=", ".join([*verbs, "log"])))


@functools.cache
def _command() -> Any:
    # Putting the verbs' parsers together takes 80 ms; tests run many commands in a process.
    return typer.main.get_command(_app)


def invoke(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are shown, bugs propagate."""
    as_json = "--json" in arguments
    verbose = bool({"-v", "--verbose"} & set(arguments))
    try:
        code = _command().main(args=list(arguments), prog_name="convc", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except REPORTED as error:
        return report_error(error, as_json=as_json, verbose=verbose)
    if code == INTERRUPTED:
        typer.echo("interrupted", err=True)
    return code if isinstance(code, int) else 0


def main() -> None:
    """Run the command line's own arguments and exit; SIGTERM is as Ctrl-C, so that whatever is running ends whole."""
    arguments = sys.argv[1:]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    install_bug_report(
        as_json="--json" in arguments, verbose=bool({"-v", "--verbose"} & set(arguments))
    )
    sys.exit(invoke(arguments))
