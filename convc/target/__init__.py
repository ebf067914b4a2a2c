"""Target: facts about the machine that code is made for. Everything asked of LLVM's tables goes through `_llvm`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from convc.errors import ToolchainError, unknown_name
from convc.target.caches import host_caches
from convc.target.cuda import EARLY, Gpu, gpu_of, parse_early, parse_sm, present_gpu
from convc.target.microarchitecture import Microarchitecture, microarchitecture

if TYPE_CHECKING:
    from tvm.target import Target as TVMTarget

__all__ = ["KINDS", "PRESETS", "Gpu", "Target", "known_cpus", "parse_target", "parse_targets"]

# LLVM's names of the instruction sets that a module can fault on when they are missing; tuning hints (fast-*) are left out.
ISA_FEATURES: Final = (
    "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "avx", "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe",
    "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512ifma", "avx512vbmi", "avx512vbmi2",
    "avx512vnni", "avx512bitalg", "avx512vpopcntdq", "avx512bf16",
    "neon", "crc", "lse", "fullfp16", "dotprod", "sve", "sve2", "i8mm", "bf16",
)  # fmt: skip

# The x86-64 psABI levels, named here because people ask for them by name.
PRESETS: Final = ("x86-64-v2", "x86-64-v3", "x86-64-v4")

KINDS: Final = ("llvm", "cuda")

_OPTIONS: Final = {"llvm": ("-mcpu",), "cuda": ("-mcpu", "-arch", "-early", "-ptx", "-fast-math")}
_WITH_VALUE: Final = ("-mcpu", "-arch", "-early")

# What launches the kernels of a device needs no vectors, and should run wherever such a device is.
_LAUNCHING_CPU = "x86-64-v2"

_EXAMPLE_CPU: Final = {"aarch64": "neoverse-n1", "x86_64": "x86-64-v3"}

# Zen 4 and recent Intel servers are within these; used for a target that is not this machine.
_L1_BYTES, _L2_BYTES, _L3_BYTES = 32 << 10, 1 << 20, 32 << 20

# Kernels cut for all 2 MiB of an Emerald Rapids core are slower than those cut for half of it: Winograd of 64 channels at 56 x 56 by
# 10 %, of 256 at 32 x 32 by 19 %, of 32 at 256 x 256 by 18 %.
_L2_COUNTED_ON = 1 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """A CPU, or a device with the CPU that launches its kernels.

    Attributes:
        kind: one of `KINDS`.
        triple: LLVM's target triple.
        mcpu: LLVM's name of the CPU, never "native".
        features: instruction sets that code for it may use (LLVM's names).
        lanes: 32-bit floats in one vector register.
        registers: vector registers.
        l1_bytes, l2_bytes, l3_bytes: data caches, per core (L3 shared).
        cores: how many the code is planned for.
        device: the CUDA device; None if the CPU computes.
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
    device: Gpu | None = None

    def __str__(self) -> str:
        if self.device is not None:
            return " ".join((self.kind, "+".join(self.device.code), *self.device.options))
        return f"{self.kind} {self.mcpu} ({self.lanes} lanes)"

    @property
    def gpu(self) -> Gpu:
        """The device of a target that has one."""
        if self.device is None:
            raise ToolchainError(f"target must have a device; got '{self}'.")
        return self.device

    @property
    def core(self) -> Microarchitecture:
        """How fast one of its cores is."""
        return microarchitecture(self.mcpu, self.lanes)

    @property
    def flops_per_cycle(self) -> float:
        """Fp32 FLOPs of one core in one cycle."""
        return 2 * self.lanes * self.core.fmas

    @property
    def memory_bytes(self) -> float:
        """Bytes a cycle that one core reads from memory while all read."""
        return self.core.memory_of(self.cores)

    def with_cores(self, cores: int) -> Target:
        """Return the target planned for `cores` threads; a device's kernels are launched by one."""
        return self if self.device is not None else replace(self, cores=cores)

    def tvm(self) -> TVMTarget:
        """Return TVM's object for it; the CPU is its host if there is a device."""
        from tvm.target import Target as TVMTarget

        cpu = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.mcpu, "num-cores": self.cores}
        if self.device is None:
            return TVMTarget(cpu)
        limits = {
            "kind": "cuda",
            "arch": f"sm_{self.device.sm}",
            "max_threads_per_block": self.device.threads_block,
            "max_shared_memory_per_block": self.device.shared_bytes,
            "thread_warp_size": self.device.warp,
        }
        return TVMTarget(limits, host=cpu)


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


