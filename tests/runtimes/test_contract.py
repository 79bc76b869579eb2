"""One contract for every backend and precision. A backend that cannot run here is skipped with its reason."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

import runtimes
from runtimes.loader import backend_class
from simplenet import datasets, formats
from simplenet.errors import BackendError, BackendUnavailable, ImageError, InputError, UsageError
from tests.conftest import MakeArtifact

FORMATS = {name: backend_class(name).FORMATS[0] for name in runtimes.names()}


def cases() -> Iterator[tuple[str, str, str]]:
    """(backend, precision of the artifact, precision it is run in)."""
    for backend in runtimes.names():
        for exported in formats.FORMATS[FORMATS[backend]].precisions:
            for precision in (exported, *backend_class(backend).PRECISIONS.get(exported, ())):
                yield backend, exported, precision


@pytest.fixture(params=list(cases()), ids=lambda case: f"{case[0]}-{case[2]}", scope="module")
def runtime(request: pytest.FixtureRequest, make_artifact: MakeArtifact) -> Iterator[runtimes.Runtime]:
    backend, exported, precision = request.param
    try:
        artifact = make_artifact(FORMATS[backend], exported)
        loaded = runtimes.load(artifact, backend, threads=1, precision=precision)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    with loaded:
        yield loaded


@pytest.fixture(scope="module")
def pictures() -> datasets.LabeledImages:
    return datasets.shipped("fashion-mnist", "evaluation")


def test_every_format_has_a_backend() -> None:
    assert set(FORMATS.values()) == set(formats.FORMATS)


def test_it_recognizes_the_shipped_pictures(runtime: runtimes.Runtime, pictures: datasets.LabeledImages) -> None:
    tops = runtime.classify(list(pictures.images[:200]), k=1)
    right = sum(top[0].index == label for top, label in zip(tops, pictures.labels[:200], strict=True))
    assert right >= 180


def test_logits_agree_with_pytorch_within_the_stated_tolerance(
    runtime: runtimes.Runtime, pictures: datasets.LabeledImages, make_artifact: MakeArtifact
) -> None:
    images = list(pictures.images[:50])
    with runtimes.load(make_artifact("torch", "fp32"), threads=1) as pytorch:
        expected = pytorch.infer_any(pytorch.preprocess(images))
    logits = runtime.infer_any(runtime.preprocess(images))
    cosine = (logits * expected).sum(1) / np.linalg.norm(logits, axis=1) / np.linalg.norm(expected, axis=1)
    floor = {"fp32": 0.99999, "fp16": 0.999, "bf16": 0.999, "int8": 0.97}[runtime.precision]
    assert cosine.min() > floor


def test_probabilities_are_a_softmax_over_all_classes_best_first(
    runtime: runtimes.Runtime, pictures: datasets.LabeledImages
) -> None:
    (top,) = runtime.classify([pictures.images[0]], k=100)
    assert [prediction.label for prediction in top] != sorted(runtime.manifest.labels)
    assert {prediction.label for prediction in top} == set(runtime.manifest.labels)
    chances = [prediction.probability for prediction in top]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1, abs=1e-5)


def test_the_caller_owns_the_result(runtime: runtimes.Runtime, pictures: datasets.LabeledImages) -> None:
    first_batch, second_batch = (runtime.preprocess([pictures.images[i]]) for i in (0, 1))
    first = runtime.infer(first_batch)
    kept = first.copy()
    second = runtime.infer(second_batch)
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, second)
    first[:] = 0
    np.testing.assert_array_equal(runtime.infer(first_batch), kept)


def test_strided_and_read_only_batches_give_the_same_answer(
    runtime: runtimes.Runtime, pictures: datasets.LabeledImages
) -> None:
    batch = runtime.preprocess([pictures.images[0]])
    expected = runtime.infer(batch)
    read_only = batch.copy()
    read_only.flags.writeable = False
    mirrored_twice = batch[:, ::-1].copy()[:, ::-1]
    assert not mirrored_twice.flags.c_contiguous
    np.testing.assert_array_equal(runtime.infer(read_only), expected)
    np.testing.assert_array_equal(runtime.infer(mirrored_twice), expected)


def test_several_threads_get_their_own_answers(runtime: runtimes.Runtime, pictures: datasets.LabeledImages) -> None:
    batches = [runtime.preprocess([image]) for image in pictures.images[:8]]
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
def test_wrong_batches_are_refused_with_what_is_wanted(runtime: runtimes.Runtime, batch: object) -> None:
    with pytest.raises(InputError, match=r"the model takes uint8 \[1, 32, 32, 3\] \(NHWC\), not") as caught:
        runtime.infer(batch)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_no_image_at_all_is_refused_too(runtime: runtimes.Runtime) -> None:
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
def test_wrong_images_are_refused(runtime: runtimes.Runtime, image: object) -> None:
    with pytest.raises(ImageError):
        runtime.classify([image])  # type: ignore[list-item]


def test_one_image_without_a_list_is_told_how(runtime: runtimes.Runtime) -> None:
    with pytest.raises(ImageError, match=r"classify\(\[frame\]\)"):
        runtime.classify(np.zeros((28, 28, 3), np.uint8))  # type: ignore[arg-type]


def test_images_of_any_size_are_taken(runtime: runtimes.Runtime) -> None:
    random = np.random.default_rng(0)
    sizes = [(1, 1), (28, 28), (7, 300), (480, 640), (33, 31)]
    tops = runtime.classify([random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes], k=3)
    assert [len(top) for top in tops] == [3] * len(sizes)


def test_it_says_what_really_runs(runtime: runtimes.Runtime) -> None:
    description = runtime.describe()
    assert description.backend == runtime.name
    assert description.precision == runtime.precision
    assert description.threads in (1, None)
    assert all(version[0].isdigit() for version in description.versions.values())
    assert description.versions


def test_closing_twice_is_harmless_and_a_closed_runtime_says_so(
    make_artifact: MakeArtifact, runtime: runtimes.Runtime
) -> None:
    again = runtimes.load(runtime.artifact, runtime.name, threads=1, precision=runtime.precision)
    batch = np.zeros((1, 32, 32, 3), np.uint8)
    with again:
        again.infer(batch)
    again.close()
    assert again.describe() == runtime.describe()
    with pytest.raises(BackendError, match="is closed"):
        again.infer(batch)


def test_what_it_cannot_do_is_an_error_never_a_fallback(runtime: runtimes.Runtime) -> None:
    with pytest.raises(UsageError, match="not on 'tpu'"):
        runtimes.load(runtime.artifact, runtime.name, device="tpu")
    with pytest.raises(UsageError, match="not fp64"):
        runtimes.load(runtime.artifact, runtime.name, precision="fp64")
    with pytest.raises(UsageError, match="threads must be"):
        runtimes.load(runtime.artifact, runtime.name, threads=0)
