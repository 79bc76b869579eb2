"""A listening socket, or one line that says which other one to ask for."""

from __future__ import annotations

import contextlib
import errno
import os
import socket

from simplenet.errors import SimpleNetError

_PORTS_TO_TRY = 50


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        SimpleNetError: it cannot be had; the message says what to type instead.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise SimpleNetError(f"{host} is not a name or address of this machine; type: --host 127.0.0.1") from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    try:
        return _bound(family, address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            free = _next_free(family, address)
            advice = f"type: --port {free}" if free else "choose another --port"
            raise SimpleNetError(f"port {port} on {host} is taken by another program; {advice}") from None
        if error.errno == errno.EACCES:
            raise SimpleNetError(f"only root may open port {port}; type: --port 8000") from None
        raise SimpleNetError(
            f"{host} is not an address of this machine ({os.strerror(error.errno or 0)}); type: --host 127.0.0.1"
        ) from None


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere this option lets two programs share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def _next_free(family: int, address: tuple[object, ...]) -> int | None:
    host, taken, *rest = address
    assert isinstance(taken, int)
    for port in range(taken + 1, min(taken + _PORTS_TO_TRY, 65_535) + 1):
        with contextlib.suppress(OSError):
            _bound(family, (host, port, *rest)).close()
            return port
    return None
