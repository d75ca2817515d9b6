"""Errors of the IR. Every message says what was expected and what was found."""


class IRError(Exception):
    """Base class: the program text or graph is not valid IR."""


class TypeMismatch(IRError):
    """An operand's rank, shape or dtype does not satisfy the op's shape rule."""


class VerifyError(IRError):
    """The graph breaks a structural rule (SSA order, name clash, stale result type)."""


class ParseError(IRError):
    """The text form does not parse; carries line and column."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line = line
        self.column = column


class UnsupportedModel(IRError):
    """A model file cannot describe this config; the message names the field and what it may be."""
