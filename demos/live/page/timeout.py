"""HTTP connections that do not dawdle: each request, and each wait for one, has a limited time."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE_S = 120.0
"""Long enough for onnxruntime-web's megabytes through a slow tunnel."""


class ImpatientHttp(H11Protocol):
    """uvicorn bounds only the wait between requests: a client that sends half a one, or reads half an answer, stays."""

    _out_of_patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._be_patient()

    def on_response_complete(self) -> None:
        self._be_patient()
        super().on_response_complete()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._stop_waiting()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _be_patient(self) -> None:
        self._stop_waiting()
        self._out_of_patience = self.loop.call_later(PATIENCE_S, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._out_of_patience is not None:
            self._out_of_patience.cancel()
