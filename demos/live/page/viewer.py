"""The /live WebSocket: sends the state and the newest frames to viewers, and receives their commands."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket

from demos.live.dashboard import PAGE_COMMANDS
from demos.live.page import protocol
from demos.live.page.frames import FrameEncoder
from demos.live.result import FrameResult
from simplenet.errors import SimpleNetError

if TYPE_CHECKING:
    from demos.live.session import Session

STATE_EVERY_S = 0.25
_SLOW_STATE_EVERY_S = 1.0  # while the last frame has not been shown: a hidden tab, or a slow network
_FAST_STATE_EVERY_S, _FAST_STATES_FOR_S = 0.05, 0.5  # after a command
MAX_VIEWERS = 16
PIECE_BYTES = 32_768
"""JPEGs are sent in pieces of this size: a page gets only whole messages, and 3 s without one mean a dead network."""
_REQUEST_PAUSE_S, _COMMAND_PAUSE_S = 0.005, 0.05


class Viewers(protocol.Endpoint):
    """The /live endpoint."""

    def __init__(self, session: Session, frames: FrameEncoder) -> None:
        super().__init__(MAX_VIEWERS)
        self.session, self.frames = session, frames
        self._state_json, self._state_made_s = "", float("-inf")

    def state_json(self) -> str:
        """The session's state as JSON, shared by viewers that need it at about the same time."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._state_made_s > _FAST_STATE_EVERY_S / 2:
            self._state_json, self._state_made_s = json.dumps(self.session.state()), now_s
        return self._state_json

    async def _handle(self, websocket: WebSocket) -> None:
        await _Viewer(websocket, self).run()


class _Viewer:
    """One connection. A new frame is sent only after the browser has reported the last one as shown."""

    def __init__(self, websocket: WebSocket, viewers: Viewers) -> None:
        self._websocket, self._session, self._frames = websocket, viewers.session, viewers.frames
        self._state_json = viewers.state_json
        self._wake = asyncio.Event()
        self._replies: deque[dict[str, Any]] = deque(maxlen=8)
        self._requested_source: int | None = None
        self._sent: FrameResult | None = None
        self._is_ready, self._is_closed = True, False
        self._next_state_s = self._fast_until_s = self._sent_s = 0.0

    async def run(self) -> None:
        """Serve until the viewer leaves. Raises Disconnect if it sent something invalid."""
        tasks = [asyncio.ensure_future(self._receive()), asyncio.ensure_future(self._send_updates())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._frames.stop_waiting(self._wake)
            self._is_closed = True  # before Python 3.12, asyncio.wait_for sometimes loses a cancellation
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _receive(self) -> None:
        while (message := await self._websocket.receive())["type"] != "websocket.disconnect":
            request = protocol.parse_request(message.get("text"))
            self._handle_request(request)
            # Nothing is read during this pause, so a flood of requests fills the client's own buffers.
            await asyncio.sleep(_COMMAND_PAUSE_S if "command" in request else _REQUEST_PAUSE_S)

    def _handle_request(self, request: dict[str, Any]) -> None:
        now_s = asyncio.get_running_loop().time()
        if "command" in request:
            self._command(request["command"], request.get("value"))
            self._next_state_s, self._fast_until_s = now_s, now_s + _FAST_STATES_FOR_S
        if "look" in request:
            self._requested_source, self._is_ready = request["look"], True
            self._next_state_s = now_s
        if self._sent is not None and request.get("shown") == self._sent.number:
            self._is_ready = True
        self._wake.set()

    def _command(self, name: str, value: str | None) -> None:
        try:
            if name not in PAGE_COMMANDS:
                raise SimpleNetError(f"the page has no command {name!r}; one of: {', '.join(PAGE_COMMANDS)}")
            self._session.command(name, value)
        except SimpleNetError as error:
            self._replies.append({"type": "error", "command": name, "message": str(error)})

    async def _send_updates(self) -> None:
        """Send replies first, then a due state, then a new frame."""
        loop = asyncio.get_running_loop()
        while not self._is_closed:
            result = self._new_result()
            if result is None and not self._replies:
                timer = loop.call_at(self._next_state_s, self._wake.set)
                await self._wake.wait()
                timer.cancel()
            self._wake.clear()
            while self._replies:
                await protocol.send(self._websocket, self._replies.popleft())
            if (now_s := loop.time()) >= self._next_state_s:
                await protocol.send(self._websocket, self._state_message())
                is_slow = not self._is_ready and now_s > self._sent_s + STATE_EVERY_S
                every_s = _SLOW_STATE_EVERY_S if is_slow else STATE_EVERY_S
                self._next_state_s = now_s + (_FAST_STATE_EVERY_S if now_s < self._fast_until_s else every_s)
            if result is not None:
                self._sent, self._is_ready = result, False
                message, jpeg = await self._frames.encode(result)
                await protocol.send(self._websocket, message)
                for start in range(0, len(jpeg), PIECE_BYTES):
                    await protocol.send(self._websocket, jpeg[start : start + PIECE_BYTES])
                self._sent_s = loop.time()

    def _new_result(self) -> FrameResult | None:
        """Return the newest frame of the selected source; None if it has been sent or the last one is not yet shown."""
        if not self._is_ready:
            return None
        self._frames.wait(self._wake)
        source_id = self._source_id()
        result = None if source_id is None else self._frames.newest(source_id)
        if result is None or result is self._sent:
            return None
        self._frames.stop_waiting(self._wake)
        return result

    def _source_id(self) -> int | None:
        """The id of the source that this viewer sees, never a visitor's camera."""
        local = [source.id for source in self._session.scheduler.sources if source.kind != "visitor"]
        return self._requested_source if self._requested_source in local else next(iter(local), None)

    def _state_message(self) -> str:
        return f'{{"type": "state", "looking_at": {json.dumps(self._source_id())}, "state": {self._state_json()}}}'
