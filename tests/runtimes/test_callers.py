"""What callers pass and set: kinds of arrays, NumPy's and PyTorch's settings, copies, threads, a removed folder."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

import runtimes
from runtimes import base
from simplenet.errors import ImageError, InputError, UsageError
from simplenet.preprocessing import CIFAR10_PREPROCESSING, to_model_input
from tests.conftest import MakeArtifact
from tests.runtimes.test_base import Stub

RANDOM = np.random.default_rng(0)
BATCH = RANDOM.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
IMAGE = RANDOM.integers(0, 256, (48, 64, 3), dtype=np.uint8)


class Frame(np.ndarray):
    """A subclass, as video libraries have."""


def memmap(array: np.ndarray, folder: Path) -> np.ndarray:
    np.save(folder / "frames.npy", array)
    return np.asanyarray(np.load(folder / "frames.npy", mmap_mode="r"))


@pytest.fixture(scope="module")
def model(make_artifact: MakeArtifact) -> Iterator[runtimes.Runtime]:
    with runtimes.load(make_artifact("onnx", "fp32"), threads=1) as loaded:
        yield loaded


@pytest.fixture
def pytorch(make_artifact: MakeArtifact) -> Iterator[runtimes.Runtime]:
    with runtimes.load(make_artifact("torch", "fp32"), threads=1) as loaded:
        yield loaded


KINDS: dict[str, Callable[[np.ndarray, Path], np.ndarray]] = {
    "memmap": memmap,
    "memmap of a wider file": lambda array, folder: memmap(np.concatenate([array, array], axis=-2), folder)[
        ..., : array.shape[-2], :
    ],
    "subclass": lambda array, folder: array.view(Frame),
    "record array": lambda array, folder: array.view(np.recarray),
    "subclass, mirrored twice": lambda array, folder: array[..., ::-1, :].copy()[..., ::-1, :].view(Frame),
}


@pytest.mark.parametrize("kind", KINDS)
def test_accepts_subclasses_of_arrays(model: runtimes.Runtime, kind: str, tmp_path: Path) -> None:
    np.testing.assert_array_equal(model.infer(KINDS[kind](BATCH, tmp_path)), model.infer(BATCH))
    # An image of the crop's size is not resized, which would make it a plain array.
    same_size = to_model_input(KINDS[kind](BATCH[0], tmp_path), CIFAR10_PREPROCESSING)
    assert type(same_size) is np.ndarray
    np.testing.assert_array_equal(same_size, BATCH[0])
    for image in (IMAGE, BATCH[0]):
        assert model.classify([KINDS[kind](image, tmp_path)]) == model.classify([image])


def test_accepts_either_byte_order(make_artifact: MakeArtifact) -> None:
    artifact = make_artifact("onnx", "fp32")
    spec = dataclasses.replace(artifact.manifest.input, dtype="float32", layout="NCHW")
    stub = Stub(
        dataclasses.replace(artifact, manifest=dataclasses.replace(artifact.manifest, input=spec)), base.Options()
    )
    values = RANDOM.standard_normal((1, 3, 32, 32)).astype(np.float32)
    seen: list[np.ndarray] = []
    stub._run = lambda batch: seen.append(batch) or np.zeros((1, 10), np.float32)  # type: ignore[method-assign, func-returns-value]
    for order in "<>":
        stub.infer(values.astype(f"{order}f4"))
        assert seen[-1].dtype.isnative
        np.testing.assert_array_equal(seen[-1], values)


def test_rejects_masks_tensors_and_structures_by_name(model: runtimes.Runtime) -> None:
    pixel = [("r", "u1"), ("g", "u1"), ("b", "u1")]
    for batch, name in [
        (np.ma.array(BATCH), "MaskedArray"),
        (torch.from_numpy(BATCH), "Tensor"),
        (np.zeros((1, 32, 32), pixel), r"\[\('r'"),
        (BATCH[0, :, :, 0].view(np.matrix), r"uint8 \[32, 32\]"),
    ]:
        with pytest.raises(InputError, match=f"the model takes uint8 .* not {name}"):
            model.infer(batch)
    with pytest.raises(ImageError, match="not MaskedArray"):
        model.classify([np.ma.array(IMAGE)])


def test_accepts_any_iterable_of_images(model: runtimes.Runtime) -> None:
    expected = model.classify([IMAGE, IMAGE])
    frames = {"front": IMAGE, "back": IMAGE}
    for images in ((image for image in (IMAGE, IMAGE)), (IMAGE, IMAGE), frames.values(), map(np.array, [IMAGE] * 2)):
        assert model.classify(images) == expected
    with pytest.raises(InputError, match="no image given"):
        model.classify(iter([]))


@pytest.mark.parametrize("images", [None, 7, Image.new("RGB", (8, 8))])
def test_rejects_what_is_no_list_of_images(model: runtimes.Runtime, images: Any) -> None:
    with pytest.raises(ImageError, match=r"take a list of images, not (NoneType|int|Image)"):
        model.classify(images)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F"])
def test_pillow_images_are_refused_with_the_conversion(model: runtimes.Runtime, mode: str) -> None:
    image = Image.new(mode, (8, 8))
    with pytest.raises(ImageError, match=r"np.asarray\(image.convert\('RGB'\)\)"):
        model.classify([image])  # type: ignore[list-item]
    assert model.classify([np.asarray(image.convert("RGB"))])


def test_raising_numpy_errors_do_not_reach_the_softmax() -> None:
    with np.errstate(all="raise"):
        (top,) = runtimes.top_k(np.array([[0.0, -200.0, -3e38]], np.float32), 3)
        assert [prediction.probability for prediction in top] == [1, 0, 0]
        assert np.geterr()["under"] == "raise"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_refuses_to_be_copied(model: runtimes.Runtime, copied: Callable[[Any], Any]) -> None:
    with pytest.raises(UsageError, match=r"pass runtime.artifact, and load it in each process"):
        copied(model)


def test_runs_in_asyncio_and_in_threads_with_small_stacks(model: runtimes.Runtime, pytorch: runtimes.Runtime) -> None:
    expected = model.infer(BATCH)

    async def serve() -> list[np.ndarray]:
        return await asyncio.gather(*(asyncio.to_thread(model.infer, BATCH) for _ in range(8)))

    with ThreadPoolExecutor(1) as other:  # the browser tests leave an event loop running in this thread
        served = other.submit(lambda: asyncio.run(serve())).result()
    for logits in served:
        np.testing.assert_array_equal(logits, expected)
    results: list[np.ndarray] = []
    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(
            target=lambda: results.extend([model.infer(BATCH), pytorch.infer(BATCH)]), daemon=True
        )
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    np.testing.assert_allclose(results[0], results[1], rtol=1e-3, atol=1e-3)


def test_loads_by_absolute_path_in_a_removed_folder(make_artifact: MakeArtifact, tmp_path: Path) -> None:
    artifacts = [make_artifact(format, "fp32").model_file for format in ("onnx", "openvino", "torch")]
    before = Path.cwd()
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        for artifact in artifacts:
            with runtimes.load(artifact.parent, threads=1) as loaded:
                assert loaded.classify([IMAGE])
    finally:
        os.chdir(before)


def settings() -> tuple[object, ...]:
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.allow_tf32,
        np.geterr(),
        threading.active_count(),
        dict(os.environ),
    )


@pytest.fixture(
    params=["float64", "bfloat16", "meta device", "device block", "autocast", "inference", "no grad", "deterministic"]
)
def torch_settings(request: pytest.FixtureRequest) -> Iterator[None]:
    block: Any = {
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
        "inference": torch.inference_mode,
        "no grad": torch.no_grad,
        "device block": lambda: torch.device("meta"),
    }.get(request.param, torch.enable_grad)()
    with block:
        if request.param in ("float64", "bfloat16"):
            torch.set_default_dtype(getattr(torch, request.param))
        elif request.param == "meta device":
            torch.set_default_device("meta")
        torch.use_deterministic_algorithms(request.param == "deterministic")
        yield
        torch.use_deterministic_algorithms(False)
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


class Recorder(TorchDispatchMode):
    """Records the settings of PyTorch in which each operation runs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[int, bool]] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.add((torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("threads", [1, 3])
def test_pytorch_runs_with_the_threads_and_without_gradients(pytorch: runtimes.Runtime, threads: int) -> None:
    with runtimes.load(pytorch.artifact, threads=threads) as loaded, Recorder() as recorder:
        loaded.infer(BATCH)
    assert recorder.found == {(threads, True)}


@pytest.mark.usefixtures("torch_settings")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_callers_torch_settings_change_nothing_and_are_kept(
    pytorch: runtimes.Runtime, model: runtimes.Runtime, threads: int
) -> None:
    before = settings()
    with runtimes.load(pytorch.artifact, threads=threads) as loaded:
        logits = loaded.infer(BATCH)
        assert loaded.describe().threads == threads
    assert settings() == before
    np.testing.assert_allclose(logits, model.infer(BATCH), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(pytorch.infer(BATCH), logits, rtol=1e-5, atol=1e-5)
    assert settings() == before
