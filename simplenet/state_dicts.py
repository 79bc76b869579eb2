"""Find a network's state_dict in a checkpoint: containers, prefixes, averages, an older layout."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from simplenet.errors import WeightsError, one_line
from simplenet.torch_files import PickledObject, StoredTensor

Tensor: TypeAlias = torch.Tensor | StoredTensor
Tensors: TypeAlias = Mapping[str, Tensor]

_FIRST = re.compile(r"(|.*[./])features\.0\.(weight|weight_orig|weight_g|parametrizations\.weight\.original0?)")
"""The network's first weight, also of a pruned or parametrized network; group 1 is the prefix of all names."""
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What DataParallel, torch.compile, FSDP and activation checkpointing add to names, in front or in the middle."""
_BOOKKEEPING = ("n_averaged", "steps", "total_ops", "total_params", "_extra_state")
"""Tensors whose name ends in one of these are not weights. AveragedModel, mmengine, thop and modules add them."""
_ARRAY = re.compile(r"numpy\.ndarray|numpy\._?core\.numeric\._frombuffer")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_AVERAGED = {"ema", "swa", "average", "averaged", "avg", "shadow"}
_MAX_DEPTH, _MAX_ITEMS, _MAX_PREFIXES = 3, 16, 64
SAVE_WEIGHTS = "save only the weights: torch.save(model.state_dict(), PATH)"
SAVE_ARRAYS = "save NumPy arrays with numpy.savez(PATH, **arrays)"
_TOP = "."
"""The key of tensors that have neither a container nor a prefix."""


@dataclass(frozen=True, eq=False)  # tensors cannot be compared by ==
class Candidate:
    """A possible state_dict: the tensors below `key`, which is a mapping's path and a prefix, joined by a dot."""

    key: str
    tensors: Tensors
    others: tuple[str, ...] = ()
    """Names in the same mapping that do not have the prefix."""
    is_averaged: bool = False
    container: str = ""
    """The path of the mapping, without the prefix; `key` if the mapping has several candidates."""

    @property
    def label(self) -> str:
        """The name in messages; --weights-key accepts it."""
        return repr(one_line(self.container or self.key or _TOP, 80))


def find(content: Any) -> list[Candidate]:
    """Return every mapping in a checkpoint's content that may be the network's state_dict."""
    found: list[Candidate] = []
    for path, value in _walk(content):
        parts = _parts(value).items()
        named = {name: part for name, part in parts if isinstance(name, str) and not isinstance(part, (dict, list))}
        if any(isinstance(part, Tensor) for part in named.values()):
            found += _split_by_prefix(path, named)
    if isinstance(content, Mapping) and "message_hub" in content and "ema_state_dict" in content:
        # mmengine's EMAHook swaps the two when it saves: 'state_dict' is averaged, 'ema_state_dict' is raw.
        found = [replace(each, is_averaged=each.key.partition(".")[0] == "state_dict") for each in found]
    with_network = [each for each in found if any(_FIRST.fullmatch(name) for name in each.tensors)]
    return (with_network and with_network + _unreadable_averages(content, with_network)) or found


def _unreadable_averages(content: Any, found: list[Candidate]) -> list[Candidate]:
    """Return an empty candidate for each averaged network that has no names: a pickled one, or a list of tensors."""
    entries = content.items() if isinstance(content, Mapping) else ()
    unread = [(str(key), value) for key, value in entries if not any(each.key.startswith(str(key)) for each in found)]
    averaged = [(key, value) for key, value in unread if _words(key) & _AVERAGED]
    return [
        Candidate(key, {}, is_averaged=True)
        for key, value in averaged
        if any(isinstance(part, Tensor) or _is_network(part) for _, part in _walk(value))
    ]


def _words(key: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(key)}


def _split_by_prefix(path: str, mapping: Mapping[str, Any]) -> Iterator[Candidate]:
    """Yield a candidate for each prefix in front of a 'features.0.weight'; without any, one with all names."""
    names = {_unwrapped(name): name for name in mapping}
    if len(names) < len(mapping):  # a raw network and the same one inside of a wrapper
        names = {name: name for name in mapping}
    prefixes = sorted({match[1] for name in names if (match := _FIRST.fullmatch(name))}, key=len, reverse=True)
    groups: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in prefixes[-_MAX_PREFIXES:] or [""]}
    others = []
    for name, original in names.items():
        prefix = next((prefix for prefix in groups if name.startswith(prefix)), None)  # the longest one
        if prefix is not None:
            groups[prefix][name.removeprefix(prefix)] = mapping[original]
        elif _is_weight(name, mapping[original]) and len(mapping[original].shape):  # a scalar is a counter
            others.append(name)
    for prefix, tensors in groups.items():
        key = ".".join(part for part in (path, prefix.rstrip("./")) if part)
        is_averaged = bool(_words(key) & _AVERAGED) or any(name.endswith("n_averaged") for name in mapping)
        yield Candidate(key, tensors, tuple(others), is_averaged, container=path if len(groups) == 1 else key)


