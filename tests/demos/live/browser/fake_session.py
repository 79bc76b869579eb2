"""A page that contains only the tile, and a session with one artifact."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demos.live.browser import routes as browser_routes
from demos.live.page import server as page_server
from demos.live.page.security import HEADERS
from simplenet import artifacts
from simplenet.artifacts import Artifact
from simplenet.errors import ExportError

PAGE = """<!doctype html><title>test</title><link rel="stylesheet" href="/style.css">
<section id="tile"></section><script type="module" src="/page.js"></script>"""
PAGE_SCRIPT = """
import { mount } from "/browser/model.js";
mount(document.getElementById("tile"));
globalThis.browserResults = [];
document.addEventListener("browser-result", ({ detail }) => {
  browserResults.push({ ...detail, logits: [...detail.logits] });
});
globalThis.show = (rgba, width, height, sequence, results) => {
  const canvas = new OffscreenCanvas(width, height);
  const bytes = Uint8ClampedArray.from(atob(rgba), (character) => character.charCodeAt(0));
  canvas.getContext("2d").putImageData(new ImageData(bytes, width), 0, 0);
  document.dispatchEvent(new CustomEvent("frame", { detail: { canvas, sequence, results } }));
};
globalThis.resultOf = async (sequence) => {
  for (;;) {
    const found = globalThis.browserResults.find((result) => result.sequence === sequence);
    if (found !== undefined) return found;
    await new Promise((resolve) => document.addEventListener("browser-result", resolve, { once: true }));
  }
};
globalThis.classify = (rgba, width, height, sequence, results) => {
  show(rgba, width, height, sequence, results);
  return resultOf(sequence);
};
globalThis.classifyAll = async (rgba, width, height, first, resultsOfEach) => {
  for (const results of resultsOfEach) await classify(rgba, width, height, first++, results);
};
"""


class FakeSession:
    """A session whose artifact tests replace; None makes the export fail."""

    def __init__(self, artifact: Artifact | None) -> None:
        self.artifact = artifact
        self.requests = 0
        self.concurrent = 0
        self.max_concurrent = 0
        self.may_return = threading.Event()
        self.may_return.set()
        self._lock = threading.Lock()

    def state(self) -> dict[str, Any]:
        manifest = self.artifact.manifest if self.artifact else None
        return {
            "variant": manifest.variant if manifest else "none",
            "weights": manifest.weights.name if manifest else "none",
        }

    def onnx_artifact(self) -> Artifact:
        with self._lock:
            self.requests += 1
            self.concurrent += 1
            self.max_concurrent = max(self.max_concurrent, self.concurrent)
        assert self.may_return.wait(30)
        with self._lock:
            self.concurrent -= 1
        if self.artifact is None:
            raise ExportError("PyTorch cannot export\nthis network; type: make tea")
        return self.artifact


class _Headers:
    def __init__(self, app: ASGIApp, headers: dict[str, str]) -> None:
        self._app, self._headers = app, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        await self._app(scope, receive, send_with_headers)


@contextlib.contextmanager
def serve_tile(session: FakeSession, vendor: Path, headers: dict[str, str] = HEADERS) -> Iterator[int]:
    """Serve a page that contains only the tile; yields the port."""

    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE)

    async def script(request: Request) -> Response:
        return Response(PAGE_SCRIPT, media_type="text/javascript")

    pages = [Route("/", page), Route("/page.js", script), *browser_routes.routes(session, vendor)]
    static = Mount("/", StaticFiles(directory=page_server.STATIC))
    app = Starlette(routes=[*pages, static], middleware=[Middleware(_Headers, headers=headers)])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        session.may_return.set()
        server.should_exit = True
        thread.join()
        listener.close()


def changed(artifact: Artifact, folder: Path, **values: Any) -> Artifact:
    """A copy with changes in the manifest, and a file with another hash."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(artifact.model_file)
    graph.doc_string = str(folder)
    folder.mkdir()
    onnx.save(graph, folder / "model.onnx")
    return artifacts.write_manifest(folder, dataclasses.replace(artifact.manifest, **values))
