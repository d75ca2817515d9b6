"""The server's address, taken before anything costly starts."""

from __future__ import annotations

import errno
import socket

from oi.runtime.errors import OiError

__all__ = ["bind", "url_of"]


def bind(host: str, port: int) -> socket.socket:
    """Bound, not yet listening; port 0 takes a free one. Raises OiError that says what stands in the way."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        return bound
    except OSError as e:
        if e.errno == errno.EADDRINUSE:
            raise OiError(f"port {port} of {host} is in use; stop what listens there, or give another --port") from e
        raise OiError(f"cannot listen at {host} port {port}: {e.strerror or e}; give another --host or --port") from e


def url_of(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
