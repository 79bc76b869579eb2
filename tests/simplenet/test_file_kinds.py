"""Files that are no checkpoint, or need a conversion: the error says what they are and what to type."""

from __future__ import annotations

import gzip
import io
import pickle
import shlex
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.utils import prune

from simplenet import model, weights
from simplenet.errors import WeightsError
from tests.simplenet.networks import GOOD, VARIANT, prefixed, same, state, write

pytestmark = pytest.mark.filterwarnings("ignore::simplenet.errors.AssumedCardWarning")


def test_an_interrupted_save_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/version", "3")
        archive.writestr("a/.data/serialization_id", "1")
    with pytest.raises(WeightsError, match=r"what torch.save leaves when it is interrupted; save the checkpoint again"):
        weights.load(VARIANT, tmp_path / "a.pth")


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.pth"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; copy or download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "git-lfs pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>Virus scan warning</html>", "a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page"),
        (b'{"message": "Not Found"}', "a text file"),
        (gzip.compress(b"x", mtime=0), "compressed with gzip; unpack it: gunzip"),
        (b"BZh9", "bunzip2"),
        (b"7z\xbc\xaf\x27\x1c", "7z x"),
        (b"\x89HDF\r\n", "HDF5 file, as Keras writes"),
        (tarred(), "a tar archive; unpack it: tar xf"),
        (zipped("weights/plain.pth"), r"a zip archive of 'weights/plain.pth'; unpack it: unzip"),
        (zipped("model/archive_format", "model/data/weights"), r"exported program of PyTorch \(.pt2\)"),
        (zipped("a/data.pkl")[:-30], "an incomplete download; download it again"),
        (pickle.dumps(GOOD), "is a pickle, not a file of torch.save"),
        (b"\x08\x07\x12\x07pytorch" + bytes(99), "neither a file of torch.save nor .safetensors.*--artifact"),
        (pickle.dumps({"a": 1}), "is a pickle, not a file of torch.save; save only the weights"),
    ],
    ids=lambda value: "file" if isinstance(value, bytes) else None,  # a zip has the time of day
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_names_what_is_no_checkpoint(tmp_path: Path, content: bytes, message: str, suffix: str) -> None:
    path = tmp_path / f"it's a{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        weights.load(VARIANT, path)
    assert str(path) in str(caught.value)


def test_the_advice_for_torchscript_works(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model.create(VARIANT), torch.zeros(1, 3, 32, 32)).save(tmp_path / "script.pt")
    with pytest.raises(WeightsError, match="is a TorchScript program, which is never run; save only") as caught:
        weights.load(VARIANT, tmp_path / "script.pt")
    code = shlex.split(str(caught.value).rpartition(": ")[2])[2]
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, check=True)
    assert same(weights.load(VARIANT, tmp_path / "weights.pth"), state(seed=0))


@pytest.mark.parametrize("protocol", [2, 5])
def test_names_numpy_arrays_that_need_pickle(tmp_path: Path, protocol: int) -> None:
    arrays = {name: tensor.numpy() for name, tensor in GOOD.items()}
    path = tmp_path / "a"
    for content in (arrays, {"epoch": 3, "model": arrays}):
        torch.save(content, path, pickle_protocol=protocol)
        with pytest.raises(WeightsError, match=r"holds pickled NumPy arrays; save .* numpy\.savez"):
            weights.load(VARIANT, path)
    path.write_bytes(pickle.dumps(arrays, protocol))
    with pytest.raises(WeightsError, match=r"a pickle, .* or save NumPy arrays with numpy\.savez"):
        weights.load(VARIANT, path)
    np.save(tmp_path / "a.npy", np.array(arrays))
    with pytest.raises(WeightsError, match=r"a NumPy array; .* numpy.savez\('weights.npz', \*\*arrays"):
        weights.load(VARIANT, tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", **arrays, extra=np.array({}))
    with pytest.raises(WeightsError, match=r"damaged or not a checkpoint \(Object arrays cannot be loaded"):
        weights.load(VARIANT, tmp_path / "a.npz")


def test_names_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp" / ".metadata").write_bytes(b"x")
    (tmp_path / "hub").mkdir()
    save_file(GOOD, tmp_path / "hub" / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"format_utils dcp_to_torch dcp weights.pth"):
        weights.load(VARIANT, "dcp")
    with pytest.raises(WeightsError, match=r"hub is a folder, .* type --weights hub/model.safetensors"):
        weights.load(VARIANT, "hub")


def test_names_pruned_networks(tmp_path: Path) -> None:
    network = model.create(VARIANT)
    prune.l1_unstructured(network.features[0], "weight", 0.3)
    path = tmp_path / "a.pth"
    for content in (network.state_dict(), {"state_dict": prefixed("module.", network.state_dict())}):
        with pytest.raises(
            WeightsError, match=r"a.pth is pruned \(features.0.weight_mask\).*prune\.remove\(module, 'w"
        ):
            weights.load(VARIANT, write(path, content))
    prune.remove(network.features[0], "weight")
    assert same(weights.load(VARIANT, write(path, network.state_dict())), dict(network.state_dict()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (torch.nn.utils.parametrizations.weight_norm, r"parametrized .*parametrize.remove_parametrizations\(module"),
        (torch.nn.utils.spectral_norm, r"by spectral_norm .*remove_spectral_norm\(module\)"),
    ],
)
def test_names_normalized_weights(tmp_path: Path, change: Callable[..., Any], message: str) -> None:
    network = model.create(VARIANT)
    change(network.features[4])
    with pytest.raises(WeightsError, match=message):
        weights.load(VARIANT, write(tmp_path / "a.pth", network.state_dict()))


def test_names_networks_that_were_pickled_whole(tmp_path: Path) -> None:
    for content in (model.create(VARIANT), {"model": torch.nn.DataParallel(model.create(VARIANT)), "epoch": 3}):
        with pytest.raises(
            WeightsError, match=r"a pickled network \(.*(SimpleNet|DataParallel)\), .*save only the wei"
        ):
            weights.load(VARIANT, write(tmp_path / "a.pth", content))
