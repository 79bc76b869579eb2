"""One careful GET: http and https only, bounded redirects, separate timeouts to connect and for a stalled answer.

urllib does the work (proxies from the environment included); what it leaves open is closed here.
"""

from __future__ import annotations

import functools
import http.client
import ipaddress
import socket
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from simplenet import files
from simplenet.errors import one_line

_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_WORTH_RETRYING = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Limits:
    """`connect_s` bounds finding and reaching the host, `stall_s` every wait for the next bytes."""

    connect_s: float = 5.0
    stall_s: float = 20.0
    attempts: int = 3
    pause_s: float = 0.5
    largest_bytes: int = 200 << 20


class GetError(Exception):
    """The answer cannot be had; asking again would not help: no network, no such file, an address not allowed."""


class TemporaryError(GetError):
    """Asking again may help: the server is busy, or the connection broke."""


class RangeRefusedError(TemporaryError):
    """The server has no bytes after the ones asked for; ask for all of them."""


def get(url: str, headers: dict[str, str], limits: Limits) -> http.client.HTTPResponse:
    """The open answer to a GET, status 2xx, redirects followed. Read it with `read_some`, and close it.

    Raises:
        GetError: and its kinds above.
    """
    opener = _opener(limits)
    for _ in range(_MOST_REDIRECTS + 1):
        check_url(url)
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "simplenet-edge", **headers})
            answer: http.client.HTTPResponse = opener.open(request, timeout=limits.connect_s)
            return answer
        except urllib.error.HTTPError as error:
            error.close()
            location = error.headers.get("Location")
            if error.code not in _REDIRECTS or location is None:
                raise _refusal(error) from error
            url = _redirected(url, location)
        except urllib.error.URLError as error:  # while connecting
            reason = files.reason(error.reason) if isinstance(error.reason, Exception) else error.reason
            raise GetError(one_line(reason)) from error
        except (OSError, http.client.HTTPException) as error:  # while waiting for the answer
            raise TemporaryError(one_line(error)) from error
        except ValueError as error:
            raise GetError(f"the address is not valid: {one_line(error)}") from error
    raise GetError(f"more than {_MOST_REDIRECTS} redirects")


def read_some(answer: http.client.HTTPResponse) -> bytes:
    """The next bytes as they arrive, at most 64 KiB; b"" at the end. Raises TemporaryError."""
    try:
        return answer.read1(1 << 16)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise TemporaryError(one_line(error)) from error


def check_url(url: str) -> SplitResult:
    """Raises GetError for anything but an http or https address of a host; its text never repeats a password."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise GetError("the address is not valid") from error
    if parts.scheme not in ("http", "https") or not host:
        raise GetError(f"only http and https addresses are allowed, not {parts.scheme or 'no scheme'}")
    if parts.username is not None or parts.password is not None:
        raise GetError("addresses with a user name or password are not allowed")
    return parts


def _redirected(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
    except ValueError as error:
        raise GetError("the server redirects to an address that is not valid") from error
    old, new = check_url(url), check_url(target)
    if new.scheme != "https" and not (_is_loopback(old.hostname) and _is_loopback(new.hostname)):
        raise GetError(f"the server redirects to {new.hostname} without https")
    return target


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _refusal(error: urllib.error.HTTPError) -> GetError:
    reason = f"the server answers {error.code} {one_line(str(error.reason or ''), 80)}"
    if error.code == 416:
        return RangeRefusedError(reason)
    return TemporaryError(reason) if error.code in _WORTH_RETRYING else GetError(reason)


class _Connection(http.client.HTTPConnection):
    """Connects with the request's timeout, then waits for each answer with `stall_s`."""

    def __init__(self, *args: object, stall_s: float, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._stall_s = stall_s

    def connect(self) -> None:
        _wait_for_name(self.host, self.port, self.timeout)
        super().connect()
        self.sock.settimeout(self._stall_s)


class _SecureConnection(_Connection, http.client.HTTPSConnection):
    """The same; the TLS handshake belongs to connecting."""


def _wait_for_name(host: str, port: int, timeout_s: float | None) -> None:
    """Looking up a name has no timeout of its own, and where the network is dead it can take half a minute."""
    done = threading.Event()

    def look_up() -> None:
        try:
            socket.getaddrinfo(host, port)
        except (OSError, UnicodeError):
            pass  # the connection meets the same error, and reports it
        finally:
            done.set()

    threading.Thread(target=look_up, daemon=True).start()
    if not done.wait(timeout_s):
        raise TimeoutError(f"the name {host} was not found within {timeout_s:g} s")


class _HttpHandler(urllib.request.HTTPHandler):
    stall_s: float

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_Connection, stall_s=self.stall_s), req)  # type: ignore[arg-type]


class _HttpsHandler(urllib.request.HTTPSHandler):
    stall_s: float

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_SecureConnection, stall_s=self.stall_s), req)  # type: ignore[arg-type]


def _opener(limits: Limits) -> urllib.request.OpenerDirector:
    """Without handlers for file:, ftp: and data:, and without urllib's redirects, which read bodies of any size."""
    opener = urllib.request.OpenerDirector()
    plain, secure = _HttpHandler(), _HttpsHandler()
    plain.stall_s = secure.stall_s = limits.stall_s
    for handler in (
        urllib.request.ProxyHandler(),
        plain,
        secure,
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
