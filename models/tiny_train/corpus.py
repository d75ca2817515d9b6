"""The text: Python's standard library as documents, and chats made of its functions."""

from __future__ import annotations

import ast
import hashlib
import random
import sysconfig
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "validation", "held_out"]
Message = dict[str, str]

_LEFT_OUT = ("site-packages", "dist-packages", "encodings", "pydoc_data", "lib2to3/tests/data", "config-", "_sysconfig")
"""Other people's code, and generated tables."""
_LEAST_LETTERS = 0.65
"""A file with a smaller share of letters and white space is a table of data."""
_SPECIAL = ("<|", "<think>", "</think>", "<tool_")


@dataclass(frozen=True)
class Document:
    path: str
    """Relative to the library's folder."""
    text: str

    @property
    def split(self) -> Split:
        """By a hash of the path, so that it is the same whatever else is in the corpus: 2% and 3% of the files."""
        percent = int.from_bytes(hashlib.sha256(self.path.encode()).digest()[:4], "big") % 100
        return "held_out" if percent < 3 else "validation" if percent < 5 else "train"


def standard_library() -> Path:
    """The folder of this Python's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def read_corpus(folder: Path) -> list[Document]:
    """Every file under `folder` that is code of the standard library, in order of path, each text once.

    Raises SystemExit where there are too few to train on.
    """
    documents: dict[str, Document] = {}
    for file in sorted(folder.rglob("*.py")):
        path = file.relative_to(folder).as_posix()
        if any(part in path for part in _LEFT_OUT):
            continue
        text = _code(file)
        if text is not None:
            documents.setdefault(text, Document(path, text))
    total = sum(len(text) for text in documents)
    if total < 1_000_000:
        raise SystemExit(
            f"{folder} holds {total} characters of Python source, too little to train on; "
            "name a folder with the standard library's .py files with --corpus"
        )
    return list(documents.values())


def _code(file: Path) -> str | None:
    """The file's text, or None where it is no code to learn from."""
    try:
        text = file.read_text("utf-8")
        ast.parse(text)
    except (UnicodeDecodeError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    letters = sum(c.isalpha() or c.isspace() for c in text)
    if not text.strip() or letters < _LEAST_LETTERS * len(text) or any(s in text for s in _SPECIAL):
        return None
    return text


def chats(documents: list[Document], rng: random.Random) -> Iterator[list[Message]]:
    """Conversations of one or two turns about functions that have a docstring; endless where there are any."""
    functions = [f for d in documents if "test" not in d.path for f in _functions(d.text)]
    while functions:
        messages = [m for _ in range(rng.choice((1, 1, 1, 2))) for m in _turn(*rng.choice(functions), rng)]
        if rng.random() < 0.25:
            messages.insert(0, {"role": "system", "content": "You are a helpful assistant."})
        yield messages


def _functions(text: str) -> Iterator[tuple[str, str, str]]:
    """(signature, docstring, source) of every function of middling length with a docstring."""
    lines = text.split("\n")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.body[1:] and (doc := ast.get_docstring(node)):
            source = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
            if 80 <= len(source) <= 1500:
                yield f"{node.name}({ast.unparse(node.args)})", doc, source


def _turn(signature: str, doc: str, source: str, rng: random.Random) -> list[Message]:
    summary = " ".join(doc.split("\n\n")[0].split()).rstrip(".")
    code = f"```python\n{source.rstrip()}\n```"
    kind = rng.randrange(5)
    if kind == 0:
        user, assistant = f"What does this function do?\n{code}", doc
    elif kind == 1:
        lines = source.splitlines(keepends=True)
        head = "".join(lines[: rng.randrange(1, len(lines))])
        user, assistant = f"Complete this function:\n```python\n{head}```", code
    elif kind == 2:
        user, assistant = f"Write a Python function {signature.split('(')[0]}.", code
    else:
        user, assistant = f"Write the Python function `{signature}`: {summary}.", code
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
