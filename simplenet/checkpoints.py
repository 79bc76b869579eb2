"""Checkpoint files, which are untrusted input: read them without running code, build a model from them."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as serialize

from simplenet import files, variants
from simplenet import model as models
from simplenet.errors import SimpleNetError, WeightsError, one_line
from simplenet.model import SimpleNet
from simplenet.model_card import CARD_KEY, ModelCard

SUFFIXES = (".safetensors", ".pth", ".pt")

_MAX_BYTES = 1 << 30
_MAX_CLASSES = 100_000

Tensors = dict[str, torch.Tensor]


def save(path: str | Path, state_dict: Mapping[str, torch.Tensor], card: ModelCard) -> None:
    """Write a .safetensors checkpoint with its card, atomically.

    Raises:
        SimpleNetError: the file cannot be written, or the disk is full; an old file is intact.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    with files.replacing(path) as temporary:  # safetensors' save_file makes files that only their owner can read
        temporary.write_bytes(serialize(tensors, {CARD_KEY: card.to_json()}))


def read(path: Path) -> tuple[Tensors, ModelCard | None]:
    """Read a .safetensors, .pth or .pt file: its tensors, and its card if this project wrote it.

    A .pth holds a state_dict, directly or under 'state_dict' or 'model'; a 'module.' before every name is removed. No
    code in the file is run.

    Raises:
        WeightsError: the file is missing or damaged, has another format, contains code, or has no state_dict.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise WeightsError(f"{path} is not a checkpoint; name a {', '.join(SUFFIXES)} file")
    try:
        if not path.is_file():
            raise WeightsError(f"no file at {path}; name a checkpoint: --weights PATH")
        if path.stat().st_size > _MAX_BYTES:
            raise WeightsError(f"{path} is over 1 GiB, too large for a SimpleNet; name a checkpoint of weights only")
        if path.suffix.lower() == ".safetensors":
            return _read_safetensors(path)
        return _state_dict(_read_torch(path), path), None
    except SimpleNetError:
        raise
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {one_line(files.error_message(error))}") from error
    except Exception as error:  # the parsers raise exceptions of any type
        raise WeightsError(
            f"{path} is damaged or not a checkpoint ({one_line(error, 120)}); copy or download it again"
        ) from error


def build_model(tensors: Tensors, variant: str, path: Path) -> SimpleNet:
    """Build the variant's network in eval mode from a checkpoint's tensors, with the checkpoint's number of classes.

    Raises:
        WeightsError: the weights do not fit the variant, are not for RGB images, or are not finite. The message names
            the first missing and the first unexpected tensor, and the variants that the weights fit.
    """
    first, last = tensors.get("features.0.weight"), tensors.get("classifier.weight")
    if first is not None and first.ndim == 4 and first.shape[1] != 3:
        raise WeightsError(
            f"{path} is for images of {first.shape[1]} channels, only RGB is supported; train it with 3 channels"
        )
    num_classes = last.shape[0] if last is not None and last.ndim == 2 else None
    if num_classes is not None and not 1 <= num_classes <= _MAX_CLASSES:
        raise WeightsError(f"{path} has {num_classes} classes, not 1 to {_MAX_CLASSES}; name another checkpoint")
    network = models.create(variant, num_classes)
    expected: Tensors = network.state_dict()
    if mismatch := _mismatch(tensors, expected):
        with torch.device("meta"):  # shapes only, no memory
            shapes = {name: models.create(name, num_classes).state_dict() for name in variants.VARIANTS}
        fitting = [name for name in shapes if not _mismatch(tensors, shapes[name])]
        advice = f"it fits {', '.join(fitting)}: type --variant {fitting[0]}" if fitting else "name another checkpoint"
        raise WeightsError(f"{path} does not fit {variant}: {mismatch}; {advice}")
    network.load_state_dict({name: _checked(tensor, expected[name], name, path) for name, tensor in tensors.items()})
    return network


def _read_safetensors(path: Path) -> tuple[Tensors, ModelCard | None]:
    with safe_open(path, framework="pt") as file:
        card = (file.metadata() or {}).get(CARD_KEY)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    try:
        return tensors, None if card is None else ModelCard.from_json(card)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def _read_torch(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:  # a small file may unpack to any size
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_BYTES:
                raise WeightsError(f"{path} unpacks to over 1 GiB; name a checkpoint of weights only")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols and TorchScript
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        if not isinstance(error, pickle.UnpicklingError) and "weights_only" not in str(error):
            raise
        # torch's message is not repeated, because it suggests to load the file unsafely.
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"contains code ({found[1]})" if found else "is damaged or contains more than weights"
        raise WeightsError(
            f"{path} {what}, which is never run; save only the weights: torch.save(model.state_dict(), PATH)"
        ) from error


def _state_dict(content: Any, path: Path) -> Tensors:
    if isinstance(content, dict):
        content = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state_dict; save model.state_dict()")
    for name, value in content.items():
        is_nested = isinstance(value, torch.Tensor) and value.is_nested  # it has no shape
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or is_nested:
            kind = "nested tensor" if is_nested else type(value).__name__
            raise WeightsError(
                f"{path} is not a state_dict: {one_line(repr(name), 60)} is a {kind}; save model.state_dict()"
            )
    if all(name.startswith("module.") for name in content):  # written by DataParallel
        return {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return dict(content)


def _mismatch(tensors: Tensors, expected: Tensors) -> str:
    """Describe the first missing and unexpected tensor, or the first other shape; "" if all fit."""
    missing = [f"missing {name!r}" for name in expected if name not in tensors]
    unexpected = [f"unexpected {one_line(repr(name), 80)}" for name in tensors if name not in expected]
    if missing or unexpected:
        return ", ".join(missing[:1] + unexpected[:1])
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            return f"{name} is {list(tensor.shape)}, not {list(expected[name].shape)}"
    return ""


def _checked(tensor: torch.Tensor, expected: torch.Tensor, name: str, path: Path) -> torch.Tensor:
    """Return the tensor in the network's dtype; raise WeightsError for values that no training writes."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise WeightsError(f"{path}: {name} is not a plain tensor on the CPU; save model.state_dict() of a plain model")
    if tensor.is_complex() or tensor.is_floating_point() != expected.is_floating_point():
        raise WeightsError(f"{path}: {name} is {tensor.dtype}, not {expected.dtype}; save the model in float32")
    tensor = tensor.to(expected.dtype)
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise WeightsError(f"{path}: {name} has NaN or infinite values; name another checkpoint")
    if name.endswith("running_var") and bool((tensor < 0).any()):
        raise WeightsError(f"{path}: {name} has negative variances; name another checkpoint")
    return tensor
