"""Readers for the official files of MNIST, Fashion-MNIST, EMNIST, CIFAR and SVHN, packed or unpacked.

Files are untrusted: sizes are checked before memory is allocated, nothing is unpacked to disk, and no code that a
pickle names is imported or called.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import pickle
import re
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from simplenet import file_kinds, image_folders
from simplenet.errors import DataError, one_line
from simplenet.preprocessing import UInt8Array

Labels = npt.NDArray[np.int64]
Split = tuple[UInt8Array, Labels]
"""Images RGB uint8 [N, H, W, 3] and labels int64 [N]."""
MAX_BYTES = 1 << 30  # of one decompressed file; the largest of the MNIST family, EMNIST, has 0.55e9
_CIFAR_PIXELS = 3 * 32 * 32
_LARGEST_MEMBER = 200 << 20
_MNIST_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_IDX_NAME = re.compile(r"(?:(.+)[-_])?(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(?:\.gz)?", re.IGNORECASE)


def read_mnist(folder: Path, prefixes: tuple[str, ...] = ("",), is_emnist: bool = False) -> tuple[Split, Split]:
    """Read the training and test split from MNIST's four files; gray images become RGB.

    The files may be packed or unpacked, be named as on Kaggle (train-images.idx3-ubyte), and be in subfolders.

    Args:
        prefixes: of the files' names, such as 'emnist-digits'; the first one that is found is read.
        is_emnist: the images are transposed, as EMNIST's are. Files with the prefix 'emnist' always are.

    Raises:
        DataError: as `read_idx`; or files are missing, or the numbers of images and labels differ.
    """
    prefix, files = _mnist_files(folder, prefixes)
    splits = []
    for split in ("train", "t10k"):
        images = read_idx(files[f"{split}-images-idx3-ubyte"], dimensions=3)
        labels = read_idx(files[f"{split}-labels-idx1-ubyte"], dimensions=1)
        if len(images) != len(labels):
            raise DataError(
                f"{folder}: {len(images)} {split} images but {len(labels)} labels; put four files of one dataset there"
            )
        if is_emnist or prefix.startswith("emnist"):
            images = images.swapaxes(1, 2)
        splits.append((np.repeat(images[..., None], 3, axis=3), labels.astype(np.int64)))
    return splits[0], splits[1]


def _mnist_files(folder: Path, prefixes: tuple[str, ...]) -> tuple[str, dict[str, Path]]:
    """Return the first of the prefixes that has all four files, and the files by the names in `_MNIST_NAMES`."""
    found: dict[tuple[str, Path], dict[str, Path]] = {}
    for pattern in ("*", "*/*", "*/*/*"):
        for path in sorted(folder.glob(pattern), key=lambda path: (path.suffix != ".gz", path)):
            if (match := _IDX_NAME.fullmatch(path.name)) and path.is_file():
                prefix, split, kind = (part.lower() for part in match.groups(default=""))
                inner = path.parent  # Kaggle's archive has train-images-idx3-ubyte/train-images-idx3-ubyte
                parent = inner.parent if _IDX_NAME.fullmatch(inner.name) or image_folders.split_of(inner) else inner
                name = f"{'train' if split == 'train' else 't10k'}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
                found.setdefault((prefix, parent), {}).setdefault(name, path)
    for prefix in prefixes:
        whole = [parent for key, parent in found if key == prefix and len(found[key, parent]) == len(_MNIST_NAMES)]
        if len(whole) > 1:
            raise DataError(f"{folder} has several datasets; name the folder of one, such as --data {whole[0]}")
        if whole:
            return prefix, found[prefix, whole[0]]
    if others := sorted({prefix for prefix, _ in found if prefix not in prefixes}):
        readable = ", ".join(f"{prefix}-*" if prefix else _MNIST_NAMES[0] for prefix in prefixes)
        raise DataError(
            f"{folder} has the files of {', '.join(others)}, not of this dataset ({readable}); choose another "
            "--dataset, or sort the images into train/<class>/* and test/<class>/* for --dataset folder"
        )
    largest = max(found.values(), key=len, default={})
    missing = next(name for name in _MNIST_NAMES if name not in largest)
    raise DataError(
        f"{folder} has no {missing} (also as {missing}.gz, or {missing.replace('-idx', '.idx')}); {_content(folder)} "
        "name the folder that has the four files: --data DIR"
    )


def _content(folder: Path) -> str:
    """Say what is in a folder."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        return f"it cannot be read: {error.strerror};"
    if not names:
        return "it is empty;"
    packed = [name for name in names if name.endswith((".zip", ".tar", ".tgz", ".7z", ".rar"))]
    unpack = f" unpack {one_line(packed[0])}, or" if packed else ""
    return f"it has {one_line(', '.join(names[:5]), 200)}{', ...' * (len(names) > 5)};{unpack}"


def read_idx(path: Path, dimensions: int) -> UInt8Array:
    """Read an IDX file of unsigned bytes, gzipped or not: an array with `dimensions` axes that is not empty.

    Raises:
        DataError: the file is missing, damaged, or has another type or shape.
    """
    try:
        with open(path, "rb") as raw:
            is_packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if is_packed else raw as file:
                return _idx_array(path, file, dimensions)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise _unreadable(path, error) from error


