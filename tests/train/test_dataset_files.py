"""Dataset files: read exactly; hostile ones are refused with one line."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simplenet.errors import DataError
from train import dataset_files
from train.dataset_files import UInt8Array

HEADER = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2, 3, 4)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.tuples(*[st.integers(1, 7)] * 3), seed=st.integers(0, 2**32 - 1))
def test_an_idx_file_is_read_exactly(tmp_path: Path, shape: tuple[int, int, int], seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 3)) + struct.pack(">3I", *shape) + array.tobytes(), 1))
    np.testing.assert_array_equal(dataset_files.read_idx(path, dimensions=3), array)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty; copy or download it again"),
        (b"\x00\x00\x08", "not an IDX file"),
        (HEADER + bytes(23), "shorter or longer"),
        (b"<!DOCTYPE html><html>", "is a web page, not the file itself"),
        (b"version https://git-lfs.github.com/spec/v1", "is a git-lfs pointer, not .*; type: git lfs pull"),
        (gzip.compress(HEADER + bytes(24))[:-12], "cannot read"),
        (gzip.compress(HEADER + bytes(24))[:-6] + bytes(6), "cannot read"),
        (gzip.compress(HEADER[:9]), "not an IDX file"),
        (gzip.compress(HEADER + bytes(23)), "shorter or longer"),
        (gzip.compress(HEADER + bytes(25)), "shorter or longer"),
        (gzip.compress(bytes((0, 0, 8, 1)) + struct.pack(">I", 24) + bytes(24)), "has labels; swap the names"),
        (gzip.compress(bytes((0, 0, 13, 3)) + HEADER[4:] + bytes(96)), "not an IDX file"),
        (gzip.compress(HEADER[:4] + struct.pack(">3I", 0, 3, 4)), "impossible shape"),
        (gzip.compress(HEADER[:4] + struct.pack(">3I", *[2**32 - 1] * 3)), "impossible shape"),
        (gzip.compress(HEADER[:4] + struct.pack(">3I", 1 << 20, 1 << 5, 1 << 5)), "shorter or longer"),
    ],
    ids=[
        "empty", "3 bytes", "not compressed and truncated", "HTML", "git-lfs", "truncated",
        "wrong checksum", "short header", "23 of 24 bytes",
        "25 of 24 bytes", "1 dimension", "float32", "0 images", "2**32 - 1 images", "1 GB of nothing",
    ],  # the same in every process, unlike gzip's bytes, which hold the time
)  # fmt: skip
def test_a_hostile_idx_file_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as caught:
        dataset_files.read_idx(path, dimensions=3)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), zipped=st.booleans())
def test_random_bytes_are_never_more_than_a_data_error(tmp_path: Path, content: bytes, zipped: bool) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(content, 1) if zipped else content)
    with pytest.raises(DataError):
        dataset_files.read_idx(path, dimensions=3)


def _records(count: int, label_bytes: int, seed: int = 0) -> tuple[bytes, UInt8Array, UInt8Array]:
    """A CIFAR file, its images [N, 32, 32, 3] and its last label bytes."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    labels = rng.integers(0, 10, (count, label_bytes)).astype(np.uint8)
    planes = images.transpose(0, 3, 1, 2).reshape(count, -1)
    return np.concatenate([labels, planes], axis=1).tobytes(), images, labels[:, -1]


def _tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_cifar_files_are_read_exactly_and_in_order(tmp_path: Path, label_bytes: int) -> None:
    (one, images, labels), (two, more, others) = (_records(count, label_bytes, count) for count in (3, 4))
    members = {"a/two.bin": two, "a/one.bin": one, "a/readme.html": b"x"}
    path = _tar(tmp_path / "x.tar.gz", members)
    train, test = dataset_files.read_cifar(tmp_path, (path.name, ""), ("one", "two"), ("two",), label_bytes)
    np.testing.assert_array_equal(train[0], np.concatenate([images, more]))
    np.testing.assert_array_equal(train[1], np.concatenate([labels, others]))
    np.testing.assert_array_equal(test[0], more)
    assert train[0].flags.c_contiguous
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name]  # nothing was unpacked


def test_hostile_cifar_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"

    def complaint(names: tuple[str, ...] = ("one",)) -> str:
        with pytest.raises(DataError) as caught:
            dataset_files.read_cifar(tmp_path, (path.name, "y.tar.gz"), names[:1], names[-1:], 1)
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message
        return message

    path.write_bytes(b"")
    assert "is empty; copy or download it again" in complaint()
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "is a git-lfs pointer, not the file itself; type: git lfs pull" in complaint()
    whole = _tar(path, {"a/one.bin": _records(50, 1)[0]}).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cannot read" in complaint()
    path.write_bytes(whole)
    assert "has no two;" in complaint(("one", "two"))
    for content in (b"", bytes(3072), bytes(3074)):
        _tar(path, {"one.bin": content})
        assert "is not a file of 3073-byte records" in complaint()
    with tarfile.open(path, "w:gz") as archive:  # a link, which could point anywhere
        member = tarfile.TarInfo("one.bin")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    assert "has no one;" in complaint()
    with gzip.open(path, "wb") as packed:  # long names of long names, which tarfile reads by recursion
        member = tarfile.TarInfo("x")
        member.type = tarfile.GNUTYPE_LONGNAME
        packed.write(member.tobuf() * 2000)
    assert "cannot read" in complaint()
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:  # 300 MB in 1.3 MB
        member = tarfile.TarInfo("one.bin")
        member.size = 3073 * 100_000
        archive.addfile(member, _Zeros(member.size))
    assert "is not a file of 3073-byte records" in complaint()


class _Zeros(io.RawIOBase):
    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return bytes(size)


def test_svhn_is_read_exactly_and_ten_is_zero(tmp_path: Path) -> None:
    matlab = pytest.importorskip("scipy.io")
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    labels = np.array([[10], [1], [9], [10]], np.uint8)
    for compressed in (True, False):
        path = tmp_path / "train_32x32.mat"
        matlab.savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": labels}, do_compression=compressed)
        found = dataset_files.read_svhn(path)
        np.testing.assert_array_equal(found[0], images)
        assert found[1].tolist() == [0, 1, 9, 0]
        assert found[1].dtype == np.int64


def test_hostile_svhn_files_are_refused(tmp_path: Path) -> None:
    matlab = pytest.importorskip("scipy.io")
    path = tmp_path / "train_32x32.mat"
    images, labels = np.zeros((32, 32, 3, 2), np.uint8), np.ones((2, 1), np.uint8)
    good = {"X": images, "y": labels}
    matlab.savemat(path, good, do_compression=True)
    whole = path.read_bytes()
    bad: list[object] = [b"", b"x" * 500, whole[:200], whole[:-30], whole[:150] + bytes(50) + whole[200:]]
    bad += [{"X": images}, {**good, "y": labels * 11}, {**good, "y": labels * 0}, {**good, "y": np.ones((3, 1))}]
    bad += [{**good, "X": images.astype(np.float64)}, {**good, "X": images[:31]}, {**good, "X": images[..., 0]}]
    for content in bad:
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            matlab.savemat(path, content)
        complaint = "is empty; copy" if content == b"" else "not a file of SVHN's cropped digits"
        with pytest.raises(DataError, match=complaint) as caught:
            dataset_files.read_svhn(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="missing"):
        dataset_files.read_svhn(tmp_path / "missing.mat")
