"""Markers: `slow` runs only when asked for, `isa` only where the CPU has the feature. Workers: as many as cores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import pytest

from convc.runtime import host

# A worker takes 1 to 2 GB, and its share of the longest file ends the run: more would not make it shorter.
_WORKERS: Final = 8


@pytest.fixture(autouse=True, scope="session")
def no_tuning_logs() -> Iterator[None]:
    """Choices in tests rest on no log of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVC_TUNING_LOGS", "")
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    # pytest-xdist counts the machine's cores, whether or not this process may use them.
    return min(host.usable_threads(), _WORKERS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # A test that is named on the command line is asked for, too.
    named = any("::" in str(argument) for argument in config.args)
    if "slow" not in config.option.markexpr and not named:
        chosen = [item for item in items if item.get_closest_marker("slow") is None]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("isa"):
        missing = missing_features(marker.args)
        if missing:
            pytest.skip(f"this CPU has no {', '.join(missing)}")


def missing_features(names: Sequence[str]) -> list[str]:
    return sorted(set(names) - host.cpu().features)