def parse_target(
    target: str | Target = "llvm",
    mcpu: str = "host",
    cores: int = 1,
    *,
    mtriple: str | None = None,
) -> Target:
    """Return the target named by the command line's words.

    Args:
        target: "llvm", "llvm -mcpu=NAME", or "cuda" with options: -arch=sm_90 (or sm_80,sm_90: the first is planned for), -ptx (code for
            devices yet unknown goes along), -fast-math (approximate functions, denormals are zero), -early=on or off (whether kernels
            begin while the one before ends, for sm 90 and later; auto: where most are short), -mcpu=NAME.
        mcpu: LLVM's CPU name, a psABI level, or "host"; for cuda the CPU of the launching code, x86-64-v2 if it is "host".
        cores: threads to plan for.
        mtriple: LLVM's triple of another kind of machine, "aarch64-linux-gnu"; `mcpu` must then be named. None: this machine's.

    Raises:
        UnknownNameError: if LLVM has no such CPU, or convc no facts about the capability.
        ToolchainError: for a kind or option that convc does not know, or cuda without -arch where no device is.

    Example:
        >>> parse_target("llvm", "x86-64-v3").lanes
        8
        >>> str(parse_target("cuda -arch=sm_90"))
        'cuda sm_90'
    """
    if isinstance(target, Target):
        return target.with_cores(cores)
    kind, *options = target.split()
    if kind not in KINDS:
        raise ToolchainError(f"target must be one of {', '.join(KINDS)}; got '{kind}'.")
    given: dict[str, str] = {}
    for option in options:
        name, _, value = option.partition("=")
        given[name] = value
        if name not in _OPTIONS[kind] or bool(value) != (name in _WITH_VALUE):
            raise ToolchainError(
                f"option of target {kind} must be one of {', '.join(_OPTIONS[kind])}, the first ones with =VALUE; got '{option}'."
            )
    mcpu = given.get("-mcpu", mcpu)
    if kind == "llvm":
        return _cpu(mcpu, cores, mtriple)
    if mtriple is not None:
        raise ToolchainError(
            f"mtriple must be given for target llvm only; got '{mtriple}' for {kind}."
        )
    device = replace(
        _device(given.get("-arch")),
        ptx="-ptx" in given,
        fast_math="-fast-math" in given,
        early=parse_early(given.get("-early", "auto")),
    )
    if device.early and not device.may_begin_early:
        raise ToolchainError(
            f"early launches must be in code for sm {EARLY} and later alone; got sm {', '.join(map(str, device.every_sm))}; try -early=auto."
        )
    if mcpu == "host" and _host()[0].startswith("x86_64"):
        mcpu = _LAUNCHING_CPU
    return replace(_cpu(mcpu, 1), kind=kind, device=device)


def parse_targets(
    target: str | Target = "llvm",
    mcpu: str = "host",
    cores: int = 1,
    *,
    mtriple: str | None = None,
) -> tuple[Target, ...]:
    """Return the targets of one module: as `parse_target`, but `mcpu` may list several CPUs, joined by commas.

    Raises:
        ToolchainError: as `parse_target`, and for several CPUs of a target that is not "llvm".

    Example:
        >>> [t.mcpu for t in parse_targets("llvm", "x86-64-v3,x86-64-v4,x86-64-v3")]
        ['x86-64-v3', 'x86-64-v4']
    """
    names = [name.strip() for name in mcpu.split(",")]
    if isinstance(target, Target) or len(names) == 1:
        return (parse_target(target, mcpu, cores, mtriple=mtriple),)
    if target != "llvm":
        raise ToolchainError(f"mcpu must be one CPU for target '{target}'; got '{mcpu}'.")
    # "host" may be one of the others.
    made = [parse_target(target, name, cores, mtriple=mtriple) for name in names]
    return tuple({t.mcpu: t for t in made}.values())


def _device(sm: str | None) -> Gpu:
    if sm is not None:
        first, *others = parse_sm(sm)
        for other in others:
            gpu_of(other)
        return replace(gpu_of(first), also=tuple(others))
    device = present_gpu()
    if device is None:
        raise ToolchainError(
            "target 'cuda' must name its compute capability where no device is; got none. "
            "Add --sm 90 (H100, H200), 89 (L40S, RTX 40), 86 (A10, RTX 30) or 80 (A100)."
        )
    return device


def _cpu(mcpu: str, cores: int, mtriple: str | None = None) -> Target:
    host_triple, host_cpu = _host()
    triple = mtriple or host_triple
    foreign = triple.partition("-")[0] != host_triple.partition("-")[0]
    if foreign and mcpu == "host":
        raise ToolchainError(
            f"mcpu must name a CPU of {triple}; got 'host', which is {host_triple}. Add for example --mcpu {_EXAMPLE_CPU.get(triple.partition('-')[0], 'generic')}."
        )
    is_host = not foreign and mcpu in ("host", host_cpu)
    cpu = host_cpu if is_host else mcpu
    features = _llvm(triple, cpu)
    lanes, registers = _vector_unit(triple, features)
    made = Target(
        "llvm",
        triple,
        cpu,
        tuple(f for f in ISA_FEATURES if f in features),
        lanes,
        registers,
        cores=cores,
    )
    if not is_host:
        return made
    caches = host_caches()
    return replace(
        made,
        l1_bytes=caches.get(1, _L1_BYTES),
        l2_bytes=min(caches.get(2, _L2_BYTES), _L2_COUNTED_ON),
        l3_bytes=caches.get(3, _L3_BYTES),
    )
