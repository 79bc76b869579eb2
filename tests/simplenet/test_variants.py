"""The twelve variants against the published numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from simplenet import model, variants
from simplenet.errors import UsageError
from simplenet.preprocessing import Preprocessing

# name: reference name, parameters, GMACs or None, top-1, top-5, official file
FACTS = {
    "1.5m": ("simplenetv1_small_m2_05", 1_506_792, 0.428, 61.67, 83.488, "simplenetv1_small_m2_05-ca4b3e2b.pth"),
    "1.5m-m1": ("simplenetv1_small_m1_05", 1_506_792, 0.341, 61.122, 82.988, "simplenetv1_small_m1_05-be804903.pth"),
    "3m": ("simplenetv1_small_m2_075", 3_287_272, 0.954, 68.506, 88.15, "simplenetv1_small_m2_075-609ff4da.pth"),
    "3m-m1": ("simplenetv1_small_m1_075", 3_287_272, None, 67.784, 87.718, "simplenetv1_small_m1_075-098acbff.pth"),
    "5.7m": ("simplenetv1_5m_m2", 5_752_808, 1.689, 72.03, 90.324, "simplenetv1_5m_m2-9bd6bb36.pth"),
    "5.7m-m1": ("simplenetv1_5m_m1", 5_752_808, None, 71.548, 89.94, "simplenetv1_5m_m1-36c4ca4d.pth"),
    "9.5m": ("simplenetv1_9m_m2", 9_508_968, 3.555, 74.23, 91.748, "simplenetv1_9m_m2-59e8733b.pth"),
    "9.5m-m1": ("simplenetv1_9m_m1", 9_508_968, None, 73.792, 91.486, "simplenetv1_9m_m1-524f9972.pth"),
    "cifar-310k": ("simplenet_cifar_310k", 312_362, 0.056, 91.98, None, None),
    "cifar-460k": ("simplenet_cifar_460k", 385_790, 0.073, 92.33, None, None),
    "cifar-5m": ("simplenet_cifar_5m", 5_498_378, 0.652, 95.51, None, None),
    "cifar-5m-extra-pool": ("simplenet_cifar_5m_extra_pool", 5_498_378, None, None, None, None),
}

# Position of each convolution in `features`: 4 modules after each, 3 where it has no dropout, 2 for a pool between.
IMAGENET_POSITIONS = [0, 4, 8, 12, 16, 20, 26, 30, 34, 38, 44, 48, 52]
CIFAR_310K_POSITIONS = [0, 4, 8, 12, 17, 21, 25, 30, 34, 39, 43, 47, 52]
POSITIONS = {
    "1.5m": IMAGENET_POSITIONS,
    "9.5m-m1": IMAGENET_POSITIONS,
    "cifar-310k": CIFAR_310K_POSITIONS,
    "cifar-5m": CIFAR_310K_POSITIONS,
    "cifar-5m-extra-pool": [0, 4, 8, 12, 17, 21, 25, 30, 34, 39, 45, 49, 54],
}
CHANNELS = {
    "1.5m": [32, 64, 64, 64, 64, 64, 128, 128, 128, 256, 1024, 128, 128],
    "3m": [48, 96, 96, 96, 96, 96, 192, 192, 192, 384, 1536, 192, 192],
    "5.7m": [64, 128, 128, 128, 128, 128, 256, 256, 256, 512, 2048, 256, 256],
    "9.5m": [128, 192, 192, 192, 192, 192, 320, 320, 320, 640, 2560, 320, 320],
    "cifar-310k": [64, 32, 32, 32, 32, 32, 64, 64, 64, 128, 256, 64, 64],
    "cifar-460k": [32, 32, 32, 64, 64, 64, 64, 64, 64, 96, 96, 96, 100],
    "cifar-5m": [64, 128, 128, 128, 128, 128, 256, 256, 256, 512, 2048, 256, 256],
}


def create(name: str) -> model.SimpleNet:
    return model.create(name, device="meta")  # shapes, no memory


def convolutions(name: str) -> dict[int, nn.Conv2d]:
    return {position: module for position, module in enumerate(create(name).features) if isinstance(module, nn.Conv2d)}


def test_all_twelve_variants() -> None:
    assert list(variants.VARIANTS) == list(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_published_facts(name: str) -> None:
    reference, parameters, giga_macs, top1, top5, weights_file = FACTS[name]
    variant = variants.get(name)
    assert (variant.reference_name, variant.parameters) == (reference, parameters)
    assert (variant.published_top1, variant.published_top5) == (top1, top5)
    assert variant.official_weights_file == weights_file
    assert variant.official_sha256_prefix == (weights_file and weights_file[-12:-4])
    network = create(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        size = 224 if weights_file else 32
        logits = network(torch.empty(1, 3, size, size, device="meta"))
    assert list(logits.shape) == [1, 1000 if weights_file else 10]
    if giga_macs is not None:
        assert round(counter.get_total_flops() / 2e9, 3) == giga_macs


@pytest.mark.parametrize("name", POSITIONS)
def test_convolutions_have_the_official_indices(name: str) -> None:
    assert list(convolutions(name)) == POSITIONS[name]


@pytest.mark.parametrize("name", CHANNELS)
def test_channels(name: str) -> None:
    assert [convolution.out_channels for convolution in convolutions(name).values()] == CHANNELS[name]


@pytest.mark.parametrize(
    ("name", "strides"),
    [("5.7m", [2, 2, 1, 2]), ("5.7m-m1", [2, 2, 2, 1]), ("9.5m", [2, 2, 1, 2]), ("cifar-310k", [1, 1, 1, 1])],
)
def test_strides(name: str, strides: list[int]) -> None:
    found = [convolution.stride for convolution in convolutions(name).values()]
    assert found == [(stride, stride) for stride in strides + [1] * 9]


def test_stride_modes() -> None:
    expected = {"m0": (), "m1": (2, 2, 2), "m2": (2, 2, 1, 2), "m3": (2, 2, 1, 1, 2), "m4": (2, 1, 2, 1, 2, 1)}
    assert expected == variants.STRIDE_MODES


def test_the_chain_of_cifar_310k() -> None:
    kinds = [type(module).__name__ for module in create("cifar-310k").features]
    full, bare, pool = (
        ["Conv2d", "BatchNorm2d", "ReLU", "Dropout2d"],
        ["Conv2d", "BatchNorm2d", "ReLU"],
        ["MaxPool2d", "Dropout2d"],
    )
    expected = [*full * 3, *bare, *pool, *full * 2, *bare, *pool, *full, *bare, *pool, *full * 2, *bare, *pool, *bare]
    assert kinds == expected


@pytest.mark.parametrize("name", sorted(variants.VARIANTS))
def test_smallest_side_is_the_smallest_valid_size(name: str) -> None:
    variant, network = variants.get(name), model.create(name, 2)
    side = variant.smallest_side
    assert network(torch.zeros(1, 3, side, side)).shape == (1, 2)
    with pytest.raises(RuntimeError, match="too small"):
        network(torch.zeros(1, 3, side - 1, side - 1))
    variant.check_side(side, "")
    with pytest.raises(UsageError, match=f"{name} needs images of {side} pixels or more, not {side - 1}; think again"):
        variant.check_side(side - 1, "think again")


def test_kernels_and_batch_norm() -> None:
    network = create("1.5m")
    kernels = [convolution.kernel_size[0] for convolution in convolutions("1.5m").values()]
    assert kernels == [3] * 10 + [1, 1, 3]
    assert all(
        convolution.padding == (convolution.kernel_size[0] // 2,) * 2 for convolution in convolutions("1.5m").values()
    )
    assert all(convolution.bias is not None for convolution in convolutions("1.5m").values())
    norms = [module for module in network.features if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.05)}


def test_state_dict_keys_and_shapes() -> None:
    state = create("1.5m").state_dict()
    keys = []
    for position in IMAGENET_POSITIONS:
        keys += [f"features.{position}.{part}" for part in ("weight", "bias")]
        norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        keys += [f"features.{position + 1}.{part}" for part in norm]
    assert list(state) == [*keys, "classifier.weight", "classifier.bias"]
    assert list(state["features.0.weight"].shape) == [32, 3, 3, 3]
    assert list(state["features.44.weight"].shape) == [1024, 256, 1, 1]
    assert list(state["features.52.weight"].shape) == [128, 128, 3, 3]
    assert list(state["classifier.weight"].shape) == [1000, 128]


def test_preprocessing() -> None:
    assert variants.get("3m").preprocessing == Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    cifar = variants.get("cifar-5m").preprocessing
    assert (cifar.resize_shorter_side, cifar.crop_size, cifar.padding) == (32, 32, 0)
    assert cifar.mean == pytest.approx((0.49137, 0.48235, 0.44667), abs=1e-5)
    assert cifar.std == pytest.approx((0.24706, 0.24353, 0.26157), abs=1e-5)


@pytest.mark.parametrize("name", FACTS)
def test_reference_names_are_aliases(name: str) -> None:
    assert variants.get(FACTS[name][0]) is variants.get(name)


@pytest.mark.parametrize(
    ("name", "nearest"), [("1.5", "1.5m"), ("cifar-310", "cifar-310k"), ("simplenetv1_5m", "simplenetv1_5m_m2")]
)
def test_an_unknown_name_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=f"unknown variant '{name}', did you mean '{nearest}'") as caught:
        variants.get(name)
    assert all(choice in str(caught.value) for choice in FACTS)


@pytest.mark.parametrize("name", ["", "zzz", "1.5M\n", "x" * 100_000])
def test_an_unknown_name_like_nothing(name: str) -> None:
    with pytest.raises(UsageError, match=r"choose from: 1\.5m, 1\.5m-m1"):
        variants.get(name)