def _idx_array(path: Path, file: BinaryIO, dimensions: int) -> UInt8Array:
    header = file.read(4 + 4 * dimensions)
    names = {b"\0\0\x08\x01": "labels", b"\0\0\x08\x03": "images"}
    if header[:4] in names and header[3] != dimensions:
        raise DataError(f"{path} has {names[header[:4]]}; swap the names of this file and the one that it belongs to")
    if len(header) != 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
        raise ValueError(f"not an IDX file of bytes with {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    size = int(np.prod(shape, dtype=object))
    if not 0 < size <= MAX_BYTES:
        raise ValueError(f"impossible shape, {list(shape)}")
    content = file.read(size)
    if len(content) != size or file.read(1):
        raise ValueError(f"shorter or longer than its shape {list(shape)} says")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _unreadable(path: Path, error: Exception) -> DataError:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        start = file.read(512)
        if start[:2] != b"\x1f\x8b" and (what := file_kinds.describe_other(start, path)):
            return DataError(f"{path} is {what}")
    return DataError(f"cannot read {path} ({one_line(error)}); download it again")


def read_cifar(
    folder: Path, archives: tuple[str, str], train: tuple[str, ...], test: tuple[str, ...], label_bytes: int
) -> tuple[Split, Split]:
    """Read the training and test split of CIFAR-10 or CIFAR-100, from the archive or unpacked.

    Args:
        archives: names of the .tar.gz of the binary and of the Python version.
        train, test: names of the files in the archive, which end in .bin in the binary version.
        label_bytes: number of label bytes in each record of the binary version; the last one is used.

    Raises:
        DataError: the archive or a file in it is missing, damaged or has another form.
    """
    packed = [folder / name for archive in archives for name in (archive, archive.removesuffix(".gz"))]
    path = next((path for path in packed if path.is_file()), folder)
    found: dict[str, Split] = {}
    record = label_bytes + _CIFAR_PIXELS
    try:
        for name, size, file in _members(path, {*train, *test}):
            stem = name.removesuffix(".bin")
            if not 0 < size <= _LARGEST_MEMBER or (name != stem and size % record):
                raise ValueError(f"{name} is not a file of {record}-byte records")
            planes, labels = _pickled(name, file.read()) if name == stem else _records(file.read(), record)
            images = np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            found[stem] = images, labels
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    if missing := [name for name in (*train, *test) if name not in found]:
        if path == folder:
            raise DataError(
                f"{folder} has neither {' nor '.join(archives)} nor the unpacked {missing[0]}; {_content(folder)} "
                "name the folder that has one of these: --data DIR"
            )
        raise DataError(f"{path} has no {missing[0]}; it is not this dataset; name another folder: --data DIR")

    def split(names: tuple[str, ...]) -> Split:
        return np.concatenate([found[name][0] for name in names]), np.concatenate([found[name][1] for name in names])

    return split(train), split(test)


def _members(path: Path, stems: set[str]) -> Iterator[tuple[str, int, BinaryIO]]:
    """Yield name, size and content of the files with these stems in a .tar.gz, or in a folder and its subfolders."""
    if path.is_dir():
        for found in sorted([*path.glob("*/*"), *path.glob("*")]):
            if found.name.removesuffix(".bin") in stems and found.is_file():
                with open(found, "rb") as file:
                    yield found.name, found.stat().st_size, file
        return
    with tarfile.open(path, "r:*") as members:
        for member in members:
            name = Path(member.name).name
            # extractfile would follow a link
            if name.removesuffix(".bin") in stems and member.isreg() and (content := members.extractfile(member)):
                yield name, member.size, cast(BinaryIO, content)


def _records(content: bytes, record: int) -> Split:
    """Return pixels uint8 [N, 3072] and labels of a file of the binary version."""
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    return records[:, -_CIFAR_PIXELS:], records[:, -_CIFAR_PIXELS - 1].astype(np.int64)


class _PickledArray:
    """What a pickle of an array holds. It also stands for the names `dtype`, `ndarray` and `_reconstruct`."""

    state: tuple[Any, ...] = ()

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


_PythonUnpickler: Any = pickle._Unpickler  # the C one allocates what the file says


class _Unpickler(_PythonUnpickler):  # type: ignore[misc]
    def find_class(self, module: str, name: str) -> type[_PickledArray]:
        if module.startswith("numpy.") or module == "numpy":
            return _PickledArray  # NumPy itself is not called
        raise ValueError(f"it names {module}.{name}")


def _pickled(name: str, content: bytes) -> Split:
    """Return pixels uint8 [N, 3072] and labels of a file of the Python version.

    Raises:
        ValueError: the pickle has other content.
    """
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        _, shape, _, is_fortran, data = batch[b"data"].state
        labels = np.array(batch.get(b"fine_labels", batch.get(b"labels")), np.uint8)
        pixels = np.frombuffer(data, np.uint8).reshape(shape, order="F" if is_fortran else "C")
        if pixels.shape != (len(labels), _CIFAR_PIXELS):
            raise ValueError(f"its images are {pixels.shape}, its labels {labels.shape}")
    except Exception as error:  # a damaged pickle raises many types
        raise ValueError(f"{name} is not a file of the Python version: {one_line(error, 120)}") from error
    return pixels, labels.astype(np.int64)


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
        text = f"not a file of SVHN's cropped digits: {one_line(error, 120)}"
        raise _unreadable(path, ValueError(text)) from error
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.astype(np.int64) % 10
