"""The twelve SimpleNet variants: architecture, published numbers, default preprocessing.

Architectures: "Lets Keep it simple, Using simple architectures to outperform deeper and more complex
architectures", Hasanpour et al., 2016, arXiv:1608.06037, and its reference implementation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from simplenet.errors import UsageError, check_choice
from simplenet.preprocessing import CIFAR10_PREPROCESSING, IMAGENET_PREPROCESSING, Preprocessing


class Convolution(NamedTuple):
    """Conv2d with bias -> BatchNorm2d -> ReLU -> Dropout2d if `has_dropout`; strides are in STRIDE_MODES."""

    channels: int
    kernel_size: int
    has_dropout: bool


class Pool(NamedTuple):
    """MaxPool2d(2, stride 2) -> Dropout2d."""


# A number is a 3x3 convolution with that many channels; with k1, it is 1x1; with *, it has no Dropout2d. P is a Pool.
BODIES = {
    "imagenet-5m": "64 128 128 128 128 128 P 256 256 256 512 P 2048k1 256k1 256",
    "imagenet-9m": "128 192 192 192 192 192 P 320 320 320 640 P 2560k1 320k1 320",
    "cifar-310k": "64 32 32 32* P 32 32 64* P 64 64* P 128 256k1 64k1* P 64*",
    "cifar-460k": "32 32 32 64* P 64 64 64* P 64 64* P 96 96k1 96k1* P 100*",
    "cifar-5m": "64 128 128 128* P 128 128 256* P 256 256* P 512 2048k1 256k1* P 256*",
    "cifar-5m-extra-pool": "64 128 128 128* P 128 128 256* P 256 256* P 512 P 2048k1 256k1* P 256*",
}

# Strides of the first convolutions; all others are 1.
STRIDE_MODES = {
    "m0": (),
    "m1": (2, 2, 2),
    "m2": (2, 2, 1, 2),
    "m3": (2, 2, 1, 1, 2),
    "m4": (2, 1, 2, 1, 2, 1),
}


@dataclass(frozen=True)
class Variant:
    """A network of the family. `parameters` is the number of weights; accuracies are in percent."""

    name: str
    reference_name: str
    body: str
    width_scale: float
    stride_mode: str
    parameters: int
    num_classes: int
    preprocessing: Preprocessing = field(repr=False)
    published_top1: float | None = None
    published_top5: float | None = None
    official_weights_file: str | None = None

    def layers(self) -> list[Convolution | Pool]:
        """Return the layers in order, with round(channels * width_scale) channels."""
        return [_parse_entry(entry, self.width_scale) for entry in BODIES[self.body].split()]

    @property
    def strides(self) -> tuple[int, ...]:
        return STRIDE_MODES[self.stride_mode]

    @property
    def smallest_side(self) -> int:
        """Side in pixels of the smallest input: the last layer's output is one pixel."""
        strides = iter(self.strides)
        steps = [0 if isinstance(layer, Pool) else next(strides, 1) for layer in self.layers()]
        side = 1
        for stride in reversed(steps):
            side = (side - 1) * stride + 1 if stride else 2 * side  # a pool drops an odd last row
        return side

    def check_side(self, side: int, hint: str) -> None:
        """Raise UsageError, which ends with `hint`, if images of `side` pixels are too small."""
        if side < self.smallest_side:
            raise UsageError(f"{self.name} needs images of {self.smallest_side} pixels or more, not {side}; {hint}")

    @property
    def official_sha256_prefix(self) -> str | None:
        """First 8 hex digits of the official file's SHA-256, from its name (timm's convention)."""
        return self.official_weights_file.rsplit("-", 1)[1][:8] if self.official_weights_file else None


FIRST_RELEASE_HASHES = (
    "a7ec600b", "62617ea1", "8427bf60", "da714eb5", "cc6b3ad1", "c35297bf", "8c98a0a5", "6b01be1e",
    "aa831f69", "39b8bcfc", "b96ceb62", "56d12da5", "295289f0", "324ba7cc",
)  # fmt: skip
"""Start of the SHA-256 of the official files before April 2023. Their 1x1 convolutions had padding 1."""


def _parse_entry(entry: str, width_scale: float) -> Convolution | Pool:
    if entry == "P":
        return Pool()
    match = re.fullmatch(r"(\d+)(k1)?(\*)?", entry)
    assert match, entry
    return Convolution(round(int(match[1]) * width_scale), 1 if match[2] else 3, not match[3])


def _imagenet(
    name: str, size: str, body: str, scale: float, parameters: int, published: dict[str, tuple[float, float, str]]
) -> list[Variant]:
    """Return the variants of one size: `name` has stride mode m2, and `name`-m1 has m1."""
    return [
        Variant(
            name=name if mode == "m2" else f"{name}-{mode}",
            reference_name=(reference := f"simplenetv1_{size.format(mode=mode)}"),
            body=body,
            width_scale=scale,
            stride_mode=mode,
            parameters=parameters,
            num_classes=1000,
            preprocessing=IMAGENET_PREPROCESSING,
            published_top1=top1,
            published_top5=top5,
            official_weights_file=f"{reference}-{sha256_prefix}.pth",
        )
        for mode, (top1, top5, sha256_prefix) in published.items()
    ]


def _cifar(name: str, parameters: int, published_top1: float | None) -> Variant:
    return Variant(
        name=name,
        reference_name="simplenet_" + name.replace("-", "_"),
        body=name,
        width_scale=1.0,
        stride_mode="m0",
        parameters=parameters,
        num_classes=10,
        preprocessing=CIFAR10_PREPROCESSING,
        published_top1=published_top1,
    )


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        *_imagenet("1.5m", "small_{mode}_05", "imagenet-5m", 0.5, 1_506_792,
                   {"m2": (61.67, 83.488, "ca4b3e2b"), "m1": (61.122, 82.988, "be804903")}),
        *_imagenet("3m", "small_{mode}_075", "imagenet-5m", 0.75, 3_287_272,
                   {"m2": (68.506, 88.15, "609ff4da"), "m1": (67.784, 87.718, "098acbff")}),
        *_imagenet("5.7m", "5m_{mode}", "imagenet-5m", 1.0, 5_752_808,
                   {"m2": (72.03, 90.324, "9bd6bb36"), "m1": (71.548, 89.94, "36c4ca4d")}),
        *_imagenet("9.5m", "9m_{mode}", "imagenet-9m", 1.0, 9_508_968,
                   {"m2": (74.23, 91.748, "59e8733b"), "m1": (73.792, 91.486, "524f9972")}),
        _cifar("cifar-310k", 312_362, 91.98),
        _cifar("cifar-460k", 385_790, 92.33),
        _cifar("cifar-5m", 5_498_378, 95.51),
        _cifar("cifar-5m-extra-pool", 5_498_378, None),
    )
}  # fmt: skip


def get(name: str) -> Variant:
    """Return the variant of that name or reference name.

    Raises:
        UsageError: unknown name; the message lists the choices and the most similar one.
    """
    by_name = VARIANTS | {variant.reference_name: variant for variant in VARIANTS.values()}
    return by_name[check_choice("variant", name, VARIANTS, aliases=by_name)]
