"""preprocessing.js in Node, compared with Pillow and simplenet.preprocessing."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from simplenet import preprocessing
from simplenet.preprocessing import (
    CIFAR10_PREPROCESSING,
    CIFAR100_PREPROCESSING,
    IMAGENET_PREPROCESSING,
    Preprocessing,
    UInt8Array,
    crop_geometry,
)
from tests.reference_preprocessing import reference

SCRIPT = Path(__file__).resolve().parents[4] / "demos/live/browser/static/preprocessing.js"
GRAY28 = Preprocessing(28, 28, mean=(0.286,) * 3, std=(0.353,) * 3, padding=2)
CONFIGURATIONS = [IMAGENET_PREPROCESSING, CIFAR10_PREPROCESSING, GRAY28, Preprocessing(100, 37, (0, 0, 0), (1, 1, 1))]

# Reads and writes lines of JSON: {"call", "pixels" (base64), "width", "height", "preprocessing"}.
HARNESS = """
import { createInterface } from "node:readline";
const calls = await import(process.argv[1]);
for await (const line of createInterface({ input: process.stdin })) {
  const { call, pixels, width, height, preprocessing } = JSON.parse(line);
  const bytes = Uint8ClampedArray.from(Buffer.from(pixels, "base64"));
  let value;
  try {
    if (call === "geometry") value = calls.cropGeometry(width, height, preprocessing);
    else {
      const result = call === "normalize" ? calls.normalize(bytes, preprocessing)
                                          : calls.toModelInput(bytes, width, height, preprocessing);
      value = Buffer.from(result.buffer).toString("base64");
    }
    console.log(JSON.stringify({ value }));
  } catch (error) {
    console.log(JSON.stringify({ error: `${error.name}: ${error.message}` }));
  }
}
"""

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call() -> Iterator[Call]:
    """`call("geometry", width=..., height=..., preprocessing=...)` in one node process for all tests."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    command = [node, "--input-type=module", "--eval", HARNESS, SCRIPT.as_uri()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, responses = process.stdin, process.stdout

        def call(name: str, preprocessing: Preprocessing | dict[str, Any], **values: Any) -> Any:
            pixels = base64.b64encode(values.pop("pixels", b"")).decode()
            table = preprocessing if isinstance(preprocessing, dict) else dataclasses.asdict(preprocessing)
            requests.write(json.dumps({"call": name, "pixels": pixels, "preprocessing": table, **values}) + "\n")
            requests.flush()
            response = json.loads(responses.readline())
            if "error" in response:
                raise ValueError(response["error"])
            return response["value"]

        yield call
        requests.close()


def in_javascript(call: Call, image: UInt8Array, configuration: Preprocessing) -> UInt8Array:
    """`toModelInput` of an opaque RGBA frame."""
    height, width = image.shape[:2]
    rgba = np.dstack([image, np.full((height, width), 255, np.uint8)])
    content = call("input", configuration, pixels=rgba.tobytes(), width=width, height=height)
    size = configuration.input_size
    return np.frombuffer(base64.b64decode(content), np.uint8).reshape(size, size, 3)


def in_pillow(image: UInt8Array, configuration: Preprocessing) -> UInt8Array:
    """The crop box resized horizontally, then vertically: Pillow 13 does tall frames in the other order."""
    height, width = image.shape[:2]
    left, top, right, bottom = crop_geometry(width, height, configuration).box
    crop, bicubic = configuration.crop_size, Image.Resampling.BICUBIC
    across = Image.fromarray(image).resize((crop, height), bicubic, box=(left, 0, right, height))
    down = np.asarray(across.resize((crop, crop), bicubic, box=(0, top, crop, bottom)))
    return np.pad(down, ((configuration.padding,) * 2, (configuration.padding,) * 2, (0, 0)))


