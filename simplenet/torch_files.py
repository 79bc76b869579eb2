"""Read files of torch.save without importing or calling anything that they name.

torch.load(weights_only=True) refuses a whole file for one class that it does not know, such as a pickled meter beside
the weights. It also reads only pickle protocol 2, and a file can make it allocate any amount of memory.
"""

from __future__ import annotations

import _compat_pickle
import functools
import io
import pickle
import re
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

_MAX_PICKLE_BYTES = 64 << 20
"""The largest data.pkl, which has names and numbers, but no tensors. A small deflated one can unpack to any size."""
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
_MAPPINGS = re.compile(r"collections\.(OrderedDict|defaultdict|Counter)|(builtins|__builtin__)\.dict")
_HARMLESS_CALLS = re.compile(
    r"numpy\.(_?core\.)?_?multiarray\.(scalar|_reconstruct)|numpy\._?core\.numeric\._frombuffer|numpy\.dtype"
    r"|numpy\.random\._pickle\.\w+|torch\.(Size|device|dtype|\w+Tensor|serialization\._get_layout)"
    r"|torch\.(_utils|_tensor)\._rebuild_\w+|torch\.nn\.parameter\.\w+|torch\.storage\._load_from_bytes"
    r"|(builtins|__builtin__)\.(set|frozenset|complex|slice|range|bytes|bytearray|list|tuple|object)|_codecs\.encode"
    r"|(copyreg|copy_reg)\._reconstructor|collections\.deque|datetime\.\w+|pathlib\.(\w+\.)?\w*Path|uuid\.UUID"
    r"|decimal\.Decimal|builtins\.\w+Error|fractions\.Fraction|types\.SimpleNamespace|functools\.partial"
    r"|logging\.getLogger|re\._compile"
)
"""Calls with which pickle stores ordinary values. They become a PickledObject; any other call is an error."""


class CodeFoundError(Exception):
    """The pickle calls a function; the message is its name."""


class PickledObject:
    """A placeholder for an object of the class `name`; `values` are its attributes and items."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: dict[Any, Any] = {}

    def __setitem__(self, key: Any, value: Any) -> None:
        self.values[key] = value

    def append(self, item: Any) -> None:
        """Drop the items of a list's subclass: they are never weights."""

    extend = add = append


@dataclass(frozen=True, eq=False)
class Storage:
    """The values of one or more tensors in the file; `read` returns their bytes."""

    dtype: torch.dtype | None
    key: str
    size: int
    read: Callable[[str], bytes] = field(repr=False)

    @functools.cached_property
    def values(self) -> torch.Tensor:
        assert self.dtype is not None
        data = self.read(self.key)
        if len(data) != self.size * self.dtype.itemsize:
            raise ValueError(f"storage {self.key} has {len(data)} bytes, not {self.size} x {self.dtype}")
        return torch.frombuffer(bytearray(data), dtype=self.dtype) if data else torch.empty(0, dtype=self.dtype)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in the file; its values are read by `load`."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def load(self) -> torch.Tensor:
        """Read the values; raises ValueError or RuntimeError if they are not in the file."""
        return self.storage.values.as_strided(self.shape, self.stride, self.offset)


class _Name:
    """A class or function that the pickle names. A call returns a PickledObject, a tensor, or a dict."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any) -> Any:
        if _MAPPINGS.fullmatch(self.name):
            return dict(args[0]) if args and isinstance(args[0], (dict, list)) else {}
        function = self.name.removeprefix("torch._utils.")
        if function in ("_rebuild_tensor", "_rebuild_tensor_v2") and _is_plain(args):
            return StoredTensor(args[0], args[1], tuple(args[2]), tuple(args[3]))
        if function in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return args[0]
        if self.name == "torch._tensor._rebuild_from_type_v2" and isinstance(args[0], _Name):
            return args[0](*args[2])
        # Python 3.11.0 to 3.11.3 store an enum's member as getattr(Color, "RED").
        is_member = self.name.endswith("builtin__.getattr") or self.name == "builtins.getattr"
        if is_member and len(args) == 2 and isinstance(args[0], _Name) and _is_foreign_class(args[0].name):
            return PickledObject(args[0].name)
        if not _HARMLESS_CALLS.fullmatch(self.name) and not _is_foreign_class(self.name):
            raise CodeFoundError(self.name)
        return PickledObject(next((arg.name for arg in args if isinstance(arg, _Name)), self.name))


def _is_plain(args: tuple[Any, ...]) -> bool:
    """Whether arguments of torch's rebuild function are a storage of a known dtype and plain integers."""
    if len(args) > 6 and args[6]:  # metadata, such as a negative bit: the values are not those of the storage
        return False
    storage, offset, shape, stride = args[:4]
    shapes = (*(shape if isinstance(shape, (tuple, list)) else [None]), *stride, offset)
    return isinstance(storage, Storage) and storage.dtype is not None and all(type(each) is int for each in shapes)


