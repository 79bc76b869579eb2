"""Reject requests from foreign sites, and restrict what the page may load to its own server."""

from __future__ import annotations

import logging
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demos.live.page.hosts import own_names, parse_host, to_address

# WebAssembly threads need COOP and COEP; 'wasm-unsafe-eval' only allows compiling WebAssembly.
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


class SecurityMiddleware:
    """ASGI middleware: answers foreign requests with 403, and adds `HEADERS` to every response.

    It stops three attacks by a foreign site that is open in a visitor's browser:
    - The site's name resolves to 127.0.0.1 (DNS rebinding). The Host header then contains the site's name.
    - The site opens a WebSocket to this server. The Origin header then names the site.
    - The site embeds a URL of this server, for example to start an export. On the loopback and over https, browsers
      mark such a request with Sec-Fetch-Site.

    Origin and Host must have the same port. It may differ from the server's port, for example behind
    `ssh -L 9000:127.0.0.1:8000 device`. `allowed_hosts` are accepted in both headers, with any port, and the
    two may differ: a reverse proxy may replace the Host header.
    """

    def __init__(self, app: ASGIApp, bound_host: str, is_public: bool, allowed_hosts: Collection[str] = ()) -> None:
        self._app, self._is_public, self._allowed = app, is_public, frozenset(allowed_hosts)
        self._names = {"localhost", bound_host.lower().strip("[]"), *allowed_hosts, *(own_names() if is_public else ())}

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

        reason = self._reason_to_reject(scope, Headers(scope=scope))
        if reason is not None:
            await PlainTextResponse(f"{reason}\n", 403)(scope, receive, send_with_headers)
            return
        try:
            await self._app(scope, receive, send_with_headers)
        except OSError:
            raise  # the client went away
        except Exception:
            logging.getLogger("simplenet.page").exception("the page failed at %s", scope["path"])
            raise

    def _reason_to_reject(self, scope: Scope, headers: Headers) -> str | None:
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self.allows_host(hosts[0]):
            return "unknown host name; open the address that the demo printed, or start it with --allow-host NAME"
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            is_foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
            is_link = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
            return "requests from other sites are not allowed" if is_foreign and not is_link else None
        if scope["type"] == "http" and not origins:
            return None  # not from a page of another site; every route answers 405
        scheme, _, origin = origins[0].lower().partition("://") if len(origins) == 1 else ("", "", "")
        is_same = origin == hosts[0].lower() or parse_host(origin) in self._allowed
        return None if scheme in ("http", "https") and is_same else "requests from other sites are not allowed"

    def allows_host(self, header: str) -> bool:
        """Check a Host header. Any server accepts the loopback's names and addresses, and the allowed hosts.

        A public server also accepts this machine's names and any IP address. DNS rebinding cannot use an IP address.
        """
        host = parse_host(header)
        if host is None or host in self._names:
            return host is not None
        address = to_address(host)
        return address is not None and (address.is_loopback or self._is_public)
