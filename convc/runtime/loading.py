"""Load a packaged module: look at its file, choose the code for this machine, load that.

module = convc.load("resnet50.so", threads=2)
"""

from __future__ import annotations

import os

import tvm_ffi

from convc.errors import InputError, PackageError, TargetMismatchError, ToolchainError
from convc.runtime import host
from convc.runtime.area_module import AreaModule
from convc.runtime.batched_module import BatchedModule
from convc.runtime.code_file import loadable_name
from convc.runtime.cuda import cuda_runtime
from convc.runtime.device_module import DeviceModule
from convc.runtime.libraries import cudnn
from convc.runtime.library import check_abi, runtime_library
from convc.runtime.library_plans import calls_cudnn
from convc.runtime.manifest import Manifest
from convc.runtime.memory import Window, array_window
from convc.runtime.module import NAN_POLICIES, Module, NanPolicy
from convc.runtime.package import map_weights, open_package
from convc.runtime.threads import ThreadPool, check_threads
from convc.runtime.variants import by_area, by_size, choose, every_variant, named, only, runnable

__all__ = ["load", "load_alternatives", "load_each"]


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    nan: NanPolicy = "allow",
    verify_checksums: bool = False,
    expect_sha256: str | None = None,
    mcpu: str | None = None,
) -> Module:
    """Return the module at `path`, ready to run on this machine.

    Args:
        path: a packaged module.
        threads: how many threads a run uses; None means all cores that this process may use.
        nan: "error" refuses inputs and outputs that contain NaN.
        verify_checksums: compare all weights with their SHA-256; everything else in the file is always checked.
        expect_sha256: what the whole file's SHA-256 must be.
        mcpu: which of the module's variants to take, instead of the best that this CPU runs.

    Raises:
        PackageError: if the file is no convc module, is damaged, is not the expected one, or was made with another TVM.
        TargetMismatchError: if this CPU cannot run the code; nothing of it is loaded then.
        UnknownNameError: if the module has no code for `mcpu`.
        ToolchainError: if TVM's runtime library is missing; for a module of cuda also the driver, a device, or CUDA's runtime.
        DeviceError: with cuDNN's message, if it refuses one of its steps on this device.
        InputError: if `threads` or `nan` is out of range.
    """
    if nan not in NAN_POLICIES:
        raise InputError(f"nan must be one of {', '.join(NAN_POLICIES)}; got {nan!r}.")
    count = check_threads(threads)
    package = open_package(path, verify_checksums=verify_checksums, expect_sha256=expect_sha256)
    check_abi(package.manifest)
    manifest = _for_this_machine(package.manifest, mcpu)
    runtime = runtime_library(package.path.absolute().parent)
    target = manifest.target
    cuda = cuda_runtime(runtime, target) if target.device else None
    calls = [s for part in by_size(manifest).values() for s in part.steps if calls_cudnn(s)]
    if calls:
        try:
            cudnn.prepare()
        except ToolchainError:
            # The module says so itself when it is prepared, and runs convc's own kernels.
            if not all(step.otherwise for step in calls):
                raise
    try:
        # Not kept alive for ever: its memory goes with the last Module that uses it.
        with loadable_name(package.path) as name:
            library = tvm_ffi.load_module(name, keep_module_alive=False)
        package.check_unchanged()
        parts = by_size(manifest)
        entries = {size: library.get_function(part.entry) for size, part in parts.items()}
    except (RuntimeError, OSError, AttributeError) as error:
        raise PackageError(f"module file '{package.path}' must load; got {error}.") from None
    weights = map_weights(package)
    pool = ThreadPool(runtime, count)
    modules: dict[int, Module]
    if cuda is not None:
        uploaded = cuda.upload(weights)
        held = Window(uploaded, (uploaded,))
        on_device = {
            size: DeviceModule(part, library, entries[size], held, pool, nan, cuda)
            for size, part in parts.items()
        }
        for module in on_device.values():
            module.prepare()
        modules = dict(on_device)
    else:
        held = array_window(weights)
        modules = {
            size: Module(part, library, entries[size], held, pool, nan)
            for size, part in parts.items()
        }
    if manifest.areas:
        made = [
            (area, Module(part, library, library.get_function(part.entry), held, pool, nan))
            for area, part in zip(manifest.areas, by_area(manifest), strict=True)
        ]
        return AreaModule(manifest, made, library, entries[0], held, pool, nan)
    if not manifest.batch:
        return modules[0]
    return BatchedModule(manifest, modules, library, entries[manifest.batch], held, pool, nan)


def load_each(path: str | os.PathLike[str], threads: int | None = None) -> dict[str, Module]:
    """Return the module at `path` once for each CPU it has code for that this machine can run.

    Args:
        path: a packaged module.
        threads: as `load` takes them; errors as there.

    Returns:
        Modules by LLVM's name of their CPU; the first is the one that `load` takes by itself.
    """
    manifest, cpu = open_package(path).manifest, host.cpu()
    fitting = runnable(manifest, cpu.machine, cpu.features)
    # None fits: loading it says in words what is missing.
    names = [v.target.mcpu for v in fitting] or [manifest.target.mcpu]
    return {name: load(path, threads=threads, mcpu=name) for name in names}


def load_alternatives(path: str | os.PathLike[str], threads: int | None = None) -> tuple[Module, ...]:  # fmt: skip
    """Return every variant of the module at `path` as a module of its own: programs for this CPU in place of one another.

    They share code and weights. Arguments and errors as `load`, but that no variant is chosen.
    """
    count = check_threads(threads)
    package = open_package(path)
    check_abi(package.manifest)
    runtime = runtime_library(package.path.absolute().parent)
    with loadable_name(package.path) as name:
        library = tvm_ffi.load_module(name, keep_module_alive=False)
    package.check_unchanged()
    held, pool = array_window(map_weights(package)), ThreadPool(runtime, count)
    return tuple(
        Module(only(package.manifest, v), library, library.get_function(v.entry), held, pool, "allow")
        for v in every_variant(package.manifest)
    )  # fmt: skip


def _for_this_machine(manifest: Manifest, mcpu: str | None) -> Manifest:
    """Return the manifest of the variant that this CPU runs, of the one for `mcpu` if that is given."""
    cpu = host.cpu()
    if mcpu is not None:
        manifest = only(manifest, named(manifest, mcpu))
    chosen = choose(manifest, cpu.machine, cpu.features)
    if chosen is not None:
        return only(manifest, chosen)
    machine = manifest.target.triple.partition("-")[0]
    if machine != cpu.machine:
        raise TargetMismatchError(
            f"module must run on its target {machine} ({manifest.target.triple}); got {cpu.machine} ({cpu.name})."
        )
    first, *others = (
        (v.target.mcpu, ", ".join(host.missing_features(v.target))) for v in every_variant(manifest)
    )
    also = "".join(f"; or for {mcpu} with {missing}" for mcpu, missing in others)
    raise TargetMismatchError(
        f"module for {first[0]} must run on a CPU with {first[1]}{also}; got {cpu.name} without."
        " Compile it for this machine."
    )
