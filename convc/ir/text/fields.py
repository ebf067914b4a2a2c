"""How an attribute dataclass is written: its fields in order, each with one of seven kinds of value."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Final, get_type_hints

from convc.ir.epilogue import Step
from convc.ir.ops import Attributes

__all__ = ["AttributeField", "attribute_fields"]

# annotation -> kind; the printer and the parser have one row per kind.
KINDS: Final[dict[object, str]] = {
    int: "int",
    float: "float",
    bool: "bool",
    str: "str",
    tuple[int, ...]: "ints",
    tuple[float, ...]: "floats",
    tuple[Step, ...]: "steps",
}


@dataclass(frozen=True, slots=True)
class AttributeField:
    """One attribute; `default` is `dataclasses.MISSING` where there is none."""

    name: str
    kind: str
    default: object

    @property
    def is_required(self) -> bool:
        return self.default is MISSING


@cache
def attribute_fields(attributes: type[Attributes]) -> tuple[AttributeField, ...]:
    """Return the fields of an attribute dataclass.

    Example:
        >>> from convc.ir.ops import OPS
        >>> [(f.name, f.kind) for f in attribute_fields(OPS["reduce_mean"].attributes)]
        [('axes', 'ints'), ('keepdims', 'bool')]
    """
    hints = get_type_hints(attributes)
    return tuple(
        AttributeField(f.name, KINDS[hints[f.name]], f.default) for f in fields(attributes)
    )
