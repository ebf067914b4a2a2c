"""Text -> Graph: recursive descent, one method per line of the grammar.

graph     = "graph" @name "{" node* "return" output ("," output)* "}"
node      = %name "=" ( "input" [attributes] | "constant" value | op "(" operands ")" [attributes] ) [":" type]
value     = "splat" "(" element ")" | "dense" "(" "[" elements "]" ")" | "ref" "(" string "," string ")"
attributes= "{" name "=" attribute ("," ...)* "}"
attribute = integer | float | "true" | "false" | string | "[" integers | floats | steps "]"
step      = word ["(" floats ")"]
output    = %name ["as" string] ["counted" string "on" number]
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from convc.errors import DTypeError, ShapeError, TextError, UnknownNameError, unknown_name
from convc.ir.epilogue import Step
from convc.ir.graph import CONSTANT, INPUT, Graph, InputAttributes, Node, Output, constant
from convc.ir.ops import OPS, Attributes
from convc.ir.ops.definition import Array
from convc.ir.text.cursor import Cursor
from convc.ir.text.elements import parse_element
from convc.ir.text.fields import attribute_fields
from convc.ir.text.lexer import Source, Token
from convc.ir.text.weights import WeightFiles
from convc.ir.types import SHORT_NAMES, TensorType

__all__ = ["parse"]

_DTYPES: Final = {short: name for name, short in SHORT_NAMES.items()}


def parse(
    text: str, *, filename: str = "<text>", directory: str | os.PathLike[str] | None = None
) -> Graph:
    """Return the verified graph that `text` spells.

    Args:
        text: one graph.
        filename: what messages show as the file.
        directory: where `ref(...)` files are looked up; without it a reference is an error.

    Raises:
        TextError: with `file:line:column`, the line and a caret.
        ShapeError, DTypeError: if an op does not take its operands; the note has the place.
    """
    source = Source(text, filename)
    with WeightFiles(None if directory is None else Path(directory)) as weights:
        graph = _Parser(source, weights).graph()
    graph.verify()
    return graph


class _Parser(Cursor):
    def __init__(self, source: Source, weights: WeightFiles) -> None:
        super().__init__(source)
        self.weights = weights
        self.nodes: dict[str, Node] = {}

    # ---- graph and nodes ----------------------------------------------------------------------------------------

    def graph(self) -> Graph:
        self.expect("graph", "the start of the text")
        name = self.source.unquoted(self.of_kind("symbol", "graph name", "written @name"))
        self.expect("{", "graph name")
        while self.next.text != "return":
            self.node()
        self.take()
        outputs = [self.output({})]
        while self.found(","):
            outputs.append(self.output({o.name: o for o in outputs}))
        self.expect("}", "the last output")
        if self.next.kind != "end":
            raise self.error(f"text must end after the graph; got {self.next}.", self.next)
        return Graph(name, tuple(self.nodes.values()), tuple(outputs))

    def node(self) -> None:
        place = self.of_kind("value", "a node", "written '%name = ...', or 'return' must follow")
        name = self.source.unquoted(place)
        if name in self.nodes:
            raise self.error(f"value {place.text} must have one definition; got a second.", place)
        self.expect("=", "value name")
        op = self.of_kind("word", "op", "a name")
        if op.text == INPUT:
            symbols = self.attributes(op, InputAttributes)
            node = Node(name, INPUT, (), symbols, self.type(INPUT))
        elif op.text == CONSTANT:
            node = constant(name, self.constant())
        else:
            node = self.compute(name, op)
        self.nodes[name] = node

    def compute(self, name: str, op: Token) -> Node:
        if op.text not in OPS:
            raise self.error(str(unknown_name("op", op.text, OPS)), op)
        operands = self.listed(self.operand, "operands", "(", ")")
        attributes = self.attributes(op, OPS[op.text].attributes)
        try:
            node = Node.of(name, op.text, [(o.name, o.type) for o in operands], attributes)
        except (ShapeError, DTypeError) as error:
            where, caret = self.source.place(op.offset)
            error.add_note(f"at {where}\n{caret}")
            raise
        if self.next.text == ":":
            place = self.tokens[self.at + 1]
            written = self.type(op.text)
            if written != node.type:
                raise self.error(
                    f"type of %{name} must be {node.type}, which its operands give; got {written}.",
                    place,
                )
        return node

    def operand(self) -> Node:
        place = self.of_kind("value", "operand", "written %name")
        return self.defined(place, "operand")

    def defined(self, place: Token, subject: str) -> Node:
        name = self.source.unquoted(place)
        if name not in self.nodes:
            near = difflib.get_close_matches(name, self.nodes, n=1)
            hint = f" Did you mean %{near[0]}?" if near else ""
            raise self.error(f"{subject} must be defined above; got {place.text}.{hint}", place)
        return self.nodes[name]

    def output(self, seen: dict[str, Output]) -> Output:
        place = self.of_kind("value", "output", "written %name")
        value = self.defined(place, "output").name
        output = Output(value, value)
        if self.found("as"):
            place = self.next
            output = Output(self.string("output name"), output.value)
        if self.found("counted"):
            count = self.string("count's name")
            self.expect("on", "count")
            output = replace(output, count=count, axis=self.integer())
        if output.name in seen:
            raise self.error(f"output names must be distinct; got '{output.name}' twice.", place)
        return output

    def type(self, op: str) -> TensorType:
        self.expect(":", op)
        short = self.of_kind("word", "type", "written like f32[1,3]")
        if short.text not in _DTYPES:
            known = ", ".join(_DTYPES)
            raise self.error(f"element type must be one of {known}; got '{short.text}'.", short)
        place = self.next
        shape = tuple(self.listed(self.integer, "element type"))
        if min(shape, default=0) < 0:
            raise self.error(f"extents must not be negative; got {list(shape)}.", place)
        return TensorType(shape, _DTYPES[short.text])

    # ---- constants ----------------------------------------------------------------------------------------------

    def constant(self) -> Array:
        form = self.of_kind("word", "constant", "splat(...), dense([...]) or ref(...)")
        if form.text == "ref":
            self.expect("(", "ref")
            file = self.string("ref file")
            self.expect(",", "ref file")
            key = self.string("ref key")
            self.expect(")", "ref key")
            type = self.type("constant")
            return self.located(form, lambda: self.weights.read(file, key, type))
        if form.text not in ("splat", "dense"):
            raise self.error(
                f"constant must be splat(...), dense([...]) or ref(...); got {form}.", form
            )
        self.expect("(", form.text)
        texts = [self.element()] if form.text == "splat" else self.listed(self.element, "dense")
        self.expect(")", "elements")
        type = self.type("constant")
        elements = [
            self.located(token, lambda text=text: parse_element(text, type.dtype))
            for token, text in texts
        ]
        if form.text == "splat":
            return np.broadcast_to(elements[0], type.shape)
        if len(elements) != type.size:
            raise self.error(
                f"dense must have {type.size} elements for {type}; got {len(elements)}.", form
            )
        stacked = np.stack(elements) if elements else np.zeros(0, type.dtype)
        return stacked.reshape(type.shape)

    def element(self) -> tuple[Token, str]:
        token = self.take()
        if token.kind != "number" and token.text not in ("true", "false"):
            raise self.error(f"element must be a number, true or false; got {token}.", token)
        if token.text == "nan" and self.found("("):
            bits = self.of_kind("number", "bits", "a number like 0x7fc00000")
            self.expect(")", "bits")
            return token, f"nan({bits.text})"
        return token, token.text

    def located(self, token: Token, read: Callable[[], Array]) -> Array:
        try:
            return read()
        except TextError as error:
            raise self.error(str(error), token) from None

    # ---- attributes ---------------------------------------------------------------------------------------------

    def attributes(self, op: Token, row: type[Attributes]) -> Attributes:
        fields = {f.name: f for f in attribute_fields(row)}
        values: dict[str, object] = {}
        if self.next.text == "{":
            self.listed(lambda: self.attribute(op, row, values), "attributes", "{", "}")
        missing = [
            name for name, field in fields.items() if field.is_required and name not in values
        ]
        if missing:
            raise self.error(f"{op.text} must have attribute {', '.join(missing)}; got none.", op)
        return row(**values)

    def attribute(self, op: Token, row: type[Attributes], values: dict[str, object]) -> None:
        fields = {f.name: f for f in attribute_fields(row)}
        place = self.of_kind("word", "attribute", "written 'name = value'")
        if place.text not in fields:
            raise self.error(str(unknown_name(f"{op.text} attribute", place.text, fields)), place)
        if place.text in values:
            raise self.error(f"attribute {place.text} must be given once; got it twice.", place)
        self.expect("=", f"attribute {place.text}")
        values[place.text] = _READ[fields[place.text].kind](self)

    def step(self) -> Step:
        name = self.of_kind("word", "epilogue step", "a name")
        arguments = ()
        if self.next.text == "(":
            arguments = tuple(self.listed(self.decimal, "step arguments", "(", ")"))
        try:
            return Step(name.text, arguments)
        except (ShapeError, UnknownNameError) as error:
            raise self.error(str(error), name) from None


_READ: Final[dict[str, Callable[[_Parser], object]]] = {
    "int": _Parser.integer,
    "float": _Parser.decimal,
    "bool": _Parser.boolean,
    "str": _Parser.string,
    "ints": lambda p: tuple(p.listed(p.integer, "integers")),
    "floats": lambda p: tuple(p.listed(p.decimal, "floats")),
    "steps": lambda p: tuple(p.listed(p.step, "epilogue steps")),
}