def _is_foreign_class(name: str) -> bool:
    """Whether a name looks like a class outside Python and PyTorch, such as an enum of a training script."""
    top, short = name.partition(".")[0], name.rpartition(".")[2]
    return short[:1].isupper() and top not in {*sys.stdlib_module_names, "__builtin__", "torch"}


_PythonUnpickler: Any = pickle._Unpickler  # the C one has no way to replace BUILD, which sets attributes of objects


class _Unpickler(_PythonUnpickler):  # type: ignore[misc]
    """Python's unpickler without imports: only dicts, lists, numbers and strings become real objects."""

    dispatch: Any = {
        code: load
        for code, load in _PythonUnpickler.dispatch.items()
        if bytes([code]) not in (pickle.EXT1, pickle.EXT2, pickle.EXT4)  # they can import without find_class
    }

    def __init__(self, file: io.BytesIO, read: Callable[[str], bytes]) -> None:
        super().__init__(file, encoding="latin1")  # Python 2 wrote bytes
        self.storages: dict[tuple[str, str], Storage] = {}
        self._read_storage = read

    def find_class(self, module: str, name: str) -> _Name:
        if self.proto < 3:  # these protocols write Python 2's names: __builtin__.xrange
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        return _Name(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":  # a pickled network: class, file and source
            return pid[1]
        kind, key = pid[1].name.rpartition(".")[2], str(pid[2])
        if pid[0] != "storage" or type(pid[4]) is not int or any(view is not None for view in pid[5:]):
            raise ValueError("unknown kind of storage")
        storage = Storage(_DTYPES.get(kind), key, pid[4], self._read_storage)
        return self.storages.setdefault((key, kind), storage)

    def new_object(self, args: Any, options: Any = None) -> None:
        name = self.stack.pop().name
        self.append({} if _MAPPINGS.fullmatch(name) else PickledObject(name))

    def load_newobj(self) -> None:
        self.new_object(self.stack.pop())

    def load_newobj_ex(self) -> None:
        self.new_object(*(self.stack.pop(), self.stack.pop()))

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(target, PickledObject) and isinstance(part, dict):
                target.values.update(part)

    def load_bytearray8(self) -> None:  # the original allocates the size that the file states
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    dispatch |= {pickle.BYTEARRAY8[0]: load_bytearray8}
    dispatch |= {pickle.NEWOBJ[0]: load_newobj, pickle.NEWOBJ_EX[0]: load_newobj_ex, pickle.BUILD[0]: load_build}


def read_zip(archive: zipfile.ZipFile, folder: str) -> Any:
    """Return the content of a zip of torch.save; `folder` is the path of its data.pkl, with a slash.

    Raises:
        CodeFoundError: the file calls a function.
        Exception: of any type, for a damaged file.
    """
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("it was written on a big-endian machine")
    if archive.getinfo(f"{folder}data.pkl").file_size > _MAX_PICKLE_BYTES:
        raise ValueError("its data.pkl is too large for names and numbers")
    data = io.BytesIO(archive.read(f"{folder}data.pkl"))
    return _Unpickler(data, lambda key: archive.read(f"{folder}data/{key}")).load()


def read_legacy(data: bytes) -> Any:
    """Return the content of a file of torch.save before version 1.6, or None for another pickle.

    Raises:
        as `read_zip`.
    """
    file, positions = io.BytesIO(data), dict[str, tuple[int, int]]()

    def read(key: str) -> bytes:
        start, end = positions[key]
        return data[start:end]

    if _Unpickler(file, read).load() != _LEGACY_MAGIC:
        return None
    _Unpickler(file, read).load()  # the version of the format
    if not _Unpickler(file, read).load().get("little_endian", True):
        raise ValueError("it was written on a big-endian machine")
    unpickler = _Unpickler(file, read)
    content = unpickler.load()
    dtypes = {storage.key: storage.dtype for storage in unpickler.storages.values()}
    for key in _Unpickler(file, read).load():
        size, dtype = int.from_bytes(file.read(8), "little"), dtypes[str(key)]
        if dtype is None or size * dtype.itemsize > len(data) - file.tell():
            raise ValueError("the file ends within the weights")
        positions[str(key)] = (file.tell(), file.tell() + size * dtype.itemsize)
        file.seek(positions[str(key)][1])
    return content
