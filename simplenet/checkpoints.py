"""Read checkpoint files, which are untrusted, without running code, and build models from them."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize

from simplenet import file_kinds, files, state_dicts, torch_files, variants
from simplenet import model as models
from simplenet.errors import SimpleNetError, SimpleNetWarning, WeightsError, one_line, raise_if_from_signal_handler
from simplenet.model import SimpleNet
from simplenet.model_card import CARD_KEY, ModelCard
from simplenet.state_dicts import SAVE_ARRAYS, SAVE_WEIGHTS, Candidate, Tensor, Tensors
from simplenet.torch_files import StoredTensor

_MAX_BYTES = 1 << 30
_MAX_CLASSES = 100_000


def save(path: str | Path, state_dict: Mapping[str, torch.Tensor], card: ModelCard) -> None:
    """Write a .safetensors checkpoint with its card, atomically.

    Raises:
        SimpleNetError: the file cannot be written, or the disk is full; an old file is intact.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    with files.replacing(path) as temporary:  # safetensors' save_file makes files that only their owner can read
        temporary.write_bytes(serialize(tensors, {CARD_KEY: card.to_json()}))


class Checkpoint(NamedTuple):
    """What a checkpoint file holds; candidates, card and hash are of the same bytes."""

    candidates: list[Candidate]
    card: ModelCard | None
    sha256: str


def read(path: Path) -> Checkpoint:
    """Read a checkpoint: .safetensors, of torch.save or of numpy.savez; the content decides, not the suffix.

    Nothing that the file names is imported or called.

    Raises:
        WeightsError: the file is missing or damaged, has another format, calls functions, or has no state_dict.
    """
    try:
        if path.is_dir():
            raise WeightsError(f"{path} is {file_kinds.describe_folder(path)}")
        if not path.is_file():
            raise WeightsError(f"no file at {path}; name a checkpoint: --weights PATH")
        if path.stat().st_size > _MAX_BYTES:
            raise WeightsError(f"{path} is over 1 GiB, too large for a SimpleNet; name a checkpoint of weights only")
        data = path.read_bytes()  # once: a training may replace the file
        content, card = (_read_safetensors if file_kinds.is_safetensors(data) else _read_torch)(data, path)
        candidates = state_dicts.find(content)
    except SimpleNetError:
        raise
    except OSError as error:
        raise_if_from_signal_handler(error)
        reason, advice = one_line(files.error_message(error)), files.read_advice(error) or "copy it again"
        raise WeightsError(f"cannot read {path}: {reason}; {advice}") from error
    except Exception as error:  # the parsers raise exceptions of any type
        raise_if_from_signal_handler(error)
        raise WeightsError(
            f"{path} is damaged or not a checkpoint ({one_line(error, 120)}); copy or download it again"
        ) from error
    if not candidates:
        raise WeightsError(f"{path} holds {state_dicts.describe(content)}")
    return Checkpoint(candidates, card, hashlib.sha256(data).hexdigest())


def build_model(candidates: list[Candidate], variant: str, path: Path, key: str | None = None) -> SimpleNet:
    """Build the variant's network in eval mode from a checkpoint's weights, with their number of classes.

    Args:
        key: which weights of the checkpoint; None: those that fit, averaged ones (with a warning) before raw ones.

    Raises:
        WeightsError: the weights do not fit the variant, are not for RGB images, or are not finite; or several fit.
            The message names the first missing and the first unexpected tensor, and the variants that the weights fit.
    """
    candidates = state_dicts.choose(candidates, key, path)
    fitting = [each for each in candidates if not _fit(each, variant)[1]]
    if not fitting:
        raise _misfit(max(candidates, key=lambda each: len(each.tensors)), variant, path)
    chosen = _preferred(fitting, path)
    unfit = next((each for each in candidates if each.is_averaged and each not in fitting), None)
    if key is None and unfit and not chosen.is_averaged:
        warnings.warn(
            f"{path} has averaged weights {unfit.label}, which do not fit ({_fit(unfit, variant)[1]}); "
            f"the raw ones {chosen.label} are used",
            SimpleNetWarning,
            stacklevel=2,
        )
    num_classes, (tensors, _) = _num_classes(chosen), _fit(chosen, variant)
    if num_classes == 1:  # its only class would be top-1, with 100 %, of every image
        raise WeightsError(
            f"{path} has one output, and classification needs two or more; append a row of zeros to classifier.weight "
            "and a zero to classifier.bias: softmax then gives the probability that sigmoid gave"
        )
    network = models.create(variant, num_classes)
    state = network.state_dict()
    network.load_state_dict({name: _checked(tensors.get(name, state[name]), state[name], name, path) for name in state})
    return network


