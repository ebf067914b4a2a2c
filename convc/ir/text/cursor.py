"""A cursor over tokens: take, look ahead, and the few shapes that the grammar is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from convc.errors import TextError
from convc.ir.text.lexer import Source, Token

__all__ = ["Cursor"]

_Item = TypeVar("_Item")


class Cursor:
    """The tokens of one text and the place reached in them; every refusal is a TextError at the token that broke the rule."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokens = list(source.tokens())
        self.at = 0

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.tokens[self.at]
        self.at += token.kind != "end"
        return token

    def found(self, text: str) -> bool:
        """Take the next token if it is this mark or word."""
        taken = self.next.text == text and self.next.kind in ("mark", "word")
        self.at += taken
        return taken

    def expect(self, text: str, after: str) -> None:
        if not self.found(text):
            raise self.error(f"{after} must be followed by '{text}'; got {self.next}.", self.next)

    def of_kind(self, kind: str, subject: str, form: str) -> Token:
        if self.next.kind != kind:
            raise self.error(f"{subject} must be {form}; got {self.next}.", self.next)
        return self.take()

    def error(self, message: str, token: Token) -> TextError:
        return self.source.error(message, token)

    def listed(
        self, item: Callable[[], _Item], subject: str, opening: str = "[", closing: str = "]"
    ) -> list[_Item]:
        if not self.found(opening):
            raise self.error(f"{subject} must begin with '{opening}'; got {self.next}.", self.next)
        items: list[_Item] = []
        while not self.found(closing):
            if items and not self.found(","):
                raise self.error(
                    f"{subject} must be separated by ',' and end with '{closing}'; got {self.next}.",
                    self.next,
                )
            items.append(item())
        return items

    def integer(self) -> int:
        token = self.of_kind("number", "integer", "a whole number")
        try:
            return int(token.text, 0)
        except ValueError:
            raise self.error(f"integer must be a whole number; got {token}.", token) from None

    def decimal(self) -> float:
        token = self.of_kind("number", "float", "a number")
        try:
            return float(token.text)
        except ValueError:
            raise self.error(f"float must be a decimal number; got {token}.", token) from None

    def boolean(self) -> bool:
        token = self.take()
        if token.text not in ("true", "false"):
            raise self.error(f"boolean must be true or false; got {token}.", token)
        return token.text == "true"

    def string(self, subject: str = "string") -> str:
        return self.source.unquoted(self.of_kind("string", subject, "a quoted string"))
