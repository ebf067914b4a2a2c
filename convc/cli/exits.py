"""Exit codes: one table from exception classes to codes, and how an error is shown."""

from __future__ import annotations

import errno
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Final

import typer

from convc.errors import (
    AccuracyError,
    ConvcError,
    DeviceError,
    DTypeError,
    FrontendError,
    InputError,
    InvalidKnobsError,
    LoweringError,
    PackageError,
    ScheduleError,
    ShapeError,
    TextError,
    ToolchainError,
    TuningError,
    UnknownNameError,
    UntunedError,
    VerifyError,
)

__all__ = [
    "EXIT_CODES",
    "INTERRUPTED",
    "REPORTED",
    "UsageError",
    "error_document",
    "exit_code",
    "install_bug_report",
    "report_error",
]

# Typer carries its own copy of click in new versions and imports click in old ones; both are reached through this class.
UsageError: Final[type[Exception]] = typer.BadParameter.__bases__[0]

BUG, USAGE, MODEL, ACCURACY, TOOLCHAIN, UNTUNED, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130

# The nearest class in an exception's ancestry decides. OSError: a file that is missing, not readable or not writable.
EXIT_CODES: Final[dict[type[BaseException], int]] = {
    UsageError: USAGE,
    OSError: USAGE,
    InputError: USAGE,
    UnknownNameError: USAGE,
    TuningError: USAGE,
    UntunedError: UNTUNED,
    InvalidKnobsError: USAGE,
    FrontendError: MODEL,
    ShapeError: MODEL,
    DTypeError: MODEL,
    TextError: MODEL,
    ScheduleError: MODEL,
    AccuracyError: ACCURACY,
    ToolchainError: TOOLCHAIN,
    PackageError: TOOLCHAIN,
    DeviceError: TOOLCHAIN,
    VerifyError: BUG,
    LoweringError: BUG,
    ConvcError: BUG,
}

# What the command line catches; anything else is a bug in convc and goes to the excepthook.
REPORTED: Final = (ConvcError, OSError, UsageError)


def exit_code(error: BaseException) -> int:
    """Return the exit code for an exception.

    Example:
        >>> from convc.errors import UnsupportedConvError
        >>> exit_code(UnsupportedConvError("no")), exit_code(KeyError("no"))
        (3, 1)
    """
    return next((EXIT_CODES[c] for c in type(error).__mro__ if c in EXIT_CODES), BUG)


# What to try where the system refuses; of what is not here its own words say enough.
_TRY: Final = {
    errno.ENOSPC: "Free some room there, or write to another folder.",
    errno.EDQUOT: "Free some room there, or write to another folder.",
    errno.EROFS: "Write to another folder.",
    errno.EACCES: "Change its permissions, or name another file or folder.",
    errno.EPERM: "Change its permissions, or name another file or folder.",
    errno.ENOENT: "Is the name right, and may there be files in that folder?",
    errno.EMFILE: "Raise the limit with `ulimit -n`.",
}


# How Typer's validator words what a value should be.
_RULE: Final = re.compile(
    r"Input should be (.*?)(?:, unable to .*)?|Value error, .* is not (one of .*?)\.?"
)


def _refused_value(error: BaseException) -> str | None:
    """Return Typer's refusal of a flag's value in our form, with the value, which its own text lacks; None for anything else."""
    param, found = getattr(error, "param", None), getattr(error.__cause__, "errors", None)
    if param is None or not callable(found):
        return None
    first = found()[0]  # type: ignore[index]
    rule = _RULE.fullmatch(first["msg"])
    if rule is None:
        return None
    return f"{'/'.join(param.opts)} must be {rule[1] or rule[2]}; got {first['input']!r}."


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror is not None:
        where = f"'{error.filename}': " if error.filename is not None else ""
        return f"{where}{error.strerror}. {_TRY.get(error.errno or 0, '')}".rstrip()
    if (refused := _refused_value(error)) is not None:
        return refused
    # Typer adds "Invalid value for '--flag'" to what it found itself; our own texts name the flag.
    shown = getattr(error, "format_message", None)
    ours = isinstance(error, typer.BadParameter) and error.param is None
    text = shown() if callable(shown) and not ours else getattr(error, "message", str(error))
    return "\n".join((str(text), *getattr(error, "__notes__", ())))


def error_document(error: BaseException) -> dict[str, object]:
    """Return an error as `--json` shows it."""
    kind = "UsageError" if isinstance(error, UsageError) else type(error).__name__
    return {"kind": kind, "message": _message(error), "exit": exit_code(error)}


def report_error(error: BaseException, *, as_json: bool, verbose: bool = False) -> int:
    """Show an error, as one JSON document on stdout or as text on stderr, and return its exit code."""
    code, message = exit_code(error), _message(error)
    if as_json:
        from convc.cli.render import print_json

        print_json({"error": error_document(error)})
    else:
        first, *rest = message.splitlines() or [type(error).__name__]
        typer.echo("\n".join((f"error: {first}", *(f"  {line}" for line in rest))), err=True)
        if isinstance(error, UsageError):
            typer.echo("help: `convc --help`, or `convc VERB --help`.", err=True)
    if verbose:
        traceback.print_exception(error)
    return code


def _report_bug(error: BaseException, *, as_json: bool, verbose: bool) -> None:
    text = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile("w", prefix="convc-bug-", suffix=".txt", delete=False) as file:
        file.write(f"convc {' '.join(sys.argv[1:])}\n\n{text}")
    shown = "".join(traceback.format_exception_only(error)).strip()
    message = (
        f"convc has a bug: {shown}\n"
        f"The full traceback is in {file.name} (-v shows it); please report it with the model, or its `convc inspect --text`."
    )
    if as_json:
        from convc.cli.render import print_json

        print_json({"error": {"kind": type(error).__name__, "message": message, "exit": BUG}})
    else:
        typer.echo(f"error: {message}", err=True)
    if verbose:
        typer.echo(text, err=True)


def install_bug_report(*, as_json: bool, verbose: bool) -> None:
    """Make an exception that nobody catches end in a short message and exit code 1."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        _report_bug(error, as_json=as_json, verbose=verbose)

    installed: Callable[[type[BaseException], BaseException, TracebackType | None], None] = hook
    sys.excepthook = installed
