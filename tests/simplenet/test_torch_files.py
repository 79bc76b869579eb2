"""Hostile files of torch.save: nothing runs, and memory is bounded by the file's size."""

from __future__ import annotations

import collections
import io
import pickle
import random
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from simplenet import weights
from simplenet.errors import WeightsError
from tests.simplenet.networks import VARIANT, same, state

GOOD = state()


pytestmark = pytest.mark.filterwarnings("ignore::simplenet.errors.AssumedCardWarning")


def forged(path: Path, data_pkl: bytes, is_legacy: bool = False) -> Path:
    """Write a file of torch.save with a pickle of any content."""
    if is_legacy:
        torch.save({}, path, _use_new_zipfile_serialization=False)
        start = path.read_bytes()[: -len(pickle.dumps({}, 2)) - len(pickle.dumps([], 2))]
        path.write_bytes(start + data_pkl + pickle.dumps([], 2))
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", data_pkl)
        archive.writestr("a/data/0", bytes(16))
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def name(module: str, function: str) -> bytes:
    return b"c" + module.encode() + b"\n" + function.encode() + b"\n"


def tensor(size: bytes = b"K\x04", offset: bytes = b"K\0", shape: bytes = b"K\x04\x85", key: str = "0") -> bytes:
    storage = b"(" + text("storage") + name("torch", "FloatStorage") + text(key) + text("cpu") + size + b"tQ"
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return rebuild + b"(" + storage + offset + shape + b"K\x01\x85" + b"\x89" + b"}tR"


def entry(key: str, value: bytes) -> bytes:
    return b"\x80\x02}" + text(key) + value + b"s."


@pytest.fixture
def events(tmp_path: Path) -> Iterator[list[str]]:
    """Audited calls of the interpreter while the test runs."""
    "".encode("cp437")  # zipfile imports this codec at its first use, which is an `exec`
    torch.save(GOOD, tmp_path / "good.pth")
    weights.load(VARIANT, tmp_path / "good.pth")
    seen: list[str] = []
    is_on = [True]
    watched = ("os.system", "os.exec", "subprocess.Popen", "exec", "compile", "os.remove", "socket.connect")
    sys.addaudithook(lambda event, _: seen.append(event) if is_on[0] and event in watched else None)
    yield seen
    is_on[0] = False


CALL = text("touch /tmp/x") + b"\x85R"
CODE = {
    "os.system": name("os", "system") + CALL,
    "posix.system": name("posix", "system") + CALL,
    "eval": name("builtins", "eval") + CALL,
    "python 2": name("__builtin__", "eval") + CALL,
    "getattr": name("builtins", "getattr") + b"(" + name("os", "path") + text("x") + b"tR",
    "getattr of a module": name("builtins", "getattr") + b"(" + name("os", "Path") + text("x") + b"tR",
    "import": name("importlib", "import_module") + CALL,
    "popen": name("subprocess", "Popen") + CALL,
    "torch.load": name("torch.serialization", "load") + CALL,
    "torch.hub": name("torch.hub", "load") + CALL,
    "numpy": name("numpy.testing._private.utils", "runstring") + CALL,
    "unknown function": name("training_script", "run") + CALL,
    "stack global": text("os") + text("system") + b"\x93" + CALL,
    "nested name": name("builtins", "__import__") + CALL,
    "dotted name": text("collections") + text("OrderedDict.fromkeys") + b"\x93" + CALL,
    "inst": b"(" + text("touch /tmp/x") + b"ios\nsystem\n",
    "obj": b"(" + name("os", "system") + text("touch /tmp/x") + b"o",
    "twice": name("torch.nn.parameter", "Parameter") + b")R" + CALL,
    "from type": name("torch._tensor", "_rebuild_from_type_v2")
    + b"("
    + name("os", "system")
    + b"N"
    + text("x")
    + b"\x85}tR",
    "extension": b"\x82\x01" + CALL,
}


@pytest.mark.parametrize("is_legacy", [False, True])
@pytest.mark.parametrize("attack", CODE)
def test_code_is_refused_and_never_runs(tmp_path: Path, attack: str, events: list[str], is_legacy: bool) -> None:
    for key in ("features.0.weight", "epoch"):
        path = forged(tmp_path / "a.pth", entry(key, CODE[attack]), is_legacy)
        with pytest.raises(WeightsError) as caught:
            weights.load(VARIANT, path)
        assert "code" in str(caught.value) or attack in ("extension", "twice")
    assert events == []


@pytest.mark.parametrize(
    "state_of_build",
    [
        b"}" + text("__class__") + name("os", "system") + b"s",
        b"N}" + text("shape") + b"K\x05s\x86",
        b"}" + text("__setstate__") + name("os", "system") + b"s",
        b"}" + text("__reduce__") + b"Ns",
    ],
)
def test_build_changes_no_class_or_function(tmp_path: Path, state_of_build: bytes, events: list[str]) -> None:
    targets = [
        name("torch", "Tensor"),
        name("torch._utils", "_rebuild_tensor_v2"),
        name("collections", "OrderedDict") + b")R",
        name("collections", "OrderedDict"),
        name("subprocess", "Popen") + b")\x81",
        name("training_script", "Meter") + b")\x81",
        tensor(),
        b"]",
    ]
    before = [dict(vars(each)) for each in (torch.Tensor, torch._utils._rebuild_tensor_v2, collections.OrderedDict)]
    for target in targets:
        path = forged(tmp_path / "a.pth", entry("features.0.weight", target + state_of_build + b"b"))
        with pytest.raises(WeightsError):
            weights.load(VARIANT, path)
    assert before == [
        dict(vars(each)) for each in (torch.Tensor, torch._utils._rebuild_tensor_v2, collections.OrderedDict)
    ]
    assert events == []
    torch.save({"a": torch.zeros(2)}, tmp_path / "b.pth")
    assert torch.load(tmp_path / "b.pth")["a"].shape == (2,)


