"""Text -> tokens, and where in the text they stand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from convc.errors import TextError

__all__ = ["Source", "Token"]

_STRING: Final = r'"(?:[^"\\\n]|\\.)*"'
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_.]*"
_TOKEN: Final = re.compile(
    rf"""
      (?P<skip>   (?: [\s;]+ | \#[^\n]* )+ )
    | (?P<value>  % (?: {_NAME} | {_STRING} ) )
    | (?P<symbol> @ (?: {_NAME} | {_STRING} ) )
    | (?P<string> {_STRING} )
    | (?P<number> -? (?: 0x[0-9a-fA-F]+ | \d+ (?: \.\d* )? (?: [eE][+-]?\d+ )? | (?: inf|nan )(?![A-Za-z0-9_.]) ) )
    | (?P<word>   {_NAME} )
    | (?P<mark>   [{{}}()\[\]=:,] )
    """,
    re.ASCII | re.VERBOSE,
)


class Token(NamedTuple):
    """One token; `kind` is a group of the token expression, or "end"."""

    kind: str
    text: str
    offset: int

    def __str__(self) -> str:
        return "the end of the text" if self.kind == "end" else f"'{self.text}'"


class Source(NamedTuple):
    """A text and the file name that messages show for it."""

    text: str
    filename: str

    def place(self, offset: int) -> tuple[str, str]:
        """Return `file:line:column` and the line with a caret under the column."""
        begin = self.text.rfind("\n", 0, offset) + 1
        end = self.text.find("\n", offset)
        line = self.text[begin : end if end >= 0 else len(self.text)].replace("\t", " ")
        column = offset - begin
        number = self.text.count("\n", 0, offset) + 1
        return f"{self.filename}:{number}:{column + 1}", f"    {line}\n    {' ' * column}^"

    def error(self, message: str, token: Token) -> TextError:
        """Return `message` as the error at `token`."""
        where, caret = self.place(token.offset)
        return TextError(f"{where}: {message}\n{caret}")

    def tokens(self) -> Iterator[Token]:
        """Yield the tokens, then one of kind "end".

        Raises:
            TextError: at a character that starts no token.
        """
        at = 0
        while at < len(self.text):
            found = _TOKEN.match(self.text, at)
            if not found:
                bad = Token("bad", self.text[at], at)
                raise self.error(
                    f"text must be made of names, numbers, strings and punctuation; got {bad}.", bad
                )
            if found.lastgroup and found.lastgroup != "skip":
                yield Token(found.lastgroup, found[0], at)
            at = found.end()
        yield Token("end", "", at)

    def unquoted(self, token: Token) -> str:
        """Return the name or string that a token of kind value, symbol or string spells."""
        text = token.text if token.kind == "string" else token.text[1:]
        if not text.startswith('"'):
            return text
        try:
            return json.loads(text, strict=False)
        except json.JSONDecodeError:
            raise self.error(f"string must use JSON's escapes; got {text}.", token) from None