def noise(width: int, height: int, grain: int, seed: int) -> UInt8Array:
    """Patches of about `grain` pixels; 1 is the worst case, where neighbors are independent."""
    small = np.random.default_rng(seed).integers(0, 256, (-(-height // grain), -(-width // grain), 3), np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@settings(max_examples=80)
@given(
    width=st.integers(1, 500),
    height=st.integers(1, 500),
    configuration=st.sampled_from(CONFIGURATIONS),
    grain=st.sampled_from([1, 8]),
    seed=st.integers(0, 1000),
)
@example(width=640, height=480, configuration=IMAGENET_PREPROCESSING, grain=1, seed=0)
@example(width=480, height=640, configuration=IMAGENET_PREPROCESSING, grain=8, seed=0)
@example(width=1280, height=720, configuration=GRAY28, grain=8, seed=0)
@example(width=256, height=300, configuration=IMAGENET_PREPROCESSING, grain=1, seed=0)
@example(width=1, height=1, configuration=CIFAR10_PREPROCESSING, grain=1, seed=0)
def test_matches_pillow(
    call: Call, width: int, height: int, configuration: Preprocessing, grain: int, seed: int
) -> None:
    if max(width, height) > 200 * min(width, height):
        return
    image = noise(width, height, grain, seed)
    found = in_javascript(call, image, configuration).astype(int)
    difference = np.abs(found - in_pillow(image, configuration))
    assert difference.max() <= 1  # 0 where Pillow's compiler does not fuse multiplications with additions
    assert difference.mean() < 0.001


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1280, 720), (720, 1280), (320, 240), (40, 30), (21, 15)])
def test_matches_server_preprocessing(call: Call, size: tuple[int, int], configuration: Preprocessing) -> None:
    image = noise(*size, grain=8, seed=1)
    found = in_javascript(call, image, configuration).astype(int)
    for expected in (
        preprocessing.to_model_input(image, configuration),
        reference(image, configuration),
    ):
        difference = np.abs(found - expected)
        assert difference.mean() <= 0.3
        assert difference.max() <= 8


@settings(max_examples=300)
@given(width=st.integers(1, 65_535), height=st.integers(1, 65_535), configuration=st.sampled_from(CONFIGURATIONS))
def test_crop_geometry_is_identical(call: Call, width: int, height: int, configuration: Preprocessing) -> None:
    found = call("geometry", configuration, width=width, height=height)
    expected = crop_geometry(width, height, configuration)
    assert (found["resizedWidth"], found["resizedHeight"]) == (expected.resized_width, expected.resized_height)
    assert (found["left"], found["top"], tuple(found["box"])) == (expected.left, expected.top, expected.box)


def test_same_size_changes_no_pixel(call: Call) -> None:
    image = noise(28, 28, 1, 0)
    found = in_javascript(call, image, GRAY28)
    assert np.array_equal(found[2:-2, 2:-2], image)
    assert found.sum() == image.sum(dtype=int)  # the padding is black
    wider = noise(300, 256, 1, 0)
    assert np.array_equal(in_javascript(call, wider, IMAGENET_PREPROCESSING), wider[16:240, 38:262])


def test_alternating_frame_sizes(call: Call) -> None:
    frames = [noise(40 + 3 * index, 50, 8, index) for index in range(24)]
    for frame in [*frames, *frames]:
        assert (
            np.abs(
                in_javascript(call, frame, CIFAR10_PREPROCESSING).astype(int) - in_pillow(frame, CIFAR10_PREPROCESSING)
            ).max()
            <= 1
        )


@pytest.mark.parametrize("configuration", [IMAGENET_PREPROCESSING, CIFAR100_PREPROCESSING])
def test_normalize_matches_numpy(call: Call, configuration: Preprocessing) -> None:
    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)  # every level
    content = call("normalize", configuration, pixels=pixels.tobytes())
    found = np.frombuffer(base64.b64decode(content), np.float32).reshape(1, 3, 16, 16)
    assert np.array_equal(found, preprocessing.normalize(pixels, configuration))
