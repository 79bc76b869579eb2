"""Bind the page's listening socket, with an error message that suggests what to type."""

from __future__ import annotations

import contextlib
import errno
import os
import socket

from simplenet.errors import SimpleNetError

_PORTS_TO_TRY = 50


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one.

    Raises:
        SimpleNetError: the port is taken or forbidden, or this machine has no such address.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise SimpleNetError(f"{host} is not a name or address of this machine; type: --host 127.0.0.1") from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)  # IPv4 if there is one
    try:
        return _listen(family, address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            free = _next_free(family, address)
            advice = f"type: --port {free}" if free else "choose another --port"
            raise SimpleNetError(f"port {port} on {host} is taken by another program; {advice}") from None
        if error.errno == errno.EACCES:
            raise SimpleNetError(f"only root may open port {port}; type: --port 8000") from None
        reason = os.strerror(error.errno or 0)
        raise SimpleNetError(f"{host} is not an address of this machine ({reason}); type: --host 127.0.0.1") from None


def _listen(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows this option lets two programs share a port
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
            _listen(family, (host, port, *rest)).close()
            return port
    return None