HUGE = b"\x8a\x06" + (1 << 40).to_bytes(6, "little")
LIES = {
    "size of storage": tensor(size=HUGE),
    "negative size": tensor(size=b"J\xff\xff\xff\xff"),
    "offset": tensor(offset=HUGE),
    "negative offset": tensor(offset=b"J\xff\xff\xff\xff"),
    "shape": tensor(shape=HUGE + b"\x85"),
    "negative shape": tensor(shape=b"J\xff\xff\xff\xff\x85"),
    "path": tensor(key="../../../../etc/passwd"),
    "bytearray": name("builtins", "bytearray") + HUGE + b"\x85R",
    "tensor of a size": name("torch", "FloatTensor") + HUGE + b"\x85R",
    "bytearray8": b"\x96" + struct.pack("<Q", 1 << 40) + b"x",
    "bytes8": b"\x8e" + struct.pack("<Q", 1 << 40) + b"x",
    "string8": b"\x8d" + struct.pack("<Q", 1 << 40) + b"x",
    "frame": b"\x95" + struct.pack("<Q", 1 << 40) + b"N",
    "memo": b"Nr" + struct.pack("<I", (1 << 32) - 1),
    "missing memo": b"j" + struct.pack("<I", 7),
    "long": b"\x8b" + struct.pack("<I", (1 << 31) - 1) + b"x",
    "digits": b"L" + b"9" * 100_000 + b"L\n",
    "deep": b"]" * 100_000 + b"a" * 99_999,
    "no end": b"}" * 1000,
    "recursive": b"]q\x01h\x01a",
    "unhashable": b"}]Ns",
}


@pytest.mark.skipif(sys.platform != "linux", reason="no resource limits, or no /proc")
@pytest.mark.parametrize("lie", LIES)
def test_lies_about_sizes_allocate_nothing(tmp_path: Path, lie: str) -> None:
    import resource

    path = forged(tmp_path / "a.pth", entry("classifier.bias", LIES[lie]))
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), limits[1]))
    try:
        with pytest.raises(WeightsError) as caught:
            weights.load(VARIANT, path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert "\n" not in str(caught.value)


def test_values_that_do_not_fill_their_shape_are_refused(tmp_path: Path) -> None:
    """The shapes are right, but the file is shorter: as after an incomplete copy by another program."""
    torch.save(GOOD, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as source, zipfile.ZipFile(tmp_path / "b.pth", "w") as target:
        for info in source.infolist():
            content = source.read(info)
            target.writestr(info, content[:-4] if info.filename.endswith("data/0") else content)
    with pytest.raises(WeightsError, match=r"damaged: features.0.weight cannot be read \(storage 0 has 6908 bytes"):
        weights.load(VARIANT, tmp_path / "b.pth")


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    torch.save(GOOD, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as source, zipfile.ZipFile(tmp_path / "b.pth", "w") as target:
        for info in source.infolist():
            target.writestr(info, b"big" if info.filename.endswith("byteorder") else source.read(info))
    with pytest.raises(WeightsError, match="big-endian"):
        weights.load(VARIANT, tmp_path / "b.pth")


def test_values_behind_a_negative_bit_are_refused(tmp_path: Path) -> None:
    name = "features.0.weight"
    torch.save({**GOOD, name: torch._neg_view(-GOOD[name])}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth"):
        weights.load(VARIANT, tmp_path / "a.pth")


def test_a_shared_storage_is_read_once(tmp_path: Path) -> None:
    """100 names for one storage of 8 MB take 8 MB."""
    flat = torch.rand(1 << 21)
    views = {
        key: flat[: value.numel()].view(value.shape) if value.is_floating_point() else value
        for key, value in GOOD.items()
    }
    torch.save(views, tmp_path / "a.pth")
    loaded = weights.load(VARIANT, tmp_path / "a.pth").model.state_dict()
    assert all(torch.equal(loaded[key], views[key]) for key in views)


@pytest.mark.parametrize("is_zip", [True, False])
def test_damaged_pickles_give_one_line(tmp_path: Path, is_zip: bool) -> None:
    """Random damage: the weights, or an error of the project; never another exception."""
    buffer = io.BytesIO()
    small: dict[str, Any] = {"state_dict": GOOD, "epoch": 3, "lr": [0.1, {"a": (1, 2)}]}
    torch.save(small, buffer, _use_new_zipfile_serialization=is_zip)
    content, dice = buffer.getvalue(), random.Random(0)
    start = content.index(b"state_dict")
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(dice.choice((1, 3, 20))):
            damaged[start + dice.randrange(-40, 9000)] = dice.randrange(256)
        if is_zip:
            end = damaged.index(b"PK", start)
            with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(tmp_path / "a.pth", "w") as target:
                for info in source.infolist():
                    is_pickle = info.filename.endswith("data.pkl")
                    target.writestr(info.filename, bytes(damaged[start - 40 : end]) if is_pickle else source.read(info))
        else:
            (tmp_path / "a.pth").write_bytes(damaged)
        message = ""
        try:
            weights.load(VARIANT, tmp_path / "a.pth")
        except WeightsError as error:
            message = str(error)
        assert "\n" not in message
        assert len(message) < 600


def test_matches_torch_load(tmp_path: Path) -> None:
    for is_zip in (True, False):
        torch.save(GOOD, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
        assert same(weights.load(VARIANT, tmp_path / "a.pth"), torch.load(tmp_path / "a.pth"))
