"""A conversation to token ids, by the checkpoint's own chat template.

The template's special tokens are control tokens; the same characters inside what the user wrote are text. Before
rendering, every special token in a string of the conversation (there is none, in general) is broken by a character
that occurs nowhere else; the rendered text is cut at the special tokens that are left, which are the template's, and
the breaks are taken out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from oi.runtime.errors import CheckpointError, RequestError
from oi.runtime.messages import TokenIds
from oi.runtime.tokenizer import Tokenizer

__all__ = ["ChatTemplate", "load_chat_template"]

_RESERVED = {"messages", "tools", "add_generation_prompt"}
_PRIVATE_USE = range(0xF0000, 0xFFFFE)


class ChatTemplate:
    def __init__(self, source: str, tokenizer: Tokenizer, variables: Mapping[str, str]) -> None:
        """`variables` are the tokenizer's named tokens (`eos_token`, …). Raises CheckpointError."""
        try:
            self._template = _environment().from_string(source)
        except TemplateError as e:
            raise CheckpointError(f"the checkpoint's chat template does not compile: {e}") from e
        self._tokenizer = tokenizer
        self._variables = dict(variables)

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        kwargs: Mapping[str, Any] | None = None,
    ) -> TokenIds:
        """Token ids of the conversation. Raises RequestError where the template refuses it."""
        if taken := _RESERVED & set(kwargs or {}):
            raise RequestError(f"chat_template_kwargs must not set {', '.join(sorted(taken))}", "chat_template_kwargs")
        given = {"messages": list(messages), "tools": list(tools) if tools else None, **(kwargs or {})}
        try:
            mark = self._mark(given)
            safe = given if mark is None else self._broken(given, mark)
            text = self._template.render({**self._variables, **safe, "add_generation_prompt": add_generation_prompt})
        except RecursionError:
            raise RequestError("the conversation is nested too deeply", "messages") from None
        except Exception as e:  # a template may fail in any way on messages that it was not written for
            raise RequestError(f"the model's chat template cannot render these messages: {e}", "messages") from e
        parts = self._tokenizer.split_specials(text)
        return self._tokenizer.encode_parts(parts if mark is None else [part.replace(mark, "") for part in parts])

    def _mark(self, given: Any) -> str | None:
        """A character that is nowhere in `given`; None where no string holds a special token and none is needed."""
        if not self._holds_special(given):
            return None
        written = json.dumps(given, ensure_ascii=False)
        return next(chr(c) for c in _PRIVATE_USE if chr(c) not in written)

    def _holds_special(self, value: Any) -> bool:
        if isinstance(value, str):
            return self._tokenizer.holds_special(value)
        if isinstance(value, dict):
            return self._holds_special(list(value)) or self._holds_special(list(value.values()))
        return isinstance(value, list) and any(map(self._holds_special, value))

    def _broken(self, value: Any, mark: str) -> Any:
        """`value` with `mark` after the first character of every special token in its strings."""
        if isinstance(value, str):
            parts = self._tokenizer.split_specials(value)
            parts[1::2] = [special[0] + mark + special[1:] for special in parts[1::2]]
            return "".join(parts)
        if isinstance(value, dict):
            return {self._broken(k, mark): self._broken(v, mark) for k, v in value.items()}
        if isinstance(value, list):
            return [self._broken(v, mark) for v in value]
        return value


def load_chat_template(folder: Path, tokenizer: Tokenizer) -> ChatTemplate | None:
    """From `chat_template.jinja`, or `tokenizer_config.json`; None where there is none. Raises CheckpointError."""
    config = _read_tokenizer_config(folder)
    path = folder / "chat_template.jinja"
    source = path.read_text(encoding="utf-8") if path.exists() else config.get("chat_template")
    if isinstance(source, list):  # named templates: [{"name": "default", "template": …}, …]
        source = {entry["name"]: entry["template"] for entry in source}.get("default")
    if source is None:
        return None
    named = {key: _content(value) for key, value in config.items() if re.fullmatch(r"[a-z]+_token", key)}
    return ChatTemplate(source, tokenizer, {key: value for key, value in named.items() if value is not None})


def _read_tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as e:
        raise CheckpointError(f"{path} is not valid JSON: {e}") from e
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return config


def _content(token: Any) -> str | None:
    """A token in tokenizer_config.json is a string, or an object with its content."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _environment() -> ImmutableSandboxedEnvironment:
    """As Hugging Face sets it up: templates are written for this."""
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = _tojson
    env.globals["raise_exception"] = _raise_exception
    env.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return env


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)
