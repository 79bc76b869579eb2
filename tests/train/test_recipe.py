"""What the loop stands on, each part against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simplenet import model, preprocessing
from simplenet.datasets import LabelledImages
from train import augmentation, data, evaluation, recipe, small_images
from train.augmentation import Dice


def _images(count: int, side: int, seed: int = 0) -> LabelledImages:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, side, side, 3)).astype(np.uint8)
    return LabelledImages("random", pixels, rng.integers(0, 10, count), tuple("abcdefghij"))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _dice(count: int, seed: int = 0) -> Dice:
    return Dice(_generator(seed), count)


@pytest.mark.parametrize(("name", "side"), [("fashion-mnist", 28), ("mnist", 28), ("cifar10", 32), ("cifar10", 40)])
def test_training_and_the_runtimes_compute_the_same_model_input(name: str, side: int) -> None:
    spec, images = data.get(name).preprocessing, _images(5, side)
    pixels, labels = small_images.to_tensors(images, spec)
    at_runtime = np.stack([preprocessing.to_model_input(image, spec) for image in images.images])
    np.testing.assert_array_equal(pixels.numpy(), at_runtime)
    assert pixels.shape == (5, 32, 32, 3)
    assert pixels.dtype == torch.uint8
    np.testing.assert_array_equal(labels.numpy(), images.labels)

    normalised = augmentation.normalise(pixels, spec)
    np.testing.assert_array_max_ulp(
        normalised.contiguous().numpy(), preprocessing.normalise(at_runtime, spec), maxulp=1
    )
    assert normalised.is_contiguous(memory_format=torch.channels_last)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), translate=st.integers(0, 3), flip=st.booleans())
def test_augmentation_moves_and_mirrors_and_nothing_else(seed: int, translate: int, flip: bool) -> None:
    pixels = torch.from_numpy(_images(6, 9, seed).images)
    augmented = augmentation.augment(pixels, translate, flip, _dice(6, seed))
    shifts = range(2 * translate + 1)
    for before, after in zip(pixels, augmented, strict=True):
        padded = torch.nn.functional.pad(before, (0, 0, translate, translate, translate, translate))
        moved = [padded[top : top + 9, left : left + 9] for top in shifts for left in shifts]
        mirrored = [image.flip(1) for image in moved] if flip else []
        assert any(torch.equal(after, candidate) for candidate in [*moved, *mirrored])


def test_augmentation_differs_between_images_and_repeats_with_its_seed() -> None:
    same = torch.from_numpy(_images(1, 16).images).expand(64, 16, 16, 3)
    augmented = augmentation.augment(same, 2, True, _dice(64, 1))
    assert len({image.numpy().tobytes() for image in augmented}) > 20
    assert torch.equal(augmented, augmentation.augment(same, 2, True, _dice(64, 1)))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(0, 12))
def test_cutout_hides_one_rectangle_of_at_most_its_size(seed: int, size: int) -> None:
    images = augmentation.cutout(torch.ones(5, 3, 16, 16), size, _dice(5, seed))
    for image in images:
        hidden = image[0] == 0
        assert torch.equal(image, (~hidden).float().expand(3, 16, 16))
        rows, columns = hidden.any(1).sum(), hidden.any(0).sum()
        assert max(rows, columns) <= size
        assert hidden.sum() == rows * columns
        assert (hidden.sum() > 0) == (size > 0)


def test_the_learning_rate_is_a_triangle() -> None:
    rates = [recipe.learning_rate(step, 100, peak=0.4, warmup=0.2) for step in range(100)]
    assert rates[19] == pytest.approx(0.4) == max(rates)
    assert rates[0] == pytest.approx(0.02)
    assert 0 < rates[-1] < 0.006
    np.testing.assert_allclose(np.diff(rates[:20]), np.diff(rates[:2])[0])
    np.testing.assert_allclose(np.diff(rates[19:]), np.diff(rates[-2:])[0])
    assert recipe.learning_rate(0, 1, peak=0.4, warmup=0.2) > 0


def test_the_average_follows_weights_and_statistics() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    average = recipe.WeightAverage(network, decay=0.5)
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    for step in range(1, 30):
        with torch.no_grad():
            for value in (*network.parameters(), network[1].running_mean):
                value.add_(torch.randn(value.shape, generator=_generator(step)))  # type: ignore[union-attr]
        average.update(network, step)
        decay = min(0.5, step / (step + 10))
        for name, value in network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    for name in ("0.weight", "1.bias", "1.running_mean"):
        torch.testing.assert_close(average.model.state_dict()[name], expected[name])


def test_only_matrices_and_kernels_decay() -> None:
    network = model.create("cifar-310k")
    decaying, other = recipe.optimizer(network, weight_decay=0.1).param_groups
    assert decaying["weight_decay"] == 0.1
    assert other["weight_decay"] == 0.0
    assert {parameter.ndim for parameter in decaying["params"]} == {2, 4}
    assert {parameter.ndim for parameter in other["params"]} == {1}
    assert len(decaying["params"]) + len(other["params"]) == len(list(network.parameters()))


def test_evaluation_counts_every_image_once() -> None:
    spec = data.get("cifar10").preprocessing
    pixels, labels = small_images.to_tensors(_images(23, 32), spec)
    network = model.create("cifar-310k", seed=3)
    with torch.inference_mode():
        logits = network(augmentation.normalise(pixels, spec))
    labels[:9] = logits[:9].argmax(1)
    labels[9:] = logits[9:].argmin(1)
    top1, loss = evaluation.evaluate(network, pixels, labels, spec, bf16=False)
    assert top1 == pytest.approx(100 * 9 / 23)
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-4)
