"""Checkpoints as training programs write them: containers, prefixes, averages, layouts."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import functools
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from simplenet import model, variants, weights
from simplenet.errors import SimpleNetWarning, UsageError, WeightsError
from tests.simplenet.networks import GOOD, VARIANT, Tensors, prefixed, same, sha256, state, write

RAW = state(seed=4)


pytestmark = pytest.mark.filterwarnings("ignore::simplenet.errors.AssumedCardWarning")


def define(module: str, name: str, base: type = object, **attributes: Any) -> Any:
    """A class of a training script's module that does not exist when the checkpoint is read."""
    made = type(name, (base,), {"__module__": module, **attributes})
    sys.modules.setdefault(module, types.ModuleType(module))
    setattr(sys.modules[module], name, made)
    return made


@pytest.fixture
def forget_modules() -> Any:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("training_script"):
            del sys.modules[name]


PREFIXES = (
    "module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "_orig_mod.module.", "backbone.encoder.",
    "ema_model.module.", "student/",
)  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_common_prefix_is_stripped(tmp_path: Path, prefix: str) -> None:
    save_file(prefixed(prefix), tmp_path / "a.safetensors")
    for path in (tmp_path / "a.safetensors", write(tmp_path / "a.pth", {"state_dict": prefixed(prefix), "epoch": 1})):
        assert same(weights.load(VARIANT, path), GOOD)


