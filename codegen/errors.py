"""Errors of the compiler. Every message says what is wrong and how to mend it."""

from oi.runtime.errors import OiError

__all__ = ["CompileError"]


class CompileError(OiError):
    """The model cannot be compiled as asked."""
