"""Target: facts about the machine that code is made for. Everything asked of LLVM's tables goes through `_llvm`."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from convc.errors import ToolchainError, unknown_name

if TYPE_CHECKING:
    from tvm.target import Target as TVMTarget

__all__ = ["PRESETS", "Target", "known_cpus", "parse_target"]

# LLVM's names of the instruction sets that a module can fault on when they are missing; tuning hints (fast-*) are left out.
ISA_FEATURES: Final = (
    "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "avx", "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe",
    "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512ifma", "avx512vbmi", "avx512vbmi2",
    "avx512vnni", "avx512bitalg", "avx512vpopcntdq", "avx512bf16",
)  # fmt: skip

# The x86-64 psABI levels, named here because people ask for them by name.
PRESETS: Final = ("x86-64-v2", "x86-64-v3", "x86-64-v4")

# Zen 4 and recent Intel servers are within these; used for a target that is not this machine.
_L1_BYTES, _L2_BYTES, _L3_BYTES = 32 << 10, 1 << 20, 32 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """A CPU.

    Attributes:
        kind: "llvm".
        triple: LLVM's target triple.
        mcpu: LLVM's name of the CPU, never "native".
        features: instruction sets that code for it may use (LLVM's names).
        lanes: 32-bit floats in one vector register.
        registers: vector registers.
        l1_bytes, l2_bytes, l3_bytes: data caches, per core (L3 shared).
        cores: how many the code is planned for.
    """

    kind: str
    triple: str
    mcpu: str
    features: tuple[str, ...]
    lanes: int
    registers: int
    l1_bytes: int = _L1_BYTES
    l2_bytes: int = _L2_BYTES
    l3_bytes: int = _L3_BYTES
    cores: int = 1

    def __str__(self) -> str:
        return f"{self.kind} {self.mcpu} ({self.lanes} lanes)"

    @property
    def flops_per_cycle(self) -> int:
        """Fp32 FLOPs of one core in one cycle, two 256-bit or one 512-bit FMA counted (Zen 4; performance recipes)."""
        return 2 * max(16, self.lanes) if self.lanes > 4 else 16

    @property
    def memory_crowding(self) -> float:
        """By how much a core's memory bandwidth shrinks with all cores busy: two get 1.5 x of one (Zen 4 virtual machine)."""
        return self.cores / min(1.5, self.cores)

    def with_cores(self, cores: int) -> Target:
        """Return the target planned for `cores` threads."""
        return replace(self, cores=cores)

    def tvm(self) -> TVMTarget:
        """Return TVM's object for it."""
        from tvm.target import Target as TVMTarget

        return TVMTarget(
            {"kind": "llvm", "mtriple": self.triple, "mcpu": self.mcpu, "num-cores": self.cores}
        )


def _llvm(triple: str, mcpu: str) -> frozenset[str]:
    """Return LLVM's feature set of a CPU; TVM takes an unknown name silently as generic, so the name is checked first."""
    from tvm.target import Target as TVMTarget
    from tvm.target import codegen

    if not codegen.llvm_is_valid_cpu(mcpu, triple):
        raise unknown_name("cpu", mcpu, known_cpus(triple))
    target = TVMTarget({"kind": "llvm", "mtriple": triple, "mcpu": mcpu})
    return frozenset(map(str, codegen.llvm_get_cpu_features(target)))


def known_cpus(triple: str = "x86_64-linux-gnu") -> tuple[str, ...]:
    """Return every CPU name that LLVM knows for a triple."""
    from tvm.target import Target as TVMTarget
    from tvm.target import codegen

    generic = TVMTarget({"kind": "llvm", "mtriple": triple})
    return tuple(sorted(map(str, codegen.llvm_get_cpu_archlist(generic))))


def _host() -> tuple[str, str]:
    from tvm.target import codegen

    arch = str(codegen.llvm_get_system_triple()).split("-", 1)[0]
    return f"{arch}-linux-gnu", str(codegen.llvm_get_system_cpu())


def _vector_unit(triple: str, features: frozenset[str]) -> tuple[int, int]:
    """Return (lanes, registers) of the widest vector unit."""
    rows = (("avx512f", 16, 32), ("avx2", 8, 16), ("sse2", 4, 16), ("neon", 4, 32))
    for feature, lanes, registers in rows:
        if feature in features:
            return lanes, registers
    return (4, 32) if triple.startswith("aarch64") else (4, 16)


def _cache(name: str, otherwise: int) -> int:
    # sysconf knows the caches through cpuid; in some containers it answers 0.
    try:
        return os.sysconf(name) or otherwise
    except (ValueError, OSError):
        return otherwise


def parse_target(target: str | Target = "llvm", mcpu: str = "host", cores: int = 1) -> Target:
    """Return the target named by the command line's words.

    Args:
        target: "llvm", or the old form "llvm -mcpu=NAME" that TVM no longer takes.
        mcpu: LLVM's CPU name, a psABI level, or "host".
        cores: threads to plan for.

    Raises:
        UnknownNameError: if LLVM has no such CPU.
        ToolchainError: for a target kind that this version does not build.

    Example:
        >>> parse_target("llvm", "x86-64-v3").lanes
        8
    """
    if isinstance(target, Target):
        return target.with_cores(cores)
    kind, *options = target.split()
    for option in options:
        name, _, value = option.partition("=")
        if name != "-mcpu" or not value:
            raise ToolchainError(f"target option must be -mcpu=NAME; got '{option}'.")
        mcpu = value
    if kind != "llvm":
        raise ToolchainError(f"target must be 'llvm' in this version; got '{kind}'.")
    host_triple, host_cpu = _host()
    is_host = mcpu in ("host", host_cpu)
    cpu = host_cpu if is_host else mcpu
    features = _llvm(host_triple, cpu)
    lanes, registers = _vector_unit(host_triple, features)
    made = Target(
        "llvm",
        host_triple,
        cpu,
        tuple(f for f in ISA_FEATURES if f in features),
        lanes,
        registers,
        cores=cores,
    )
    if not is_host:
        return made
    return replace(
        made,
        l1_bytes=_cache("SC_LEVEL1_DCACHE_SIZE", _L1_BYTES),
        l2_bytes=_cache("SC_LEVEL2_CACHE_SIZE", _L2_BYTES),
        l3_bytes=_cache("SC_LEVEL3_CACHE_SIZE", _L3_BYTES),
    )
