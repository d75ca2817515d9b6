"""What the HTTP process tells the engine process once it knows what to serve: the first bytes on their socket."""

from __future__ import annotations

import contextlib
import socket

import msgspec

__all__ = ["EngineSettings", "receive", "send"]

_HEADER_BYTES = 4


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    artifact: str
    """Folder."""
    checkpoint: str
    """Folder."""
    max_model_len: int | None = None
    """Longest prompt + generation in tokens; None: the model's own, or what the pages hold if that is less."""
    max_num_seqs: int | None = None
    """Sequences that run at once; None: the artifact's limit."""
    max_step_tokens: int | None = None
    """Tokens of one step; None: the artifact's limit."""
    kv_bytes: int | None = None
    """Memory of the paged KV cache; None: chosen from the model and the machine."""
    host_kv_bytes: int | None = None
    """Memory of the host tier; None: there is none."""
    threads: int | None = None
    """Of the CPU kernels; None: one for each core that the process may use."""


def send(connection: socket.socket, settings: EngineSettings) -> None:
    """As JSON behind its length. Says nothing where nobody reads."""
    body = msgspec.json.encode(settings)
    with contextlib.suppress(ConnectionError):
        connection.sendall(len(body).to_bytes(_HEADER_BYTES, "little") + body)


def receive(connection: socket.socket) -> EngineSettings | None:
    """Wait for it, on a blocking socket; None where the other side closed its end instead."""
    header = connection.recv(_HEADER_BYTES, socket.MSG_WAITALL)
    length = int.from_bytes(header, "little")
    body = connection.recv(length, socket.MSG_WAITALL) if len(header) == _HEADER_BYTES else b""
    return msgspec.json.decode(body, type=EngineSettings) if body and len(body) == length else None
