"""A server of a page with nothing but the browser's own model, around a session with one artifact."""

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
from demos.live.page import application
from demos.live.page.security import HEADERS
from simplenet import artifacts
from simplenet.artifacts import Artifact
from simplenet.errors import ExportError

PAGE = """<!doctype html><title>test</title><link rel="stylesheet" href="/style.css">
<section id="tile"></section><script type="module" src="/page.js"></script>"""
PAGE_SCRIPT = """
import { mount } from "/browser/model.js";
mount(document.getElementById("tile"));
globalThis.answers = [];
document.addEventListener("browser-answer", ({ detail }) => answers.push({ ...detail, logits: [...detail.logits] }));
globalThis.show = (rgba, width, height, sequence, results) => {
  const canvas = new OffscreenCanvas(width, height);
  const bytes = Uint8ClampedArray.from(atob(rgba), (character) => character.charCodeAt(0));
  canvas.getContext("2d").putImageData(new ImageData(bytes, width), 0, 0);
  document.dispatchEvent(new CustomEvent("frame", { detail: { canvas, sequence, results } }));
};
globalThis.answerTo = async (sequence) => {
  for (;;) {
    const found = globalThis.answers.find((answer) => answer.sequence === sequence);
    if (found !== undefined) return found;
    await new Promise((resolve) => document.addEventListener("browser-answer", resolve, { once: true }));
  }
};
globalThis.classify = (rgba, width, height, sequence, results) => {
  show(rgba, width, height, sequence, results);
  return answerTo(sequence);
};
globalThis.classifyAll = async (rgba, width, height, first, resultsOfEach) => {
  for (const results of resultsOfEach) await classify(rgba, width, height, first++, results);
};
"""


class OneModel:
    """Stands in for the Session: has an artifact, or an error, and another one when it is told so."""

    def __init__(self, artifact: Artifact | None) -> None:
        self.artifact = artifact
        self.asked = 0
        self.at_once = 0
        self.most_at_once = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._lock = threading.Lock()

    def state(self) -> dict[str, Any]:
        manifest = self.artifact.manifest if self.artifact else None
        return {
            "variant": manifest.variant if manifest else "none",
            "weights": manifest.weights.name if manifest else "none",
        }

    def onnx_artifact(self) -> Artifact:
        with self._lock:
            self.asked += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.may_answer.wait(30)
        with self._lock:
            self.at_once -= 1
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
def served(session: OneModel, vendor: Path, headers: dict[str, str] = HEADERS) -> Iterator[int]:
    """The port of a server of a page with nothing but the tile."""

    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE)

    async def script(request: Request) -> Response:
        return Response(PAGE_SCRIPT, media_type="text/javascript")

    pages = [Route("/", page), Route("/page.js", script), *browser_routes.routes(session, vendor)]
    static = Mount("/", StaticFiles(directory=application.STATIC))
    app = Starlette(routes=[*pages, static], middleware=[Middleware(_Headers, headers=headers)])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        session.may_answer.set()
        server.should_exit = True
        thread.join()
        listener.close()


def changed(artifact: Artifact, folder: Path, **values: Any) -> Artifact:
    """A copy with another manifest and a file of another hash."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(artifact.model_file)
    graph.doc_string = str(folder)
    folder.mkdir()
    onnx.save(graph, folder / "model.onnx")
    return artifacts.write_manifest(folder, dataclasses.replace(artifact.manifest, **values))
