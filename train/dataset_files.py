"""Readers for the official files of MNIST, Fashion-MNIST, CIFAR and SVHN.

Files are untrusted: sizes are checked before memory is allocated, nothing is unpacked to disk, no pickle is loaded.
"""

from __future__ import annotations

import gzip
import importlib
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simplenet.errors import DataError, one_line
from simplenet.preprocessing import UInt8Array

Split = tuple[UInt8Array, npt.NDArray[np.int64]]
"""Images RGB uint8 [N, H, W, 3] and labels int64 [N]."""
MAX_BYTES = 1 << 30  # of one decompressed file; the largest of the MNIST family, EMNIST, has 0.55e9
_CIFAR_PIXELS = 3 * 32 * 32
_LARGEST_MEMBER = 200 << 20


def read_mnist(folder: Path) -> tuple[Split, Split]:
    """Read the training and test split from MNIST's four files; gray images become RGB.

    Raises:
        DataError: as `read_idx`; or the numbers of images and labels differ.
    """
    splits = []
    for prefix in ("train", "t10k"):
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", dimensions=3)
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", dimensions=1)
        if len(images) != len(labels):
            raise DataError(
                f"{folder}: {len(images)} {prefix} images but {len(labels)} labels; download the files again"
            )
        splits.append((np.repeat(images[..., None], 3, axis=3), labels.astype(np.int64)))
    return splits[0], splits[1]


def read_idx(path: Path, dimensions: int) -> UInt8Array:
    """Read a gzipped IDX file of unsigned bytes: an array with `dimensions` axes that is not empty.

    Raises:
        DataError: the file is missing, damaged, or has another type or shape.
    """
    try:
        with gzip.open(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) != 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
                raise DataError(f"{path} is not an IDX file of bytes with {dimensions} dimensions; download it again")
            shape = struct.unpack(f">{dimensions}I", header[4:])
            size = int(np.prod(shape, dtype=object))
            if not 0 < size <= MAX_BYTES:
                raise DataError(f"{path} has an impossible shape, {list(shape)}; download it again")
            content = file.read(size)
            if len(content) != size or file.read(1):
                raise DataError(f"{path} is shorter or longer than its shape {list(shape)} says; download it again")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path} ({one_line(error)}); download it again") from error
    return np.frombuffer(content, np.uint8).reshape(shape)


def read_cifar(
    folder: Path, archive: str, train: tuple[str, ...], test: tuple[str, ...], label_bytes: int
) -> tuple[Split, Split]:
    """Read the training and test split from the binary version of CIFAR-10 or CIFAR-100.

    Args:
        archive: name of the .tar.gz in `folder`.
        train, test: names of the files in the archive.
        label_bytes: number of label bytes in each record; the last one is used.

    Raises:
        DataError: the archive or a file in it is missing, damaged or has another form.
    """
    path, found = folder / archive, dict[str, UInt8Array]()
    record = label_bytes + _CIFAR_PIXELS
    try:
        with tarfile.open(path, "r:gz") as members:
            for member in members:
                name = Path(member.name).name
                if name not in (*train, *test) or not member.isreg():
                    continue
                if not 0 < member.size <= _LARGEST_MEMBER or member.size % record:
                    raise DataError(f"{path}: {name} is not a file of {record}-byte records; download it again")
                content = members.extractfile(member)
                found[name] = np.frombuffer(content.read() if content else b"", np.uint8).reshape(-1, record)
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path} ({one_line(error)}); download it again") from error
    if missing := [name for name in (*train, *test) if name not in found]:
        raise DataError(f"{path} has no {missing[0]}; it is not the binary version of this dataset")

    def split(names: tuple[str, ...]) -> Split:
        records = np.concatenate([found[name] for name in names])
        planes = records[:, label_bytes:].reshape(-1, 3, 32, 32)
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, label_bytes - 1].astype(np.int64)

    return split(train), split(test)


def read_svhn(path: Path) -> Split:
    """Read one split of SVHN's cropped digits.

    The .mat file has `X` uint8 [32, 32, 3, N] and `y` [N, 1], in which 10 is the digit 0.

    Raises:
        DataError: the file is missing, damaged or has another form, or SciPy is not installed.
    """
    try:
        matlab: Any = importlib.import_module("scipy.io")
    except ImportError as error:
        raise DataError(f"reading {path.name} needs SciPy; type: pip install scipy") from error
    try:
        shapes = {name: (shape, kind) for name, shape, kind in matlab.whosmat(path)}
        (*image, count), kind = shapes["X"]
        if image != [32, 32, 3] or kind != "uint8" or not 0 < count <= 600_000 or shapes["y"][0] != (count, 1):
            raise ValueError(f"its arrays are {shapes}")
        arrays = matlab.loadmat(path, variable_names=["X", "y"])
        images, labels = arrays["X"], arrays["y"].reshape(-1)
        if images.dtype != np.uint8 or labels.dtype.kind not in "uif" or not np.isin(labels, np.arange(1, 11)).all():
            raise ValueError("a label is not 1 to 10")
    except Exception as error:  # SciPy raises many types
        raise DataError(
            f"{path} is not a file of SVHN's cropped digits ({one_line(error, 120)}); download it again"
        ) from error
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.astype(np.int64) % 10