def _preferred(fitting: list[Candidate], path: Path) -> Candidate:
    """Return the averaged weights, with a warning if there are raw ones too, or the only weights.

    Raises:
        WeightsError: several are left to choose from.
    """
    distinct = [each for index, each in enumerate(fitting) if not any(_is_same(each, e) for e in fitting[:index])]
    averaged = [each for each in distinct if each.is_averaged]
    raw = [each for each in distinct if not each.is_averaged]
    if len(distinct) > 1 and len(averaged) != 1:
        labels = ", ".join(each.label for each in distinct[:8])
        raise WeightsError(f"{path} has several weights that fit: {labels}; type --weights-key with one of them")
    if averaged and raw:
        warnings.warn(
            f"{path} has averaged weights {averaged[0].label} and raw ones {raw[0].label}; the averaged ones are used; "
            f"for the others type --weights-key {raw[0].label}",
            SimpleNetWarning,
            stacklevel=2,
        )
    return (averaged or distinct)[0]


def _is_same(one: Candidate, other: Candidate) -> bool:
    """Whether two names lead to the same tensors in the file."""
    return one.tensors.keys() == other.tensors.keys() and all(
        value is other.tensors[name] or (isinstance(value, StoredTensor) and value == other.tensors[name])
        for name, value in one.tensors.items()
    )


def _num_classes(candidate: Candidate) -> int | None:
    """Return the rows of the classifier's weight, None if there is none."""
    last = candidate.tensors.get("classifier.weight")
    return int(last.shape[0]) if last is not None and len(getattr(last, "shape", ())) == 2 else None


@functools.lru_cache(64)
def _shapes(variant: str, num_classes: int | None) -> Mapping[str, torch.Tensor]:
    """Return the network's state_dict without values."""
    state: Mapping[str, torch.Tensor] = models.create(variant, num_classes, device="meta").state_dict()
    return state


def _fit(candidate: Candidate, variant: str) -> tuple[Tensors, str]:
    """Return the tensors under the network's names, and a text on what does not fit: "" if all fits."""
    num_classes = _num_classes(candidate)
    if num_classes is not None and not 1 <= num_classes <= _MAX_CLASSES:
        return {}, f"it has {num_classes} classes, not 1 to {_MAX_CLASSES}"
    return state_dicts.fitted(candidate, _shapes(variant, num_classes))


def _misfit(candidate: Candidate, variant: str, path: Path) -> WeightsError:
    """Return the error of weights that do not fit, with the variant that they fit, if there is one."""
    mismatch = _fit(candidate, variant)[1]
    for end, what, function in (
        (".weight_mask", "pruned", "torch.nn.utils.prune.remove(module, 'weight')"),
        (".original0", "parametrized", "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight')"),
        (".weight_g", "normalized by weight_norm", "torch.nn.utils.remove_weight_norm(module)"),
        (".weight_u", "normalized by spectral_norm", "torch.nn.utils.remove_spectral_norm(module)"),
    ):
        if name := next((name for name in candidate.tensors if name.endswith(end)), None):
            return WeightsError(
                f"{path} is {what} ({one_line(name, 80)}); make that permanent with {function} for each such module, "
                "then save it again"
            )
    first = candidate.tensors.get("features.0.weight")
    shape: tuple[int, ...] = tuple(getattr(first, "shape", ()))
    if len(shape) == 4 and shape[1] != 3:
        return WeightsError(
            f"{path} is for images of {shape[1]} channels, only RGB is supported; train it with 3 channels"
        )
    fitting = [name for name in variants.VARIANTS if not _fit(candidate, name)[1]]
    advice = f"it fits {', '.join(fitting)}: type --variant {fitting[0]}" if fitting else "name another checkpoint"
    if candidate.others and not _fit(replace(candidate, others=()), variant)[1]:
        advice = f"to load only the network in it, type --weights-key {candidate.label}"
    return WeightsError(f"{path} does not fit {variant}: {mismatch}; {advice}")


