from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.runtime import runtime_modules


@pytest.fixture(scope="session")
def affine_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runtime_modules.affine(tmp_path_factory.mktemp("affine"))


@pytest.fixture(scope="session")
def concatenation_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runtime_modules.concatenation(tmp_path_factory.mktemp("concatenation"))


@pytest.fixture(scope="session")
def double_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("double")
    return runtime_modules.unary(folder, "double", "float32", lambda a: a + a)


@pytest.fixture(scope="session")
def bfloat16_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runtime_modules.bfloat16(tmp_path_factory.mktemp("bfloat16"))


@pytest.fixture(scope="session")
def bool_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bool")
    return runtime_modules.unary(folder, "flags", "bool", lambda a: a)


@pytest.fixture(scope="session")
def burn_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runtime_modules.burn(tmp_path_factory.mktemp("burn"))


@pytest.fixture
def x() -> np.ndarray:
    """Integers, so that every result is exact, 64-byte aligned."""
    from convc.runtime import aligned_empty

    array = aligned_empty(runtime_modules.MATRIX, np.float32)
    array[...] = np.random.default_rng(7).integers(-8, 9, runtime_modules.MATRIX)
    return array
