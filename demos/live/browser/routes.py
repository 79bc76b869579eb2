"""The files for the model in the visitor's browser: its JavaScript, the current ONNX artifact, and onnxruntime-web.

    /browser/NAME                 the JavaScript of this package
    /model/manifest.json          the manifest of the current variant and weights; it contains the model's SHA-256
    /model/model.onnx?sha256=...  the model; 409 if the current model has another hash
    /onnxruntime-web/NAME         the files of `onnxruntime_web.SERVED`; 404 before `make web`

Errors are one line of text. The page's server adds the security headers.
"""

from __future__ import annotations

import asyncio
import mimetypes
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from demos.live.browser import onnxruntime_web
from simplenet import files
from simplenet.artifacts import Artifact
from simplenet.errors import SimpleNetError, one_line
from simplenet.formats import FORMATS

if TYPE_CHECKING:
    from demos.live.session import Session

STATIC = Path(__file__).parent / "static"

# Some systems' tables have other types for these, which browsers reject because of nosniff.
for _suffix, _type in {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}.items():
    mimetypes.add_type(_type, _suffix)

_REVALIDATE = {"Cache-Control": "no-cache"}  # the browser revalidates its copy in each request
_IMMUTABLE = {"Cache-Control": "private, max-age=31536000, immutable"}  # another file has another hash in its address


class _ArtifactCache:
    """Requests the session's ONNX artifact once per model: a request may export it or look for published weights."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: tuple[tuple[str, str], int, Artifact] | None = None
        """Variant and weights, the modification time of the model file in nanoseconds, the artifact."""
        self._lock = asyncio.Lock()

    async def get(self) -> Artifact:
        """Return the current artifact. Raises HTTPException 503 with the reason if there is none."""
        try:
            async with self._lock:  # one export for many requests at once
                return await run_in_threadpool(self._get)
        except (SimpleNetError, OSError) as error:
            is_ours = isinstance(error, SimpleNetError)
            reason = str(error) if is_ours else f"cannot read the model: {files.error_message(error)}"
            raise HTTPException(503, one_line(reason)) from error

    def _get(self) -> Artifact:
        state = self._session.state()
        model = (state["variant"], state["weights"])
        if self._known is not None:
            known_model, modified_ns, artifact = self._known
            is_there = files.is_file(artifact.model_file)
            if model == known_model and is_there and artifact.model_file.stat().st_mtime_ns == modified_ns:
                return artifact
        artifact = self._session.onnx_artifact()
        self._known = (model, artifact.model_file.stat().st_mtime_ns, artifact)
        return artifact


def routes(session: Session, vendor: Path = onnxruntime_web.VENDOR) -> list[BaseRoute]:
    """The routes of one session; `vendor` is the folder that onnxruntime-web was fetched to."""
    artifacts = _ArtifactCache(session)

    async def manifest(request: Request) -> Response:
        return Response((await artifacts.get()).manifest.to_json(), media_type="application/json")

    async def model(request: Request) -> Response:
        sha256 = request.query_params.get("sha256")
        artifact = await artifacts.get()
        if sha256 is not None and sha256 != artifact.manifest.files[FORMATS["onnx"].model_file]:
            raise HTTPException(409, "the model has changed since its manifest was read; start again")
        headers = _REVALIDATE if sha256 is None else _IMMUTABLE
        return FileResponse(artifact.model_file, headers=headers, media_type="application/octet-stream")

    async def runtime(request: Request) -> Response:
        name = request.path_params["name"]
        path = onnxruntime_web.folder(vendor) / name
        if name not in onnxruntime_web.SERVED or not path.is_file():
            raise HTTPException(404, f"onnxruntime-web has not been fetched; type: {onnxruntime_web.COMMAND}")
        response = StaticFiles().file_response(path, path.stat(), request.scope)  # 304 if the browser has it cached
        response.headers.update(_REVALIDATE)
        return response

    return [
        Route("/model/manifest.json", manifest),
        Route("/model/model.onnx", model),
        Route("/onnxruntime-web/{name}", runtime),
        Mount("/browser", StaticFiles(directory=STATIC)),
    ]
