"""/live: what runs, the newest picture as fast as the viewer takes it, and what the viewer wants."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from demos.live.dashboard import PAGE_COMMANDS
from demos.live.page import messages, sockets
from demos.live.page.frames import FrameEncoder
from demos.live.result import FrameResult
from demos.live.sources.scheduler import SourceScheduler
from simplenet.artifacts import Artifact
from simplenet.errors import SimpleNetError

STATE_EVERY_S = 0.25
_STATE_AFTER_COMMAND_S = 0.05
_IN_A_HURRY_S = 0.5
MOST_VIEWERS = 16
MOST_REQUEST_CHARACTERS = 2_000
_REQUEST_PAUSE_S, _COMMAND_PAUSE_S = 0.005, 0.05
_MOST_REPLIES = 8


class Session(Protocol):
    """What the page needs of demos.live.session.Session."""

    scheduler: SourceScheduler

    def command(self, name: str, value: str | None = None) -> None: ...
    def state(self) -> dict[str, Any]: ...
    def subscribe(self, callback: Callable[[FrameResult], None]) -> Callable[[], None]: ...
    def onnx_artifact(self) -> Artifact: ...


class StateText:
    """The session's state as JSON, made once for viewers who ask at about the same time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._text, self._made_s = "", float("-inf")

    def get(self, now_s: float) -> str:
        if now_s - self._made_s > _STATE_AFTER_COMMAND_S / 2:
            self._text, self._made_s = json.dumps(self._session.state()), now_s
        return self._text


class Viewers:
    """Everybody who looks at /live."""

    def __init__(self, session: Session, pictures: FrameEncoder, drop: sockets.Drop) -> None:
        self.session, self.pictures, self.drop = session, pictures, drop
        self.state_text = StateText(session)
        self._count = 0

    async def serve(self, websocket: WebSocket) -> None:
        await websocket.accept()
        if self._count >= MOST_VIEWERS:
            reason = f"{MOST_VIEWERS} people are looking already; try again later"
            await sockets.refuse(websocket, sockets.TRY_LATER, reason, self.drop)
            return
        self._count += 1
        try:
            await Viewer(websocket, self).serve()
        finally:
            self._count -= 1


class Viewer:
    """One of them."""

    def __init__(self, websocket: WebSocket, room: Viewers) -> None:
        self._websocket, self._room = websocket, room
        self._wake = asyncio.Event()
        self._replies: deque[str] = deque(maxlen=_MOST_REPLIES)
        self._source: int | None = None
        self._sent: FrameResult | None = None
        self._may_send_picture, self._is_over = True, False
        self._next_state_s = self._hurry_until_s = 0.0
        self._forget: Callable[[], None] = lambda: None

    async def serve(self) -> None:
        """Until the viewer leaves, or does what nobody may."""
        tasks = [asyncio.ensure_future(self._listen()), asyncio.ensure_future(self._talk())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._forget()
            self._is_over = True  # before Python 3.12, asyncio.wait_for now and then loses a cancellation
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, _Refusal):
                await sockets.refuse(self._websocket, outcome.code, str(outcome), self._room.drop)
            elif isinstance(outcome, Exception) and not isinstance(outcome, WebSocketDisconnect):
                raise outcome

    async def _listen(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text is None:
                raise _Refusal(sockets.UNSUPPORTED, "text expected, not bytes")
            if len(text) > MOST_REQUEST_CHARACTERS:
                raise _Refusal(sockets.TOO_BIG, f"a request has at most {MOST_REQUEST_CHARACTERS} characters")
            try:
                wish = messages.request(text)
            except ValueError as error:
                raise _Refusal(sockets.UNUSABLE, f"not a request: {error}") from None
            self._heed(wish)
            # Nothing is read meanwhile: whoever floods fills the pipe at their own end.
            await asyncio.sleep(_COMMAND_PAUSE_S if "command" in wish else _REQUEST_PAUSE_S)

    def _heed(self, wish: dict[str, Any]) -> None:
        now_s = asyncio.get_running_loop().time()
        if "command" in wish:
            self._command(wish["command"], wish.get("value"))
            self._next_state_s, self._hurry_until_s = now_s, now_s + _IN_A_HURRY_S
        if "look" in wish:
            self._source, self._may_send_picture = wish["look"], True
            self._next_state_s = now_s
        if self._sent is not None and wish.get("shown") == self._sent.number:
            self._may_send_picture = True
        self._wake.set()

    def _command(self, name: str, value: str | None) -> None:
        try:
            if name not in PAGE_COMMANDS:
                raise SimpleNetError(f"the page has no command {name[:40]!r}; one of: {', '.join(PAGE_COMMANDS)}")
            self._room.session.command(name, value)
        except SimpleNetError as error:
            self._replies.append(json.dumps({"type": "error", "command": name[:40], "message": str(error)[:500]}))

    async def _talk(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._is_over:
            with_picture = self._picture_to_send()
            if with_picture is None and not self._replies:
                alarm = loop.call_at(self._next_state_s, self._wake.set)
                await self._wake.wait()
                alarm.cancel()
            self._wake.clear()
            while self._replies:
                await self._send(self._replies.popleft())
            if (now_s := loop.time()) >= self._next_state_s:
                await self._send(self._state(now_s))
                every_s = _STATE_AFTER_COMMAND_S if now_s < self._hurry_until_s else STATE_EVERY_S
                self._next_state_s = now_s + every_s
            if with_picture is not None:
                self._sent, self._may_send_picture = with_picture, False
                await self._send(await self._room.pictures.message(with_picture))

    def _picture_to_send(self) -> FrameResult | None:
        """The newest one of the source looked at, if it is new to this viewer and the last one has been shown."""
        if not self._may_send_picture:
            return None
        self._forget = self._room.pictures.wait(self._wake)
        source = self._looked_at()
        update = None if source is None else self._room.pictures.newest(source)
        if update is None or update is self._sent:
            return None
        self._forget()
        return update

    def _looked_at(self) -> int | None:
        """Visitors' own pictures are shown to nobody else."""
        shown = [source.id for source in self._room.session.scheduler.sources if source.kind != "visitor"]
        return self._source if self._source in shown else next(iter(shown), None)

    def _state(self, now_s: float) -> str:
        source = "null" if (source_id := self._looked_at()) is None else str(source_id)
        return f'{{"type": "state", "looking_at": {source}, "state": {self._room.state_text.get(now_s)}}}'

    async def _send(self, message: str | bytes) -> None:
        await sockets.send(self._websocket, message, self._room.drop)


class _Refusal(Exception):
    """The viewer did what nobody may."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
