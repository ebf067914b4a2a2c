"""Whether a model uses cuDNN, as one word, in terms of pins and the policy.

auto     where a tuned record, a pin or the policy asks for it (the default)
off      nowhere, whatever records say
prefer   wherever it applies; elsewhere convc's own, and the plan says why
require  for every convolution that no pin takes; one that it does not take is an error. Other ops (pools, softmax) as for prefer

What a device's cuDNN refuses where the module is loaded is an error with require and where a pin asks for it. With auto and prefer
convc's own kernel stands beside the call and runs there (`Policy.fallback`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Literal, TypeAlias

from convc.errors import InputError
from convc.schedules.backend import backend_of
from convc.schedules.policy import Policy
from convc.target import Target

__all__ = ["CUDNN_USES", "CudnnUse", "wishes_with_cudnn"]

CudnnUse: TypeAlias = Literal["auto", "off", "prefer", "require"]
CUDNN_USES: Final = ("auto", "off", "prefer", "require")

_NAME: Final = "cudnn"


def wishes_with_cudnn(
    use: CudnnUse,
    target: Target,
    pins: Mapping[str, str],
    policy: Policy,
    convolutions: bool = True,
) -> tuple[dict[str, str], Policy]:
    """Return pins and policy that say the same as `use` besides what they said.

    Args:
        use: one of `CUDNN_USES`.
        target: of the model.
        pins: node name pattern -> algorithm; they go before.
        policy: of the choice.
        convolutions: whether the model has any.

    Raises:
        InputError: if `use` is none of the four, or asks for cuDNN where the target has none.
        InvalidKnobsError: if the policy says the contrary.

    Example:
        >>> from convc.target import parse_target
        >>> wishes_with_cudnn("require", parse_target("cuda -arch=sm_90"), {"stem": "direct"}, Policy())[0]
        {'stem': 'direct', '*': 'cudnn'}
    """
    if use not in CUDNN_USES:
        raise InputError(f"cudnn must be one of {', '.join(CUDNN_USES)}; got {use!r}.")
    has = any(a.name == _NAME for a in backend_of(target).algorithms)
    if not has and use in ("prefer", "require"):
        raise InputError(
            f"cudnn must be auto or off for target {target.kind}; got '{use}'. It runs on CUDA devices: --target cuda."
        )
    if use == "off" and has:
        policy = replace(policy, exclude=(*policy.exclude, _NAME))
    elif use in ("prefer", "require"):
        # Who requires it wants an error where a device refuses it, and no other algorithm.
        fallback = policy.fallback and use != "require"
        policy = replace(policy, require=(*policy.require, _NAME), fallback=fallback)
    return {**pins, **({"*": _NAME} if use == "require" and convolutions else {})}, policy
