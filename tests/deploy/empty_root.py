"""A folder that a program sees as the whole machine: its bundle and the C library, as a container image made from scratch."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.deploy.toolbox import run

__all__ = ["empty_root", "enter"]

# What the tests' programs answer to no arguments; chroot and unshare answer otherwise when they fail.
_USAGE: Final = 2


def enter(root: Path) -> list[str]:
    """Return the command that runs another with `root` as its root, or skip where the machine forbids it."""
    chroot = shutil.which("chroot", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if chroot is None:
        pytest.skip("chroot is not installed (apt-get install coreutils)")
    ways = [[chroot, str(root)], ["unshare", "--user", "--map-root-user", chroot, str(root)]]
    for way in ways if os.geteuid() == 0 else ways[1:]:
        if (
            shutil.which(way[0])
            and subprocess.run([*way, "/run"], capture_output=True, check=False).returncode
            == _USAGE
        ):
            return way
    pytest.skip("this machine lets this user neither chroot nor make a user namespace")


def loaded_by(program: Path, library_folder: Path) -> list[Path]:
    """Return the files of the C library that a program needs."""
    table = run(["ldd", program], env=os.environ | {"LD_LIBRARY_PATH": str(library_folder)})
    words = [line.split() for line in table.splitlines()]
    return [
        Path(w[2] if "=>" in w else w[0])
        for w in words
        if w[0].startswith(("/", "lib")) and "convc" not in w[0]
    ]


def empty_root(root: Path, bundle: Path, program: Path) -> None:
    """Fill a folder with the bundle, a program and the C library, as a container image from scratch."""
    shutil.copytree(bundle, root / "bundle")
    shutil.copyfile(program, root / "run")
    (root / "run").chmod(0o755)
    needed = {
        *loaded_by(program, bundle / "lib"),
        *loaded_by(bundle / f"{bundle.name}.so", bundle / "lib"),
    }
    for path in needed:
        place = root / path.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path.resolve(), place)
        place.chmod(0o755)
