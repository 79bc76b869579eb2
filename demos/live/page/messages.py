"""What the page and the server say to each other, as JSON and as pictures with a JSON head."""

from __future__ import annotations

import json
import struct
from typing import Any

from demos.live.result import FrameResult


def result(update: FrameResult) -> dict[str, Any]:
    """What the models said about one frame, JSON-able."""
    height, width = update.frame.image.shape[:2]
    return {**update.to_json(), "source": update.source.id, "width": width, "height": height}


def picture(head: dict[str, Any], jpeg: bytes) -> bytes:
    """The head's length (4 bytes, big-endian), the head (JSON in UTF-8), the JPEG: in one message, to match."""
    text = json.dumps(head).encode()
    return struct.pack(">I", len(text)) + text + jpeg


def split(message: bytes) -> tuple[dict[str, Any], bytes]:
    """A `picture` message's head and JPEG."""
    (length,) = struct.unpack_from(">I", message)
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def request(text: str) -> dict[str, Any]:
    """What the page asks for: an object with a 'command', a source to 'look' at, or the number 'shown'.

    Raises:
        ValueError: it is nothing of the kind.
    """
    try:
        wish = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(wish, dict):
        raise ValueError("not an object")
    command, value = wish.get("command"), wish.get("value")
    if "command" in wish:
        if not isinstance(command, str) or not (value is None or isinstance(value, str)):
            raise ValueError("a command and its value are texts")
    elif not (numbers := wish.keys() & {"look", "shown"}) or any(type(wish[name]) is not int for name in numbers):
        raise ValueError("neither a command nor the number of a source or picture")
    return wish
