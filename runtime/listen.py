"""The listening socket, opened before anything costly starts."""

from __future__ import annotations

import errno
import socket

from oi.runtime.errors import OiError

__all__ = ["listen", "url_of"]

_BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """Bound and listening; port 0 takes a free one. Raises OiError that says what stands in the way."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as e:
        if e.errno == errno.EADDRINUSE:
            raise OiError(f"port {port} of {host} is in use; stop what listens there, or give another --port") from e
        raise OiError(f"cannot listen at {host} port {port}: {e.strerror or e}; give another --host or --port") from e


def url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
