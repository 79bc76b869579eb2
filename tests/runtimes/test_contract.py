"""One contract for every backend and precision. Unavailable backends are skipped with the reason."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import runtimes
from runtimes import gpu
from runtimes.loader import backend_class
from simplenet import datasets, formats, metrics
from simplenet.errors import BackendError, BackendUnavailable, ImageError, InputError, UsageError
from tests.conftest import MakeArtifact, slow_if_int8

FORMATS = {name: backend_class(name).FORMATS[0] for name in runtimes.names()}


def cases() -> Iterator[tuple[str, str, str]]:
    """(backend, precision of the artifact, precision it is run in)."""
    for backend in runtimes.names():
        for exported in formats.FORMATS[FORMATS[backend]].precisions:
            for precision in (exported, *backend_class(backend).PRECISIONS.get(exported, ())):
                yield backend, exported, precision


@pytest.fixture(
    params=[pytest.param(case, marks=slow_if_int8(case[1]), id=f"{case[0]}-{case[2]}") for case in cases()],
    scope="module",
)
def runtime(request: pytest.FixtureRequest, make_artifact: MakeArtifact) -> Iterator[runtimes.Runtime]:
    backend, exported, precision = request.param
    try:
        if backend == "tensorrt":
            gpu.first_gpu("this TensorRT engine")  # before the export, which takes seconds
        artifact = make_artifact(FORMATS[backend], exported)
        loaded = runtimes.load(artifact, backend, threads=1, precision=precision)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    with loaded:
        yield loaded


@pytest.fixture(scope="module")
def test_set() -> datasets.LabeledImages:
    return datasets.shipped("fashion-mnist", "evaluation")


def test_every_format_has_a_backend() -> None:
    assert set(FORMATS.values()) == set(formats.FORMATS)


def test_it_recognizes_the_shipped_images(runtime: runtimes.Runtime, test_set: datasets.LabeledImages) -> None:
    tops = runtime.classify(list(test_set.images[:200]), k=1)
    correct = sum(top[0].index == label for top, label in zip(tops, test_set.labels[:200], strict=True))
    assert correct >= 180


def test_logits_agree_with_pytorch(
    runtime: runtimes.Runtime, test_set: datasets.LabeledImages, make_artifact: MakeArtifact
) -> None:
    images = list(test_set.images[:50])
    with runtimes.load(make_artifact("torch", "fp32"), threads=1) as pytorch:
        expected = pytorch.infer_any(pytorch.preprocess(images))
    logits = runtime.infer_any(runtime.preprocess(images))
    floor = {"fp32": 0.99999, "fp16": 0.999, "bf16": 0.999, "int8": 0.97}[runtime.precision]
    assert metrics.cosine_similarities(logits, expected).min() > floor


def test_probabilities_sum_to_one_best_first(runtime: runtimes.Runtime, test_set: datasets.LabeledImages) -> None:
    (top,) = runtime.classify([test_set.images[0]], k=100)
    assert [prediction.label for prediction in top] != sorted(runtime.manifest.labels)
    assert {prediction.label for prediction in top} == set(runtime.manifest.labels)
    probabilities = [prediction.probability for prediction in top]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)


def test_the_caller_owns_the_result(runtime: runtimes.Runtime, test_set: datasets.LabeledImages) -> None:
    first_batch, second_batch = (runtime.preprocess([test_set.images[i]]) for i in (0, 1))
    first = runtime.infer(first_batch)
    kept = first.copy()
    second = runtime.infer(second_batch)
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, second)
    first[:] = 0
    np.testing.assert_array_equal(runtime.infer(first_batch), kept)


def test_strided_and_read_only_batches_give_equal_logits(
    runtime: runtimes.Runtime, test_set: datasets.LabeledImages
) -> None:
    batch = runtime.preprocess([test_set.images[0]])
    expected = runtime.infer(batch)
    read_only = batch.copy()
    read_only.flags.writeable = False
    mirrored_twice = batch[:, ::-1].copy()[:, ::-1]
    assert not mirrored_twice.flags.c_contiguous
    np.testing.assert_array_equal(runtime.infer(read_only), expected)
    np.testing.assert_array_equal(runtime.infer(mirrored_twice), expected)


def test_threads_get_their_own_logits(runtime: runtimes.Runtime, test_set: datasets.LabeledImages) -> None:
    batches = [runtime.preprocess([image]) for image in test_set.images[:8]]
    expected = [runtime.infer(batch) for batch in batches]
    wrong: list[int] = []

    def work(index: int) -> None:
        wrong.extend(
            index for _ in range(20) if not np.allclose(runtime.infer(batches[index]), expected[index], atol=1e-4)
        )

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_threads_can_load_at_the_same_time(runtime: runtimes.Runtime, test_set: datasets.LabeledImages) -> None:
    batch = runtime.preprocess([test_set.images[0]])
    expected = runtime.infer(batch)

    def load(_: int) -> np.ndarray:
        with runtimes.load(runtime.artifact, runtime.name, threads=1, precision=runtime.precision) as own:
            return own.infer(batch)

    with ThreadPoolExecutor(4) as pool:
        for logits in pool.map(load, range(12)):
            np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 32, 32, 3), np.float32),
        np.zeros((1, 3, 32, 32), np.uint8),
        np.zeros((1, 31, 32, 3), np.uint8),
        np.zeros((2, 32, 32, 3), np.uint8),
        np.zeros((0, 32, 32, 3), np.uint8),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((), np.uint8),
        np.zeros((1, 32, 32, 3), object),
        [[0]],
        None,
    ],
    ids=["dtype", "layout", "size", "batch", "empty", "3-d", "scalar", "objects", "list", "none"],
)
def test_rejects_wrong_batches(runtime: runtimes.Runtime, batch: object) -> None:
    with pytest.raises(InputError, match=r"the model takes uint8 \[1, 32, 32, 3\] \(NHWC\), not") as caught:
        runtime.infer(batch)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_rejects_an_empty_batch(runtime: runtimes.Runtime) -> None:
    with pytest.raises(InputError, match="the model takes uint8"):
        runtime.infer_any(np.zeros((0, 32, 32, 3), np.uint8))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3)),
        np.zeros((0, 8, 3), np.uint8),
        "cat.jpg",
    ],
)
def test_rejects_wrong_images(runtime: runtimes.Runtime, image: object) -> None:
    with pytest.raises(ImageError):
        runtime.classify([image])  # type: ignore[list-item]


def test_rejects_one_image_without_a_list(runtime: runtimes.Runtime) -> None:
    with pytest.raises(ImageError, match=r"classify\(\[frame\]\)"):
        runtime.classify(np.zeros((28, 28, 3), np.uint8))  # type: ignore[arg-type]


def test_accepts_images_of_any_size(runtime: runtimes.Runtime) -> None:
    random = np.random.default_rng(0)
    sizes = [(1, 1), (28, 28), (7, 300), (480, 640), (33, 31)]
    tops = runtime.classify([random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes], k=3)
    assert [len(top) for top in tops] == [3] * len(sizes)


def test_describes_what_is_running(runtime: runtimes.Runtime) -> None:
    description = runtime.describe()
    assert description.backend == runtime.name
    assert description.precision == runtime.precision
    assert description.threads in (1, None)
    assert all(version[0].isdigit() for version in description.versions.values())
    assert description.versions


def test_close_is_idempotent_and_infer_then_raises(make_artifact: MakeArtifact, runtime: runtimes.Runtime) -> None:
    again = runtimes.load(runtime.artifact, runtime.name, threads=1, precision=runtime.precision)
    batch = np.zeros((1, 32, 32, 3), np.uint8)
    with again:
        again.infer(batch)
    again.close()
    assert again.describe() == runtime.describe()
    with pytest.raises(BackendError, match="is closed"):
        again.infer(batch)


def test_unsupported_options_raise_without_a_fallback(runtime: runtimes.Runtime) -> None:
    with pytest.raises(UsageError, match="not on 'tpu'"):
        runtimes.load(runtime.artifact, runtime.name, device="tpu")
    with pytest.raises(UsageError, match="not fp64"):
        runtimes.load(runtime.artifact, runtime.name, precision="fp64")
    for threads in (0, 1025, 1.5, True, "2", [1]):
        with pytest.raises(UsageError, match="threads must be an integer of 1 to 1024, not"):
            runtimes.load(runtime.artifact, runtime.name, threads=threads)  # type: ignore[arg-type]
