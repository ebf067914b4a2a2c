"""Which array belongs to which input: given by position or by name at each call, or held by the module since `set_params`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from convc.errors import InputError
from convc.runtime.memory import aligned_empty
from convc.runtime.ports import ArrayLike, InputPort

__all__ = ["Arguments", "quoted"]


def quoted(names: Iterable[str]) -> str:
    """Return names as error messages list them."""
    return ", ".join(f"'{name}'" for name in names) or "none"


class Arguments:
    """The inputs of one module.

    Attributes:
        names: all of them, in order.
        open: those that every call must give, in order.
    """

    def __init__(self, ports: Sequence[InputPort]) -> None:
        self._ports = {port.name: port for port in ports}
        self.names = self.open = tuple(self._ports)
        self._held: dict[str, NDArray] = {}

    @property
    def held(self) -> Mapping[str, NDArray]:
        """What is held, by name: read-only views."""
        views = {name: array.view() for name, array in self._held.items()}
        for view in views.values():
            view.flags.writeable = False
        return views

    def hold(self, values: Mapping[str, ArrayLike]) -> None:
        """Keep copies of these values; see `Module.set_params`."""
        if unknown := [name for name in values if name not in self._ports]:
            raise InputError(
                f"parameters must be among the inputs {quoted(self.names)}; got {quoted(unknown)}."
            )
        copies = {}
        for name, value in values.items():
            array = self._ports[name].array(value, [])
            copies[name] = aligned_empty(array.shape, array.dtype)
            np.copyto(copies[name], array)
        # One assignment each: a call in another thread sees the old values or the new ones.
        self._held = {**self._held, **copies}
        self.open = tuple(name for name in self.names if name not in self._held)

    def in_order(
        self, arrays: Sequence[ArrayLike], named: Mapping[str, ArrayLike]
    ) -> Sequence[ArrayLike]:
        """Return the arrays of all inputs, in order, from those given by position and by name."""
        names = self.open
        if len(arrays) == len(names) == len(self.names) and not named:
            return arrays
        if len(arrays) > len(names):
            raise InputError(
                f"inputs must be at most {len(names)} ({quoted(names)}); got {len(arrays)}."
            )
        given = dict(zip(names, arrays, strict=False))
        if twice := [name for name in named if name in given]:
            raise InputError(f"inputs must be given once; got {quoted(twice)} twice.")
        return self.by_name({**given, **named})

    def by_name(self, inputs: Mapping[str, ArrayLike]) -> tuple[ArrayLike, ...]:
        """Return the arrays of all inputs, in order, from those given by name; given ones go before held ones."""
        held = self._held
        missing = [name for name in self.names if name not in inputs and name not in held]
        unknown = [name for name in inputs if name not in self._ports]
        if missing or unknown:
            parts = (("missing", missing), ("unknown", unknown))
            wrong = "; ".join(f"{word} {quoted(which)}" for word, which in parts if which)
            raise InputError(
                f"inputs must be exactly {quoted(self.open)}; got {quoted(inputs)} ({wrong})."
            )
        return tuple(inputs[name] if name in inputs else held[name] for name in self.names)
