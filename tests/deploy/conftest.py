from __future__ import annotations

from pathlib import Path

import pytest

import convc
from convc import CompiledModel
from tests.deploy.small_net import ALGORITHM, CPUS, image, small_net
from tests.deploy.toolbox import HERE, Programs, run


@pytest.fixture(scope="session")
def compiled() -> CompiledModel:
    """The small network for two CPUs; valgrind knows no more than the first, and everything here runs on it."""
    return convc.compile(small_net(), mcpu=",".join(CPUS), threads=1, algo=ALGORITHM)


@pytest.fixture(scope="session")
def module_file(compiled: CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled.export(tmp_path_factory.mktemp("module") / "small.so")


@pytest.fixture(scope="session")
def bundle(compiled: CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled.export(tmp_path_factory.mktemp("bundles") / "small", format="bundle")


@pytest.fixture(scope="session")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "x.bin"
    image().tofile(path)
    return path


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """The driver and libconvc, as a product would build them."""
    return Programs(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """The same under the address and undefined-behaviour sanitizers."""
    return Programs(
        tmp_path_factory.mktemp("sanitized"),
        ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"],
    )


@pytest.fixture(scope="session")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loaded before the C library, it counts what a program asks of it."""
    library = tmp_path_factory.mktemp("counter") / "count_allocations.so"
    run(["gcc", "-O1", "-fPIC", "-shared", HERE / "count_allocations.c", "-o", library])
    return library
