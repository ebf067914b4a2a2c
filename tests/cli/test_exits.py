from __future__ import annotations

import errno
import inspect

import pytest
import typer

from convc import errors
from convc.cli.exits import EXIT_CODES, error_document, exit_code

CODES = {
    errors.UnsupportedModelError: 3,
    errors.InvalidModelError: 3,
    errors.ShapeError: 3,
    errors.DTypeError: 3,
    errors.TextError: 3,
    errors.UnsupportedConvError: 3,
    errors.FrontendError: 3,
    errors.ScheduleError: 3,
    errors.UnknownNameError: 2,
    errors.InvalidKnobsError: 2,
    errors.TuningError: 2,
    errors.UntunedError: 6,
    errors.InputError: 2,
    errors.AccuracyError: 4,
    errors.ToolchainError: 5,
    errors.PackageError: 5,
    errors.TargetMismatchError: 5,
    errors.DeviceError: 5,
    errors.VerifyError: 1,
    errors.LoweringError: 1,
    errors.ConvcError: 1,
}


@pytest.mark.parametrize(("kind", "code"), CODES.items(), ids=lambda v: getattr(v, "__name__", v))
def test_every_class_of_error_has_its_exit_code(kind: type[Exception], code: int) -> None:
    assert exit_code(kind("x")) == code


def test_no_class_of_error_is_forgotten() -> None:
    classes = {
        c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)
    }
    assert classes == set(CODES)
    assert {c for c in EXIT_CODES if c.__module__ == "convc.errors"} <= classes


def test_files_and_flags_are_usage_and_the_rest_is_a_bug() -> None:
    assert exit_code(FileNotFoundError("x")) == 2
    assert exit_code(typer.BadParameter("x")) == 2
    assert exit_code(KeyError("x")) == 1


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device. Free some room there, or write to another folder."),
        (OSError(errno.EROFS, "Read-only file system", "/x/a.so"), "'/x/a.so': Read-only file system. Write to another folder."),
        (OSError(errno.EIO, "Input/output error", "a.so"), "'a.so': Input/output error."),
    ],
)  # fmt: skip
def test_what_the_system_refuses_comes_with_a_way_out(error: OSError, text: str) -> None:
    assert error_document(error) == {"kind": type(error).__name__, "message": text, "exit": 2}
