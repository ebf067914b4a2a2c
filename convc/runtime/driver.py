"""What the CUDA driver says about this machine's devices, asked through ctypes: nothing is run, no context is made."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final

__all__ = ["DRIVER", "Device", "DriverState", "look"]

DRIVER: Final = "libcuda.so.1"

# CUdevice_attribute of cuda.h.
_ATTRIBUTES: Final = {
    "clock_khz": 13,
    "multiprocessors": 16,
    "memory_khz": 36,
    "bus_bits": 37,
    "l2_bytes": 38,
    "threads_sm": 39,
    "major": 75,
    "minor": 76,
    "shared_sm_bytes": 81,
    "shared_bytes": 97,
}


@dataclass(frozen=True, slots=True)
class Device:
    """A CUDA device; `facts` by the names of `_ATTRIBUTES`, 0 where the driver does not say."""

    name: str
    facts: dict[str, int]

    @property
    def sm(self) -> int:
        """Compute capability, 90 for 9.0."""
        return 10 * self.facts["major"] + self.facts["minor"]


@dataclass(frozen=True, slots=True)
class DriverState:
    """What was found.

    Attributes:
        version: of CUDA that the driver has, 13000 for 13.0; 0 without a driver.
        devices: in the driver's order.
        problem: why there is no device; empty if there is one.
    """

    version: int
    devices: tuple[Device, ...]
    problem: str = ""


def look() -> DriverState:
    """Return the driver's version and devices, or what is missing.

    Example:
        >>> state = look()
        >>> bool(state.devices) != bool(state.problem)
        True
    """
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return DriverState(0, (), f"no NVIDIA driver: {DRIVER} does not load")
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    if code := driver.cuInit(0):
        return DriverState(
            version.value, (), f"the NVIDIA driver finds no device: cuInit answers {code}"
        )
    driver.cuDeviceGetCount(ctypes.byref(count))
    if not count.value:
        return DriverState(version.value, (), "the NVIDIA driver finds no device")
    return DriverState(version.value, tuple(_device(driver, i) for i in range(count.value)))


def _device(driver: ctypes.CDLL, index: int) -> Device:
    name, value = ctypes.create_string_buffer(128), ctypes.c_int(0)
    driver.cuDeviceGetName(name, 128, index)
    facts = {}
    for fact, attribute in _ATTRIBUTES.items():
        value.value = 0
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, index)
        facts[fact] = value.value
    return Device(name.value.decode(errors="replace"), facts)
