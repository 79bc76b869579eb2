"""The base class of every backend. A backend implements four methods; everything else is here."""

from __future__ import annotations

import abc
import contextlib
import ctypes
import os
import threading
import warnings
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, NoReturn

import numpy as np
import numpy.typing as npt

from runtimes.ranking import Prediction, top_k
from simplenet import hardware, preprocessing
from simplenet.artifacts import Artifact
from simplenet.errors import (
    ArtifactError,
    BackendError,
    ImageError,
    InputError,
    SimpleNetError,
    UntrainedWarning,
    UsageError,
    check_integer,
    one_line,
    raise_if_from_signal_handler,
)
from simplenet.formats import FORMATS

Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]
_NO_LOCK = contextlib.nullcontext()


@dataclass(frozen=True)
class Options:
    """How to run a model; None: the backend's first device, all physical cores, the artifact's precision."""

    device: str | None = None
    threads: int | None = None
    precision: str | None = None
    allow_spinning: bool = True
    """Allow idle worker threads to busy-wait: faster for one model, much slower where models share the CPU."""


@dataclass(frozen=True)
class Description:
    """What is running.

    Attributes:
        device: the vendor's name of the device or provider.
        precision: the requested one; a note states where the vendor computes in another.
        threads: CPU threads; None if the model does not run on the CPU.
    """

    backend: str
    device: str
    precision: str
    threads: int | None
    versions: dict[str, str]
    notes: tuple[str, ...] = field(default=())


