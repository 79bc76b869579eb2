"""Who may talk to the page, and what the page may load: nothing from outside, either way."""

from __future__ import annotations

import ipaddress
import logging
import re
import socket

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")
_SAFE_METHODS = ("GET", "HEAD")

# COOP and COEP give the browser's own model its threads; 'wasm-unsafe-eval' lets it compile, and nothing else.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

log = logging.getLogger("simplenet.page")


class SecurityMiddleware:
    """Around the whole application. Refuses what a foreign page could send, and puts `HEADERS` on every answer.

    A foreign page can reach 127.0.0.1 by giving its own name that address (DNS rebinding): the Host header tells. It
    can also open a WebSocket to here: the Origin header tells. Or name our model as the source of a picture or a frame,
    so that it is exported: Sec-Fetch-Site tells, which browsers send to the loopback and to https. The port is not
    compared with ours, since `ssh -L 9000:127.0.0.1:8000 device` is how a headless device is used; Origin and Host must
    name the same one.
    """

    def __init__(self, app: ASGIApp, bound_host: str) -> None:
        self._app = app
        self._is_local = is_loopback(bound_host)
        self._names = {"localhost", bound_host.lower().strip("[]"), *(() if self._is_local else own_names())}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        complaint = self._complaint(scope, Headers(scope=scope))
        if complaint is not None:
            await PlainTextResponse(f"{complaint}\n", 403)(scope, receive, send_with_headers)
            return
        try:
            await self._app(scope, receive, send_with_headers)
        except OSError:
            raise  # the client went away
        except Exception:
            log.exception("the page failed at %s", scope["path"])  # our mistake: it keeps its traceback
            raise

    def _complaint(self, scope: Scope, headers: Headers) -> str | None:
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self.allows_host(hosts[0]):
            return "this page does not go by that name; open the address that the demo printed, or its IP address"
        if scope["type"] == "http" and scope["method"] in _SAFE_METHODS:
            is_ours = headers.get("sec-fetch-site") not in ("cross-site", "same-site")
            is_link = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
            return None if is_ours or is_link else "only this page itself may ask for its parts"
        if len(origins) != 1 or not _same_place(origins[0], hosts[0]):
            return "only this page itself may do that"
        return None

    def allows_host(self, header: str) -> bool:
        """Bound to the loopback: its names only. Else also this machine's names, and any bare address: a browser that
        shows one went to it without asking a name server, so there was nothing to rebind."""
        match = _HOST.fullmatch(header)
        if match is None:
            return False
        name = match[1].lower().strip("[]").removesuffix(".")
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._is_local


def is_loopback(host: str) -> bool:
    """Whether only this machine itself can reach what is bound to `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def own_names() -> set[str]:
    """What this machine is called in its network, as far as it knows without asking anybody."""
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return {name, short, f"{short}.local"}


def _same_place(origin: str, host: str) -> bool:
    return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