def _read_safetensors(data: bytes, path: Path) -> tuple[Mapping[str, torch.Tensor], ModelCard | None]:
    tensors = deserialize(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    card = (header.get("__metadata__") or {}).get(CARD_KEY)
    try:
        return tensors, None if card is None else ModelCard.from_json(card)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def _read_npz(data: bytes) -> dict[str, torch.Tensor]:
    """Return the arrays of a file of numpy.savez; NumPy refuses those that need pickle."""
    arrays = np.load(io.BytesIO(data))
    return {name: torch.from_numpy(array.astype(array.dtype.newbyteorder("="))) for name, array in arrays.items()}


def _read_torch(data: bytes, path: Path) -> tuple[Any, None]:
    """Return the content of a file of torch.save or numpy.savez, which have no card."""
    try:
        if zipfile.is_zipfile(io.BytesIO(data)):
            archive = zipfile.ZipFile(io.BytesIO(data))
            names = archive.namelist()
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_BYTES:  # a small file may unpack to any size
                raise WeightsError(f"{path} unpacks to over 1 GiB; name a checkpoint of weights only")
            if names and all(name.endswith(".npy") for name in names):
                return _read_npz(data), None
            folder = file_kinds.torch_folder(names)
            if folder is None:
                raise WeightsError(f"{path} is {file_kinds.describe_zip(names, path)}")
            return torch_files.read_zip(archive, folder), None
        if what := file_kinds.describe(data, path):
            raise WeightsError(f"{path} is {what}")
        content = torch_files.read_legacy(data)
    except torch_files.CodeFoundError as error:
        code = one_line(error, 80)
        raise WeightsError(f"{path} contains code ({code}), which is never run; {SAVE_WEIGHTS}") from error
    if content is None:
        raise WeightsError(f"{path} is a pickle, not a file of torch.save; {SAVE_WEIGHTS}; or {SAVE_ARRAYS}")
    return content, None


def _checked(tensor: Tensor, expected: torch.Tensor, name: str, path: Path) -> torch.Tensor:
    """Return the tensor in the network's dtype; raise WeightsError for values that no training writes."""
    if isinstance(tensor, StoredTensor):
        try:
            tensor = tensor.load()
        except Exception as error:  # the zip reader raises exceptions of any type
            raise WeightsError(
                f"{path} is damaged: {name} cannot be read ({one_line(error, 120)}); copy or download it again"
            ) from error
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise WeightsError(f"{path}: {name} is not a plain tensor on the CPU; save model.state_dict() of a plain model")
    is_counter = name.endswith("num_batches_tracked")  # some programs cast it with the weights
    if tensor.is_complex() or (tensor.is_floating_point() != expected.is_floating_point() and not is_counter):
        raise WeightsError(f"{path}: {name} is {tensor.dtype}, not {expected.dtype}; save the model in float32")
    tensor = tensor.to(expected.dtype)
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise WeightsError(f"{path}: {name} has NaN or infinite values; name another checkpoint")
    if name.endswith("running_var") and bool((tensor < 0).any()):
        raise WeightsError(f"{path}: {name} has negative variances; name another checkpoint")
    if name.endswith((".weight", "running_var")) and not bool(tensor.any()):  # the end of an interrupted copy
        raise WeightsError(f"{path} is damaged: {name} is all zeros; copy or download it again")
    return tensor
