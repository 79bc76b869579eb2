"""What the model in the visitor's browser needs: its JavaScript, the current ONNX artifact, and onnxruntime-web.

    /browser/NAME                 the JavaScript of this package
    /model/manifest.json          the manifest of the current variant and weights; it contains the model's SHA-256
    /model/model.onnx?sha256=...  the model; 409 if the session has switched to another one meanwhile
    /onnxruntime-web/NAME         the files of `onnxruntime_web.SERVED`; 404 with a hint before `make web`

Errors are JSON: {"error": one line}. The page's server adds the security headers.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from demos.live.browser import onnxruntime_web
from simplenet import files
from simplenet.artifacts import Artifact
from simplenet.errors import SimpleNetError, one_line
from simplenet.formats import FORMATS

STATIC = Path(__file__).parent / "static"

_REVALIDATE = {"Cache-Control": "no-cache"}  # cached by the browser, and compared with the server's each time
_IMMUTABLE = {"Cache-Control": "private, max-age=31536000, immutable"}  # the address contains the content's hash


class ModelSession(Protocol):
    """The part of demos.live.session.Session that this package uses."""

    def state(self) -> dict[str, Any]:
        """Its `variant` and `weights` identify the model."""

    def onnx_artifact(self) -> Artifact:
        """Return the current variant and weights as ONNX, exported if missing. Raises SimpleNetError."""


class _ArtifactCache:
    """The session's artifact, requested once per model: the request may export it, or look for published weights."""

    def __init__(self, session: ModelSession) -> None:
        self._session = session
        self._known: tuple[tuple[str, str], tuple[int, int] | None, Artifact] | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> Artifact:
        """Raises SimpleNetError or OSError."""
        async with self._lock:  # of many requests at once, one thread works and the others wait
            return await run_in_threadpool(self._get)

    def _get(self) -> Artifact:
        state = self._session.state()
        model = (state["variant"], state["weights"])
        if self._known is not None:
            known_model, status, artifact = self._known
            if model == known_model and status is not None and status == _file_status(artifact):
                return artifact
        artifact = self._session.onnx_artifact()
        if not artifact.manifest.files:  # a single model file with its manifest inside, which cannot contain its hash
            hashes = {FORMATS["onnx"].model_file: files.sha256(artifact.model_file)}
            artifact = replace(artifact, manifest=replace(artifact.manifest, files=hashes))
        self._known = (model, _file_status(artifact), artifact)
        return artifact


def routes(session: ModelSession, vendor: Path = onnxruntime_web.VENDOR) -> list[BaseRoute]:
    """The routes of the module docstring, for one session; `vendor` is where onnxruntime-web was fetched to."""
    artifacts = _ArtifactCache(session)

    async def manifest(request: Request) -> Response:
        try:
            text = (await artifacts.get()).manifest.to_json()
        except (SimpleNetError, OSError) as error:
            return _unavailable(error)
        return Response(text, media_type="application/json")

    async def model(request: Request) -> Response:
        sha256 = request.query_params.get("sha256")
        try:
            artifact = await artifacts.get()
            status = await run_in_threadpool(artifact.model_file.stat)
        except (SimpleNetError, OSError) as error:
            return _unavailable(error)
        if sha256 is not None and sha256 != artifact.manifest.files[FORMATS["onnx"].model_file]:
            return _error(409, "the model has changed since its manifest was read; start again")
        headers = _REVALIDATE if sha256 is None else _IMMUTABLE
        kind = "application/octet-stream"
        return FileResponse(artifact.model_file, headers=headers, media_type=kind, stat_result=status)

    async def runtime(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in onnxruntime_web.SERVED:
            return _error(404, f"onnxruntime-web has no file {one_line(name, 80)!r} here")
        path = onnxruntime_web.folder(vendor) / name
        try:
            status = await run_in_threadpool(path.stat)
        except OSError:
            return _error(404, f"onnxruntime-web has not been fetched; type: {onnxruntime_web.COMMAND}")
        response = StaticFiles().file_response(path, status, request.scope)  # 304 if the browser has it cached
        response.headers.update({**_REVALIDATE, "Content-Type": onnxruntime_web.SERVED[name]})
        return response

    return [
        Route("/model/manifest.json", manifest),
        Route("/model/model.onnx", model),
        Route("/onnxruntime-web/{name}", runtime),
        Mount("/browser", StaticFiles(directory=STATIC)),
    ]


def _file_status(artifact: Artifact) -> tuple[int, int] | None:
    """Modification time and size, which change when the artifact is exported again; None if it is gone."""
    try:
        status = artifact.model_file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _unavailable(error: SimpleNetError | OSError) -> Response:
    reason = str(error) if isinstance(error, SimpleNetError) else f"cannot read the model: {files.error_message(error)}"
    return _error(503, one_line(reason))


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status_code=status, headers={"Cache-Control": "no-store"})
