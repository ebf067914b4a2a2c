"""The tests' own C programs: built, and run with what they print compared."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convc.deploy.libconvc import NATIVE, build_library
from tests.deploy.small_net import expected, image

__all__ = ["HERE", "Programs", "assert_outputs", "run"]

HERE = Path(__file__).parent
_WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")


def run(command: Sequence[str | Path], **options: object) -> str:
    """Run a program, fail with its messages if it fails, and return what it printed."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=500, **options
    )  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def assert_outputs(folder: Path, seed: int = 1) -> None:
    """Compare the files scores.bin and features.bin with the reference, bit by bit."""
    for name, value in expected(image(seed)).items():
        found = np.fromfile(folder / f"{name}.bin", np.float32).reshape(value.shape)
        np.testing.assert_array_equal(found, value)


class Programs:
    """libconvc and the driver in one folder, built with some options."""

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.folder = folder
        library = build_library(folder, options=["-Werror", *options])
        self.driver = folder / "driver"
        run(
            [
                *("gcc", "-std=c11", "-O1", *_WARNINGS, *options, f"-I{NATIVE / 'include'}"),
                *(HERE / "driver.c", "-o", self.driver, library, "-lpthread"),
                f"-Wl,-rpath,{folder}",
            ]
        )

    def drive(self, *arguments: object, before: Sequence[str] = (), **environment: str) -> str:
        """Run the driver with a verb and return what it printed."""
        command = [*before, str(self.driver), *map(str, arguments)]
        return run(command, env=os.environ | environment)