@pytest.mark.parametrize("wrapper", ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_wrappers_of_submodules_are_stripped(tmp_path: Path, wrapper: str) -> None:
    tensors = {name.replace("features.", f"features.{wrapper}."): tensor for name, tensor in GOOD.items()}
    assert same(weights.load(VARIANT, write(tmp_path / "a.pth", tensors)), GOOD)


@pytest.mark.parametrize(
    "wrap",
    [
        *(lambda sd, key=key: {key: sd, "epoch": 9} for key in ("state_dict", "net", "model_state_dict", "network_fn")),
        lambda sd: {"model": {"state_dict": sd}, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
        lambda sd: (sd, {"lr": 0.1}),
        lambda sd: [3, sd],
        lambda sd: collections.defaultdict(dict, state_dict=sd),
        lambda sd: argparse.Namespace(state_dict=sd),
        lambda sd: {**sd, "epoch": 3, "name": "x"},
    ],
)
def test_containers_are_opened(tmp_path: Path, wrap: Callable[[Tensors], Any]) -> None:
    for options in ({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 5}):
        assert same(weights.load(VARIANT, write(tmp_path / "a.pth.tar", wrap(GOOD), **options)), GOOD)


def test_containers_may_hold_themselves(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"epoch": 1}
    loop |= {f"ema{number}": loop for number in range(1000)}
    with pytest.raises(WeightsError, match="a dict without a state_dict"):
        weights.load(VARIANT, write(tmp_path / "a.pth", loop))
    assert same(weights.load(VARIANT, write(tmp_path / "a.pth", {**loop, "model": GOOD})), GOOD)


class Color(enum.Enum):
    RED = 1


class OldColor(enum.Enum):
    """Pickled as by Python 3.11.0 to 3.11.3."""

    RED = 1

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return getattr, (type(self), self.name)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.usefixtures("forget_modules")
def test_bookkeeping_of_any_class_is_ignored(tmp_path: Path, protocol: int, is_zip: bool) -> None:
    """No class is imported: the module of the meter is gone when the file is read."""
    meter = define("training_script", "RecorderMeter")()
    meter.epoch_losses = np.zeros((540, 2), np.float32)
    attributes = define("training_script.config", "AttributeDict", dict)(lr=0.1)
    steps = define("training_script.config", "Steps", list)([1, 2])
    slots = define("training_script.config", "Slots", __slots__=("a",))()
    slots.a = 3
    mode = define("training_script.config", "Mode", str)
    extras = {
        "recorder": meter,
        "hyper_parameters": attributes,
        "steps": steps,
        "slots": slots,
        "mode": mode("fast"),
        "args": argparse.Namespace(lr=0.1, path=Path("/x"), seen={Path("a")}),
        "best": np.float64(91.2),
        "array": np.arange(5),
        "dtype": np.dtype("float32"),
        "random": np.random.RandomState(0),
        "date": datetime.datetime(2018, 5, 4),
        "color": Color.RED,
        "old color": OldColor.RED,
        "loss": functools.partial(torch.nn.functional.cross_entropy, label_smoothing=0.1),
        "queue": collections.deque([1, 2], maxlen=3),
        "space": types.SimpleNamespace(a=1),
        "optimizer": torch.optim.SGD([torch.zeros(2)], 0.1).state_dict(),
    }
    if protocol < 2:
        del extras["slots"]  # Python cannot pickle it so
    content = {**extras, "state_dict": prefixed("module.")}
    path = write(tmp_path / "a.pth.tar", content, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    for name in [name for name in sys.modules if name.startswith("training_script")]:
        del sys.modules[name]
    assert same(weights.load(VARIANT, path), GOOD)


def each(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: change(tensor) for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "change",
    [
        lambda sd: {name: tensor for name, tensor in sd.items() if "num_batches" not in name},
        lambda sd: {**sd, "total_ops": torch.zeros(1), "features.0.total_params": torch.zeros(1)},
        lambda sd: {"n_averaged": torch.tensor(5), **prefixed("module.", sd)},
        each(lambda tensor: tensor.double()),
        each(lambda tensor: torch.nn.Parameter(tensor, False)),
        each(lambda tensor: tensor.clone().requires_grad_(tensor.is_floating_point())),
        each(lambda tensor: tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor),
        each(lambda tensor: torch.stack([tensor, tensor], -1)[..., 1]),
    ],
    ids=[
        "no counters",
        "thop",
        "AveragedModel",
        "double",
        "parameters",
        "requires_grad",
        "channels_last",
        "strided views",
    ],
)
def test_harmless_differences_are_tolerated(tmp_path: Path, change: Callable[[Tensors], Tensors]) -> None:
    loaded = weights.load(VARIANT, write(tmp_path / "a.pth", change(GOOD))).model.state_dict()
    assert all(torch.equal(loaded[name], GOOD[name]) for name in GOOD if "num_batches" not in name)


def test_weights_saved_on_a_gpu_load_without_one(tmp_path: Path) -> None:
    write(tmp_path / "cpu.pth", GOOD)
    with zipfile.ZipFile(tmp_path / "cpu.pth") as source, zipfile.ZipFile(tmp_path / "a.pth", "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            target.writestr(entry, content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:1"))
    assert same(weights.load(VARIANT, tmp_path / "a.pth"), GOOD)


AVERAGES: list[tuple[Any, str, str]] = [
    ({"state_dict": RAW, "state_dict_ema": GOOD, "epoch": 3}, "state_dict_ema", "state_dict"),
    ({"model": RAW, "model_ema": {"n_averaged": torch.tensor(5), **prefixed("module.")}}, "model_ema", "model"),
    ({"ema": {"state_dict": GOOD}, "net": RAW}, "ema.state_dict", "net"),
    ({"state_dict": {**prefixed("model.", RAW), **prefixed("ema_model.")}}, "state_dict.ema_model", "state_dict.model"),
    ({"weights": RAW, "SWA": GOOD}, "SWA", "weights"),
    ({**RAW, **prefixed("ema.")}, "ema", "."),
]


@pytest.mark.parametrize(("content", "averaged", "raw"), AVERAGES)
def test_averaged_weights_are_chosen_and_reported(tmp_path: Path, content: Any, averaged: str, raw: str) -> None:
    path = write(tmp_path / "a.pth", content)
    with pytest.warns(
        SimpleNetWarning, match=rf"'{averaged}' and raw ones '{raw}'; .* --weights-key '{raw}'"
    ) as caught:
        assert same(weights.load(VARIANT, path), GOOD)
    assert len([warning for warning in caught if "has averaged weights" in str(warning.message)]) == 1
    assert same(weights.load(VARIANT, path, key=raw), RAW)
    assert same(weights.load(VARIANT, path, key=averaged), GOOD)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_mmengine_swaps_averaged_and_raw_weights(tmp_path: Path, prefix: str) -> None:
    """Its EMAHook saves the averaged weights as 'state_dict', and the raw ones as 'ema_state_dict'."""
    raw = {"steps": torch.tensor(7), **prefixed(f"module.{prefix}", RAW)}
    content = {"meta": {}, "state_dict": prefixed(prefix), "ema_state_dict": raw}
    path = write(tmp_path / "epoch_9.pth", {**content, "message_hub": {"log_scalars": {}}})
    with pytest.warns(SimpleNetWarning, match="averaged weights 'state_dict' and raw ones 'ema_state_dict'"):
        assert same(weights.load(VARIANT, path), GOOD)
    assert same(weights.load(VARIANT, path, key="ema_state_dict"), RAW)
    content = {"state_dict": RAW, "ema_state_dict": GOOD}  # of another program
    with pytest.warns(SimpleNetWarning, match="averaged weights 'ema_state_dict' and raw ones 'state_dict'"):
        assert same(weights.load(VARIANT, write(path, content)), GOOD)


def test_averaged_weights_that_do_not_fit_are_reported(tmp_path: Path) -> None:
    """Some programs average only the parameters, without the statistics of batch norm."""
    shadow = {name: tensor for name, tensor in RAW.items() if "running" not in name}
    path = write(tmp_path / "a.pth", {"model": GOOD, "ema": {"shadow": shadow}})
    with pytest.warns(SimpleNetWarning, match=r"'ema.shadow', which do not fit \(missing .* raw ones 'model' are used"):
        assert same(weights.load(VARIANT, path), GOOD)
    save_file({**prefixed("net/"), **prefixed("net/ema.", shadow)}, tmp_path / "a.safetensors")
    with pytest.warns(SimpleNetWarning, match=r"'net/ema', which do not fit"):
        assert same(weights.load(VARIANT, tmp_path / "a.safetensors"), GOOD)


@pytest.mark.parametrize("form", ["pickled network", "list of tensors"])
def test_averaged_weights_without_names_are_reported(tmp_path: Path, form: str) -> None:
    ema: Any = model.create(VARIANT, 10) if form == "pickled network" else {"shadow_params": list(RAW.values())}
    path = write(tmp_path / "a.pth", {"model": GOOD, "ema": ema, "ema_decay": 0.99, "average_meter": {"loss": 0.1}})
    with pytest.warns(SimpleNetWarning, match=r"averaged weights 'ema', which do not fit .* raw ones 'model' are used"):
        assert same(weights.load(VARIANT, path), GOOD)


def test_counters_beside_two_networks_are_ignored(tmp_path: Path) -> None:
    counters = {"initted": torch.tensor(True), "step": torch.tensor(3)}
    content = {**prefixed("online_model.", RAW), **prefixed("ema_model."), **counters}
    with pytest.warns(SimpleNetWarning, match="averaged weights 'ema_model' and raw ones 'online_model'"):
        assert same(weights.load(VARIANT, write(tmp_path / "a.pth", content)), GOOD)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("value", [range(3), ValueError("x"), {1, 2}])
def test_values_load_in_every_protocol(tmp_path: Path, value: Any, protocol: int) -> None:
    path = write(tmp_path / "a.pth", {"model": GOOD, "value": value}, pickle_protocol=protocol)
    assert same(weights.load(VARIANT, path), GOOD)


def test_several_weights_that_fit_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", {"last": RAW, "best": GOOD, "epoch": 3, "other": state("cifar-460k")})
    with pytest.raises(WeightsError, match=r"several weights that fit: 'last', 'best'; type --weights-key with one"):
        weights.load(VARIANT, path)
    assert same(weights.load(VARIANT, path, key="best"), GOOD)
    with pytest.raises(WeightsError, match=r"a.pth has no weights 'bets'; .* one of: 'last', 'best', 'other'"):
        weights.load(VARIANT, path, key="bets")
    with pytest.raises(WeightsError, match=r"does not fit cifar-310k: .* it fits cifar-460k"):
        weights.load(VARIANT, path, key="other")
    assert same(weights.load(VARIANT, write(path, {"model": GOOD, "best": GOOD})), GOOD)  # the same tensors
    with pytest.raises(UsageError, match="--weights-key is for a checkpoint; type --weights PATH, not random"):
        weights.load(VARIANT, "random", key="model")


def test_tensors_beside_the_network_need_a_key(tmp_path: Path) -> None:
    """They may be a normalization that the network needs."""
    path = write(tmp_path / "a.ckpt", {"state_dict": {**prefixed("model."), "mean": torch.zeros(3)}})
    with pytest.raises(WeightsError, match=r"unexpected 'mean'; .*only the network.* type --weights-key 'state_dict"):
        weights.load(VARIANT, path)
    assert same(weights.load(VARIANT, path, key="state_dict"), GOOD)


def layout_of_2018(variant: str, tensors: Tensors) -> Tensors:
    """Rename: before 2023, the reference implementation had Dropout2d only after pools."""
    features = model.create(variant).features
    is_old = [
        not isinstance(module, torch.nn.Dropout2d) or isinstance(features[index - 1], torch.nn.MaxPool2d)
        for index, module in enumerate(features)
    ]
    renamed = {}
    for name, tensor in tensors.items():
        head, _, rest = name.partition(".")
        index, _, tail = rest.partition(".")
        old = f"features.{sum(is_old[: int(index)])}.{tail}" if head == "features" else name
        renamed[old] = tensor
    return renamed


@pytest.mark.parametrize("variant", ["cifar-310k", "cifar-5m", "cifar-5m-extra-pool"])
def test_the_layout_of_2018_is_renamed(tmp_path: Path, variant: str) -> None:
    tensors = state(variant)
    old = layout_of_2018(variant, tensors)
    assert old.keys() != tensors.keys()
    path = write(tmp_path / "model_best.pth.tar", {"state_dict": prefixed("module.", old), "arch": "simplenet"})
    assert same(weights.load(variant, path), tensors)
    other = "cifar-5m" if variant != "cifar-5m" else "cifar-5m-extra-pool"
    with pytest.raises(WeightsError, match=rf"it fits {variant}: type --variant {variant}"):
        weights.load(other, path)


@pytest.mark.parametrize(
    "name",
    ["simplenetv1_5m_m2-c35297bf.pth", "simplenetv1_small_m1_05-a7ec600b (1).pth", "simv1_1.5m_m2-39b8bcfc.pth"],
)
def test_rejects_the_first_release(tmp_path: Path, name: str) -> None:
    """Its 1x1 convolutions had padding 1, with the same shapes, so the logits would be wrong."""
    with pytest.raises(WeightsError, match=r"first release, whose padded 1x1 .* type --weights pretrained"):
        weights.load("1.5m", write(tmp_path / name, state("1.5m")))


def test_rejects_a_renamed_official_file_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "best.pth", state("1.5m"))
    official = property(lambda variant: sha256(path)[:8] if variant.name == "1.5m-m1" else None)
    monkeypatch.setattr(variants.Variant, "official_sha256_prefix", official)
    with pytest.raises(WeightsError, match=r"holds weights of 1\.5m-m1, not of 1\.5m; type --variant 1.5m-m1"):
        weights.load("1.5m", path)
    monkeypatch.undo()
    monkeypatch.setattr(variants, "FIRST_RELEASE_HASHES", (sha256(path)[:8],))
    with pytest.raises(WeightsError, match="first release"):
        weights.load("1.5m", path)


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    save_file(GOOD, tmp_path / "a.pth")
    for name in ("b.safetensors", "b.ckpt", "b.bin", "B.PTH", "b"):
        assert same(weights.load(VARIANT, write(tmp_path / name, GOOD)), GOOD)
    assert same(weights.load(VARIANT, tmp_path / "a.pth"), GOOD)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8"])
def test_loads_numpy_arrays(tmp_path: Path, dtype: str) -> None:
    arrays = {name: np.asarray(tensor) for name, tensor in GOOD.items()}
    floats = {name: array.astype(dtype) if array.ndim else array for name, array in arrays.items()}
    np.savez_compressed(tmp_path / "a.npz", **prefixed("model.", floats))
    expected = {name: torch.from_numpy(np.asarray(array, arrays[name].dtype)) for name, array in floats.items()}
    assert same(weights.load(VARIANT, tmp_path / "a.npz"), expected)