class Runtime(abc.ABC):
    """A loaded model. Use it as a context manager, or call `close`. Thread-safe."""

    FORMATS: ClassVar[tuple[str, ...]]
    """Artifact formats that this backend opens, from simplenet/formats.py. The first one is exported for it."""
    DEVICES: ClassVar[tuple[str, ...]] = ("cpu",)
    """Values of `device` that a caller may pass; the first is the default."""
    PRECISIONS: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Other precisions that an artifact can run in, by the artifact's precision: {'fp32': ('bf16',)}."""
    THREAD_SAFE: ClassVar[bool] = False
    """Whether `_run` is thread-safe; if not, a lock serializes the calls."""

    def __init__(self, artifact: Artifact, options: Options) -> None:
        self.artifact = artifact
        self.manifest = manifest = artifact.manifest
        self.options = options
        self.precision = options.precision or manifest.precision
        self.device = options.device or self.DEVICES[0]
        threads = hardware.physical_cores() if options.threads is None else options.threads
        self.threads = check_integer("threads", threads, 1, 1024)
        self._check_options()
        self._shape_tail = manifest.input.shape[1:]
        self._dtype = np.dtype(manifest.input.dtype)
        self._lock = threading.RLock()  # with a Lock, a signal handler would wait for its own thread forever
        self._closed = self._is_forked = self._is_running = False
        try:
            self._open()
            self._description = self._describe()
        except SimpleNetError:
            raise
        except Exception as error:
            raise_if_from_signal_handler(error)
            raise BackendError(
                f"{self.name} cannot open {artifact.model_file}: {one_line(error)}; export it again here, or choose "
                "another backend or precision"
            ) from error
        _loaded.add(self)
        if manifest.weights.source == "random":
            warnings.warn(
                f"{artifact.model_file} has random weights: measure its latency, but ignore its predictions",
                UntrainedWarning,
                stacklevel=3,
            )

    @property
    def name(self) -> str:
        """The backend's name: <name> of runtimes/backend_<name>.py."""
        return type(self).__module__.rpartition("backend_")[2]

    def infer(self, batch: npt.NDArray[Any]) -> Float32Array:
        """Run the model once.

        Args:
            batch: as in `manifest.input`: uint8 [N, H, W, 3] RGB, or normalized float32 [N, 3, H, W].

        Returns:
            Logits, float32 [N, num_classes], owned by the caller.

        Raises:
            InputError: wrong shape or dtype. BackendError: the runtime is closed, or the vendor's call failed.
        """
        batch = self._checked(batch)
        try:
            with _NO_LOCK if self.THREAD_SAFE else self._lock:
                if self._closed:
                    raise self._closed_error()
                self._check_not_running()
                self._is_running = not self.THREAD_SAFE
                try:
                    logits = self._run(batch)
                finally:
                    self._is_running = False
        except SimpleNetError:
            raise
        except Exception as error:
            raise_if_from_signal_handler(error)
            if self._closed:  # another thread has closed it
                raise self._closed_error() from error
            raise BackendError(
                f"{self.name} failed to run {self.artifact.model_file}: {one_line(error)}; choose another backend"
            ) from error
        shape = (len(batch), self.manifest.num_classes)
        if not isinstance(logits, np.ndarray) or logits.shape != shape or logits.dtype != np.float32:
            raise ArtifactError(
                f"{self.artifact.model_file} gives {_kind(logits)} for {len(batch)} images, its manifest states "
                f"logits of {self.manifest.num_classes} classes, float32 {list(shape)}; export it again"
            )
        return logits

    def preprocess(self, images: Iterable[UInt8Array]) -> npt.NDArray[Any]:
        """Resize, crop and batch images for `infer`.

        Args:
            images: RGB uint8 [H, W, 3], of any sizes.

        Returns:
            The batch, as in `manifest.input`.

        Raises:
            ImageError: an image is not RGB uint8, or its size is not supported. InputError: no image.
        """
        if isinstance(images, np.ndarray):
            raise ImageError("classify() and preprocess() take a list of images, not an array; type: classify([frame])")
        try:
            images = list(images)
        except TypeError:
            raise ImageError(f"classify() and preprocess() take a list of images, not {_kind(images)}") from None
        if not images:
            raise InputError("no image given; pass at least one RGB uint8 array [height, width, 3]")
        config = self.manifest.preprocessing
        if len(images) == 1:
            batch = preprocessing.to_model_input(images[0], config)[None]
        else:
            batch = np.stack([preprocessing.to_model_input(image, config) for image in images])
        return preprocessing.model_batch(batch, self.manifest.input.dtype, config)

    def classify(self, images: Iterable[UInt8Array], k: int = 5) -> list[list[Prediction]]:
        """Classify images; a model with a fixed batch runs them in batches of that size.

        Args:
            images: RGB uint8 [H, W, 3], of any sizes.

        Returns:
            For each image its `k` most probable classes, best first.

        Raises:
            ImageError, InputError, BackendError: as `preprocess` and `infer`.
        """
        return self.rank(self.infer_any(self.preprocess(images)), k)

    def rank(self, logits: Float32Array, k: int = 5) -> list[list[Prediction]]:
        """Return for each row of logits [N, num_classes] its `k` most probable classes, best first.

        Raises:
            BackendError: a logit is NaN or infinite.
        """
        if not np.isfinite(logits).all():
            raise BackendError(
                f"{self.artifact.model_file} gives NaN or infinite logits; export it in another precision"
            )
        return top_k(logits, k, self.manifest.labels)

    def infer_any(self, batch: npt.NDArray[Any]) -> Float32Array:
        """`infer` for any number of images: in batches if the batch is fixed, the last one padded with zeros."""
        size = self.manifest.input.batch
        if size is None or len(batch) in (0, size):  # `infer` raises for 0
            return self.infer(batch)
        parts = []
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            missing = size - len(part)
            if missing:
                part = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
            parts.append(self.infer(part)[: size - missing])
        return np.concatenate(parts)

    def describe(self) -> Description:
        """Return what is running; also after `close`."""
        return self._description

    def close(self) -> None:
        """Free the model; a second call does nothing."""
        with self._lock:
            if not self._closed:
                self._check_not_running()
                self._closed = True
                self._close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_not_running(self) -> None:
        if self._is_running:  # the lock is this thread's
            raise BackendError("a signal handler called this runtime during an inference; let it only set a flag")

    def _closed_error(self) -> BackendError:
        if self._is_forked:
            return BackendError(
                f"this {self.name} runtime was loaded before this process was forked, and its threads are not in this "
                "process; load the artifact again here"
            )
        return BackendError(f"this {self.name} runtime is closed; load the artifact again")

    def __reduce__(self) -> NoReturn:
        raise UsageError("a runtime cannot be copied or pickled; pass runtime.artifact, and load it in each process")

    # A backend implements these. It imports vendor packages inside them, never at the top of its file.

    @abc.abstractmethod
    def _open(self) -> None:
        """Load `self.artifact` on `self.device`, with `self.threads` and `self.precision`, without a fallback.

        If the vendor's idle threads can busy-wait, apply `self.options.allow_spinning`. Raise BackendUnavailable for a
        device or precision that the package or this machine does not support; other errors become BackendError.
        """

    @abc.abstractmethod
    def _run(self, batch: npt.NDArray[Any]) -> Float32Array:
        """Run a contiguous, writeable batch as in `infer`; return logits as in `infer`, never changed later."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Free what `_open` allocated; called once."""

    @abc.abstractmethod
    def _describe(self) -> Description:
        """Describe what `_open` loaded, from the vendor's API where it reports the value; called once."""

    @classmethod  # noqa: B027, optional
    def disable_spinning(cls) -> None:
        """Let idle threads sleep, if the vendor reads that setting only when its package is imported."""

    @classmethod
    def embedded_manifest(cls, model_file: str) -> str | None:
        """Return the manifest's JSON inside a model file, for files without a manifest.json; None if missing."""
        return None

    def _check_options(self) -> None:
        exported, requested = self.manifest.precision, self.precision
        supported = (exported, *self.PRECISIONS.get(exported, ()))
        if requested not in supported:
            format = FORMATS[self.manifest.format]
            raise UsageError(
                f"{self.name} runs this {exported} artifact in {' or '.join(supported)}, not {requested}; "
                f"{format.name} artifacts are exported in {', '.join(format.precisions)}"
            )
        if self.device not in self.DEVICES:
            raise UsageError(f"{self.name} runs on {' or '.join(self.DEVICES)}, not on {self.device!r}")

    def _checked(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        size = self.manifest.input.batch
        if (
            type(batch) is np.ndarray
            and batch.dtype == self._dtype
            and batch.shape[1:] == self._shape_tail
            and (len(batch) == size or (size is None and len(batch) > 0))
        ):
            # Vendors read the memory without a copy, so it must be contiguous; some reject read-only arrays.
            return batch if batch.flags.carray else batch.copy()
        if isinstance(batch, np.ndarray) and not isinstance(batch, np.ma.MaskedArray):
            # A memmap or another subclass becomes a plain array, and big-endian values native ones.
            plain = np.asarray(batch, batch.dtype.newbyteorder("="))
            if type(batch) is not np.ndarray or plain.dtype != batch.dtype:
                return self._checked(plain)
        expected = ", ".join("N" if size is None else str(size) for size in self.manifest.input.shape)
        raise InputError(
            f"the model takes {self._dtype} [{expected}] ({self.manifest.input.layout}), not {_kind(batch)}; "
            "classify() takes images of any size"
        )


def _kind(value: Any) -> str:
    """Describe a value for an error message: 'uint8 [1, 32, 32, 3]' for an array, else its type's name."""
    if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__


_loaded: weakref.WeakSet[Runtime] = weakref.WeakSet()


def _after_fork() -> None:
    """Close the parent's runtimes in a forked process, where the vendors' threads do not exist.

    Calls would wait for those threads forever. In OpenVINO and ONNX Runtime freeing a model would too, so an extra
    reference keeps each object alive.
    """
    for runtime in _loaded:
        runtime._closed, runtime._is_forked, runtime._lock = True, True, threading.RLock()
        for value in vars(runtime).values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