def describe(content: Any) -> str:
    """Say what a checkpoint without a state_dict holds, and what to do."""
    objects = [value for _, value in _walk(content) if isinstance(value, PickledObject)]
    if any(_ARRAY.fullmatch(value.name) for value in objects):
        return f"pickled NumPy arrays; {SAVE_ARRAYS}"
    what = f"a {type(content).__name__.removeprefix('Stored')} without a state_dict"
    if network := next(filter(_is_network, objects), None):
        what = f"a pickled network ({one_line(network.name, 80)}), which is code and never run"
    return f"{what}; {SAVE_WEIGHTS}"


def choose(candidates: list[Candidate], key: str | None, path: Path) -> list[Candidate]:
    """Return the candidates that a key names, or all of them if it is None.

    Raises:
        WeightsError: nothing in the checkpoint at `path` has this key.
    """
    if key is None:
        return candidates
    named = [each for each in candidates if key in (each.key or _TOP, each.container)]
    named = named or [each for each in candidates if each.key.startswith(f"{key}.")]
    if not named:
        keys = ", ".join(each.label for each in candidates[:8])
        raise WeightsError(f"{path} has no weights {one_line(repr(key), 80)}; type --weights-key with one of: {keys}")
    return [replace(each, others=()) for each in named]


def fitted(candidate: Candidate, expected: Mapping[str, torch.Tensor]) -> tuple[Tensors, str]:
    """Return the tensors, renamed as in `expected`, and a text on what does not fit: "" if all fits."""
    items = candidate.tensors.items()
    tensors = {name: tensor for name, tensor in items if name in expected or _is_weight(name, tensor)}
    renamed = {old: new for new, old in _names_before_2023(expected).items()}
    if _without_counters(tensors) == _without_counters(renamed):
        tensors = {renamed[name]: tensor for name, tensor in tensors.items() if name in renamed}
    needed = _without_counters(expected)
    missing = [f"missing {name!r}" for name in expected if name in needed and name not in tensors]
    others = [name for name in tensors if name not in expected] + list(candidate.others)
    unexpected = [f"unexpected {one_line(repr(name), 80)}" for name in others]
    if missing or unexpected:
        return tensors, ", ".join(missing[:1] + unexpected[:1])
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            kind = tensor.name if isinstance(tensor, PickledObject) else type(tensor).__name__
            return tensors, f"{name!r} is a {one_line(kind, 80)}, not a plain tensor"
        if tuple(tensor.shape) != tuple(expected[name].shape):
            return tensors, f"{name} is {list(tensor.shape)}, not {list(expected[name].shape)}"
    return tensors, ""


def _walk(
    content: Any, path: str = "", depth: int = _MAX_DEPTH, seen: set[int] | None = None
) -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of everything in a checkpoint, outermost first, and each container once."""
    seen, parts = set() if seen is None else seen, _parts(content)
    if parts:
        if id(content) in seen:
            return
        seen.add(id(content))
    yield path, content
    for name, value in parts.items() if depth else ():
        yield from _walk(value, f"{path}.{name}" if path else str(name), depth - 1, seen)


def _parts(value: Any) -> Mapping[Any, Any]:
    """Return what is in a container; nothing for another value, and for a network that was pickled whole."""
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value[:_MAX_ITEMS]))
    if isinstance(value, PickledObject):
        return {} if _is_network(value) else value.values
    return value if isinstance(value, Mapping) else {}


def _is_network(value: Any) -> bool:
    return isinstance(value, PickledObject) and "_modules" in value.values


def _is_weight(name: str, value: Any) -> bool:
    return isinstance(value, Tensor) and name.rpartition(".")[2] not in _BOOKKEEPING


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _without_counters(names: Mapping[str, Any]) -> set[str]:
    """Names without batch norm's counters of batches, which PyTorch before 0.4.1 did not save."""
    return {name for name in names if not name.endswith("num_batches_tracked")}


def _names_before_2023(expected: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Map each name to its name in the reference implementation before 2023.

    It had Dropout2d only after pools. A convolution with its batch norm and ReLU took 3 indices, a pool with its
    Dropout2d took 2.
    """
    starts = [int(name.split(".")[1]) for name, tensor in expected.items() if tensor.ndim == 4]  # of convolutions
    old, index = {}, 0
    for start, following in zip(starts, [*starts[1:], starts[-1] + 3], strict=True):
        old.update({start + offset: index + offset for offset in (0, 1)})
        # The distance is 3 for a plain convolution, 4 with dropout, 5 with a pool, 6 with both.
        index += 5 if following - start in (5, 6) else 3
    names = {}
    for name in expected:
        head, _, tail = name.partition(".")
        number, _, tail = tail.partition(".")
        names[name] = f"{head}.{old[int(number)]}.{tail}" if head == "features" else name
    return names
