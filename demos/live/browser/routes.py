"""What the browser needs to run the model itself: the current ONNX artifact, and onnxruntime-web if it was fetched.

    /model/manifest.json          the manifest of the current variant and weights; its files name the model's SHA-256
    /model/model.onnx?sha256=...  the model; 409 when the manifest has moved on meanwhile
    /onnxruntime-web/NAME         the files of `onnxruntime_web.SERVED`; 404 and what to type where they are missing

Errors are JSON, {"error": one line}. The headers that make the page isolated and strict are its server's.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from demos.live.browser import onnxruntime_web
from simplenet import files
from simplenet.artifacts import Artifact
from simplenet.errors import SimpleNetError, one_line
from simplenet.formats import FORMATS

STATIC = Path(__file__).parent / "static"

_ALWAYS_ASK = {"Cache-Control": "no-cache"}  # the browser keeps it, and asks each time whether it is still that
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # an address with a hash never changes its content


class ModelSource(Protocol):
    """The part of a Session that is needed here."""

    def state(self) -> dict[str, Any]:
        """Its `variant` and `weights` tell when there is another model."""

    def onnx_artifact(self) -> Artifact:
        """The current variant and weights as ONNX, made if missing. Raises SimpleNetError."""


class _Current:
    """The session's artifact, asked for once per model: that may mean an export, or looking for official weights."""

    def __init__(self, session: ModelSource) -> None:
        self._session = session
        self._known: tuple[object, object, Artifact] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def artifact(self) -> Artifact:
        """In a thread; whoever comes meanwhile waits for the same result. Raises SimpleNetError or OSError."""
        async with self._one_at_a_time:
            return await run_in_threadpool(self._artifact)

    def _artifact(self) -> Artifact:
        state = self._session.state()
        model = (state["variant"], state["weights"])
        if self._known is not None:
            known_model, status, artifact = self._known
            if model == known_model and status is not None and status == _file_status(artifact):
                return artifact
        artifact = self._session.onnx_artifact()
        if not artifact.manifest.files:  # a model file alone, with the manifest inside: it cannot hold its own hash
            hashes = {FORMATS["onnx"].model_file: files.sha256(artifact.model_file)}
            artifact = replace(artifact, manifest=replace(artifact.manifest, files=hashes))
        self._known = (model, _file_status(artifact), artifact)
        return artifact


def routes(session: ModelSource, vendor: Path = onnxruntime_web.VENDOR) -> list[Route]:
    """The routes above."""
    current = _Current(session)

    async def manifest(request: Request) -> Response:
        try:
            text = (await current.artifact()).manifest.to_json()
        except (SimpleNetError, OSError) as error:
            return _unavailable(error)
        headers = {**_ALWAYS_ASK, "ETag": f'"{hashlib.sha256(text.encode()).hexdigest()}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(text, media_type="application/json", headers=headers)

    async def model(request: Request) -> Response:
        asked = request.query_params.get("sha256")
        try:
            artifact = await current.artifact()
            status = await run_in_threadpool(artifact.model_file.stat)
        except (SimpleNetError, OSError) as error:
            return _unavailable(error)
        if asked is not None and asked != artifact.manifest.files[FORMATS["onnx"].model_file]:
            return _error(409, "the model has changed since its manifest was read; start again")
        headers = _ALWAYS_ASK if asked is None else _FOREVER
        return FileResponse(
            artifact.model_file, headers=headers, media_type="application/octet-stream", stat_result=status
        )

    async def runtime(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in onnxruntime_web.SERVED:
            return _error(404, f"onnxruntime-web has no file {one_line(name, 80)!r} here")
        path = onnxruntime_web.folder(vendor) / name
        try:
            status = await run_in_threadpool(path.stat)
        except OSError:
            return _error(404, f"onnxruntime-web has not been fetched; type: {onnxruntime_web.COMMAND}")
        response = StaticFiles().file_response(path, status, request.scope)  # 304 where the browser has it already
        response.headers.update({**_ALWAYS_ASK, "Content-Type": onnxruntime_web.SERVED[name]})
        return response

    return [
        Route("/model/manifest.json", manifest),
        Route("/model/model.onnx", model),
        Route("/onnxruntime-web/{name}", runtime),
    ]


def _file_status(artifact: Artifact) -> tuple[int, int] | None:
    """Another one when the artifact was made anew; None when it is gone."""
    try:
        status = artifact.model_file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _unavailable(error: SimpleNetError | OSError) -> Response:
    reason = str(error) if isinstance(error, SimpleNetError) else f"cannot read the model: {files.reason(error)}"
    return _error(503, one_line(reason))


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status_code=status, headers={"Cache-Control": "no-store"})
