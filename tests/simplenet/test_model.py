"""The network: initialization, shapes and modes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from simplenet import model
from simplenet.errors import UsageError


def test_the_seed_decides_the_weights() -> None:
    first, second, other = (model.create("cifar-310k", seed=seed).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["features.0.weight"], other["features.0.weight"])
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_the_global_random_state_is_unchanged() -> None:
    torch.manual_seed(123)
    expected = torch.rand(4)
    torch.manual_seed(123)
    model.create("cifar-310k")
    assert torch.equal(torch.rand(4), expected)


@settings(max_examples=12)
@given(
    num_classes=st.integers(1, 300), in_channels=st.integers(1, 5), batch=st.integers(1, 3), size=st.integers(16, 70)
)
def test_any_number_of_classes_channels_images_and_pixels(
    num_classes: int, in_channels: int, batch: int, size: int
) -> None:
    with torch.device("meta"), torch.inference_mode():  # shapes, no computation
        network = model.create("cifar-460k", num_classes, in_channels, device="meta")
        logits = network(torch.zeros(batch, in_channels, size, size))
    assert logits.shape == (batch, num_classes)
    assert logits.dtype == torch.float32


def test_eval_mode_by_default_and_dropout_in_training() -> None:
    network = model.create("cifar-310k", dropout=0.5)
    assert not network.training
    assert {module.p for module in network.modules() if isinstance(module, nn.Dropout2d)} == {0.5}
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(network(images), network(images))
        network.train()
        assert not torch.equal(network(images), network(images))


def test_convolutions_start_as_xavier_uniform_with_relu_gain() -> None:
    for name, convolution in model.create("5.7m").features.named_children():
        if isinstance(convolution, nn.Conv2d):
            area = convolution.kernel_size[0] ** 2
            fans = (convolution.in_channels + convolution.out_channels) * area
            bound = math.sqrt(2) * math.sqrt(6 / fans)
            largest = convolution.weight.abs().max().item()
            assert largest <= bound, name
            assert largest > 0.97 * bound, name
            assert convolution.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05), name


def test_max_pools_the_whole_feature_map() -> None:
    network = model.create("cifar-310k")
    images = torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = network.features(images)
        assert maps.shape[-2:] == (3, 2)
        expected = functional.linear(maps.amax(dim=(2, 3)), network.classifier.weight, network.classifier.bias)
        torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize(("num_classes", "in_channels"), [(0, 3), (-1, 3), (10, 0)])
def test_no_classes_or_no_channels_is_a_usage_error(num_classes: int, in_channels: int) -> None:
    with pytest.raises(UsageError, match="at least 1 class and 1 channel"):
        model.create("cifar-310k", num_classes, in_channels)


def test_the_class_number_of_the_variant_is_the_default() -> None:
    assert model.create("1.5m", device="meta").classifier.out_features == 1000
    assert model.create("cifar-5m", device="meta").classifier.out_features == 10
