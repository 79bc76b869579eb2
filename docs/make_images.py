"""Make the screenshots in docs/images: the live page in Chromium, and the live window on a virtual screen.

    python docs/make_images.py                       both images, about a minute
    python docs/make_images.py --only page           docs/images/live-page.webp
    python docs/make_images.py --output /tmp/images

Both show demos/webcam.py on its generated scene, with the shipped cifar-310k in int8 on ONNX Runtime and on OpenVINO.
Needs chromium and playwright for the page, Xvfb and xdotool for the window: `make setup-live` installs them.
The plot in docs/images/accuracy-latency.png is made by `python demos/compare.py --plot FILE`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from PIL import Image, ImageGrab

from simplenet import cli
from simplenet.errors import SimpleNetError

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ("page", "window")
LARGEST_BYTES = 300_000
PAGE_WIDTH, PAGE_HEIGHT = 1280, 820
SCREEN_WIDTH, SCREEN_HEIGHT = 1600, 1000

_MODEL = ("--variant", "cifar-310k", "--weights", "fashion-mnist", "--precision", "int8")
_DEMO = (*_MODEL, "--backend", "onnxruntime,openvino", "--source", "synthetic", "--json")
_FIRST_FRAME = 300
"""From this frame on, the latency curves are full and every percentile has enough samples."""
_CERTAIN = 0.9
"""Top-1 probability from which a frame counts as showing one whole image."""
_STILL_FRAMES = 10
"""Certain frames in a row that mean rest: a moving image is recognized for a few frames, too."""
_TIMEOUT_S, _PAINT_TIMEOUT_S = 300.0, 10.0


def make_page_image(artifacts: Path) -> Image.Image:
    """Capture the page in Chromium, with two backends side by side.

    Raises:
        SimpleNetError: chromium or playwright is missing, or the demo ended early.
    """
    chromium = _program("chromium", "chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise SimpleNetError("playwright is not installed; type: make setup-dev") from error
    port = _free_port()
    flags = ("--display", "browser", "--port", str(port), "--artifacts", str(artifacts))
    with _demo(flags) as demo, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        _wait_for_frame(demo, 1)  # the page is served from here on
        tab = browser.new_page(viewport={"width": PAGE_WIDTH, "height": PAGE_HEIGHT}, color_scheme="light")
        tab.goto(f"http://127.0.0.1:{port}")
        _wait_for_frame(demo, _FIRST_FRAME)
        _wait_for_still_image(demo)
        tab.wait_for_timeout(300)  # the page draws the frame that was waited for
        image = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
        browser.close()
    return image


def make_window_image(artifacts: Path) -> Image.Image:
    """Capture the window on a virtual screen, with the same two backends.

    Raises:
        SimpleNetError: Xvfb or xdotool is missing, the demo ended early, or the window stayed black.
    """
    xdotool = _program("xdotool", "xdotool")
    flags = ("--display", "window", "--artifacts", str(artifacts))
    with _virtual_screen() as screen:
        environment = {**os.environ, "DISPLAY": screen}
        with _demo(flags, environment) as demo:
            _wait_for_frame(demo, _FIRST_FRAME)
            search = [xdotool, "search", "--onlyvisible", "--name", "SimpleNet Edge", "getwindowgeometry", "--shell"]
            answer = subprocess.run(search, env=environment, capture_output=True, text=True, check=True, timeout=30)
            place = dict(line.split("=") for line in answer.stdout.splitlines())
            x, y, width, height = (int(place[name]) for name in ("X", "Y", "WIDTH", "HEIGHT"))
            _wait_for_still_image(demo)
            time.sleep(0.2)  # the window system draws the frame that was waited for
            return _grab(screen, (x, y, x + width, y + height))


def _grab(screen: str, box: tuple[int, int, int, int]) -> Image.Image:
    """Capture a window at `box`: left, top, right, bottom.

    Raises:
        SimpleNetError: it is black.
    """
    deadline_s = time.monotonic() + _PAINT_TIMEOUT_S
    while time.monotonic() < deadline_s:
        image = ImageGrab.grab(xdisplay=screen).convert("RGB").crop(box)
        if image.getbbox() is not None:
            return image
        time.sleep(0.05)  # the window is mapped, but not painted yet
    raise SimpleNetError("the window stayed black; close other programs and type: make images")


def save(image: Image.Image, path: Path) -> None:
    """Write WebP of at most `LARGEST_BYTES`, in the best quality that fits.

    Raises:
        SimpleNetError: no quality fits.
    """
    for quality in (90, 80, 70, 60):
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=6)
        if buffer.tell() <= LARGEST_BYTES:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(buffer.getvalue())
            return
    raise SimpleNetError(f"{path} would be larger than {LARGEST_BYTES} bytes; make the image smaller")


@contextlib.contextmanager
def _demo(flags: Sequence[str], environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run demos/webcam.py until the block ends."""
    command = [sys.executable, str(ROOT / "demos" / "webcam.py"), *_DEMO, *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as demo:
        try:
            yield demo
        finally:
            demo.terminate()  # a background job of a script would ignore Ctrl-C
            demo.communicate(timeout=60)  # reads the remaining events: a full pipe would block the demo


def _wait_for_frame(demo: subprocess.Popen[str], number: int) -> None:
    """Read the demo's events up to frame `number`."""
    for event in _events(demo):
        if event["event"] == "frame" and event["number"] >= number:
            return


def _wait_for_still_image(demo: subprocess.Popen[str]) -> None:
    """Read events until an image of the scene has come to rest; it stays for another second."""
    certain = _STILL_FRAMES  # the current image may leave at any moment
    for event in _events(demo):
        if event["event"] == "frame":
            certain = certain + 1 if _is_certain(event) else 0
            if certain == _STILL_FRAMES:
                return


def _events(demo: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """Yield the demo's events; raise SimpleNetError if the demo ends, or after `_TIMEOUT_S`."""
    assert demo.stdout is not None
    deadline_s = time.monotonic() + _TIMEOUT_S
    for line in demo.stdout:
        if time.monotonic() > deadline_s:
            raise SimpleNetError(f"no image came to rest within {_TIMEOUT_S:.0f} s")
        yield json.loads(line)
    raise SimpleNetError("demos/webcam.py ended early; its own message is above")


def _is_certain(event: dict[str, Any]) -> bool:
    best = [model["predictions"][0] for model in event["model_results"]]
    return len({first["label"] for first in best}) == 1 and all(first["probability"] >= _CERTAIN for first in best)


@contextlib.contextmanager
def _virtual_screen() -> Iterator[str]:
    """Start Xvfb; yield the value of DISPLAY."""
    reader, writer = os.pipe()
    size = f"{SCREEN_WIDTH}x{SCREEN_HEIGHT}x24"
    command = [_program("Xvfb", "xvfb"), "-displayfd", str(writer), "-screen", "0", size, "-nolisten", "tcp"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, pass_fds=(writer,)) as server:
        os.close(writer)
        with os.fdopen(reader) as announced:
            number = announced.readline().strip()
        try:
            yield f":{number}"
        finally:
            server.terminate()


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SimpleNetError(f"{name} is not installed; type: sudo apt install {package}")
    return found


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--only", type=cli.choice("image", IMAGES), metavar="NAME", help=f"{' or '.join(IMAGES)} (default: both)"
    )
    parser.add_argument(
        "--output", type=cli.path, default=ROOT / "docs" / "images", metavar="DIR", help="(default: docs/images)"
    )
    cli.add_artifacts(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    makers = {"page": make_page_image, "window": make_window_image}
    for name in [arguments.only] if arguments.only else IMAGES:
        path = arguments.output / f"live-{name}.webp"
        save(makers[name](arguments.artifacts), path)
        cli.log(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    cli.run(main)
