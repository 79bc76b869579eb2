"""Class names: of known datasets (with their preprocessing), from files, and of folders."""

from __future__ import annotations

import functools
import re
import shlex
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from simplenet import files, strict_json
from simplenet.errors import SimpleNetWarning, UsageError, check_choice, one_line
from simplenet.preprocessing import (
    CIFAR10_PREPROCESSING,
    CIFAR100_PREPROCESSING,
    IMAGENET_PREPROCESSING,
    Preprocessing,
)


class KnownDataset(NamedTuple):
    """What a network is usually trained with on a dataset; `labels` and `class_ids` are in class order."""

    labels: tuple[str, ...]
    preprocessing: Preprocessing
    class_ids: tuple[str, ...] = ()


def _gray28(mean: float, std: float) -> Preprocessing:
    """28x28 gray images, repeated to RGB and padded with black to 32x32: no pixel is interpolated."""
    return Preprocessing(28, 28, mean=(mean,) * 3, std=(std,) * 3, padding=2)


_CIFAR100_LABELS = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""

_SMALL_IMAGES = {
    "cifar10": KnownDataset(
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        CIFAR10_PREPROCESSING,
    ),
    "cifar100": KnownDataset(tuple(_CIFAR100_LABELS.split()), CIFAR100_PREPROCESSING),
    "emnist-balanced": KnownDataset(tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"), _gray28(0.1751, 0.3332)),
    "fashion-mnist": KnownDataset(
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        _gray28(0.2860, 0.3530),
    ),
    "mnist": KnownDataset(tuple("0123456789"), _gray28(0.1307, 0.3081)),
    "svhn": KnownDataset(
        tuple("0123456789"), Preprocessing(32, 32, mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970))
    ),
}
_NUMBERED = re.compile(r"(\d{1,9})(?:[.):]?\s+|[,;:])\S")
KNOWN_DATASETS = (*_SMALL_IMAGES, "imagenet")


def known_dataset(name: str) -> KnownDataset:
    """Return one of `KNOWN_DATASETS`; raises UsageError for another name, as `check_choice`."""
    if check_choice("dataset", name, KNOWN_DATASETS) == "imagenet":
        return KnownDataset(imagenet_labels(), IMAGENET_PREPROCESSING, imagenet_class_ids())
    return _SMALL_IMAGES[name]


def read(path: str | Path) -> tuple[str, ...]:
    """Read the class names, in class order, from a text file with one on each line, or from JSON.

    JSON is a list of names, {"0": "tench", ...}, {"tench": 0, ...}, {"0": ["n01440764", "tench"], ...}, or a
    config.json of Hugging Face, with "id2label".

    Raises:
        UsageError: the file cannot be read, is neither, has an empty line between two names, or one name for all.
    """
    try:
        with open(files.expand_home(path), "rb") as file:
            content = file.read(strict_json.MAX_CHARACTERS + 1)
        if len(content) > strict_json.MAX_CHARACTERS:
            raise ValueError(f"more than {strict_json.MAX_CHARACTERS} characters")
        is_utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")  # PowerShell's > writes it
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig").strip()
        is_json = text[:1] in ("{", "[")
        names = _names_of_json(text) if is_json else [line.strip() for line in text.splitlines()]
        if not names or "" in names:
            raise ValueError(f"line {names.index('') + 1} is empty" if names else "it is empty")
        if len(names) > 1 and names.count(names[0]) == len(names):
            raise ValueError(f"all {len(names)} are the same")
        if not is_json:
            _warn_of_columns(names, str(path))
        return strict_json.plain_strings(names)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {files.error_message(error)}; name a file: --labels FILE") from error
    except (ValueError, TypeError, KeyError, LookupError) as error:  # UnicodeDecodeError is a ValueError
        what = f"no class {error}" if isinstance(error, KeyError) else one_line(error)
        raise UsageError(f"{path} is not a list of labels ({what}); write one on each line, in UTF-8") from error


def _warn_of_columns(lines: list[str], path: str) -> None:
    """Warn if each line has its number before the name, or is a row of a CSV."""
    numbers = [int(found[1]) if (found := _NUMBERED.match(line)) else -1 for line in lines]
    if len(lines) > 1 and numbers in (list(range(len(lines))), list(range(1, len(lines) + 1))):
        what, command = "its number before each name", "sed -E 's/^[0-9]+[^[:alnum:]]+//'"
    elif separator := next((each for each in ",;\t" if _is_table(lines, each)), ""):
        what, command = "several columns", f"cut -d {shlex.quote(separator)} -f COLUMN"
    else:
        return
    example = one_line(repr(lines[-1]), 60)
    text = f"{path} has {what}, as in {example}, and all of it becomes the class name; to keep only the names, type: "
    warnings.warn(f"{text}{command} {shlex.quote(path)} > names.txt", SimpleNetWarning, stacklevel=3)


def _is_table(lines: list[str], separator: str) -> bool:
    """Whether all lines have equally many separators, and none before a space, as in 'tench, Tinca tinca'."""
    counts = [0 if f"{separator} " in line else line.count(separator) for line in lines]
    return len(lines) > 1 and 0 < min(counts) == max(counts)


def _names_of_json(text: str) -> list[str]:
    names = strict_json.loads(f'{{"names": {text}}}')["names"]
    if isinstance(names, dict):
        names = names.get("id2label", names)
        if all(type(index) is int for index in names.values()):  # as ImageFolder's class_to_idx
            if len(set(names.values())) < len(names):
                raise ValueError("two names have the same number")
            names = {str(index): name for name, index in names.items()}
        names = [names[str(index)] for index in range(len(names))]
    return [name[1] if isinstance(name, list) else name for name in names]  # after a class id


@functools.lru_cache(maxsize=1)
def _imagenet() -> tuple[tuple[str, str], ...]:
    lines = (Path(__file__).parent / "imagenet_labels.tsv").read_text("utf-8").splitlines()
    return tuple((wordnet_id, name) for wordnet_id, name in (line.split("\t") for line in lines))


def imagenet_class_ids() -> tuple[str, ...]:
    """Return the 1000 WordNet ids in class order, 'n01440764' first."""
    return tuple(wordnet_id for wordnet_id, _ in _imagenet())


def imagenet_labels() -> tuple[str, ...]:
    """Return the 1000 English names in class order, 'tench' first."""
    return tuple(name for _, name in _imagenet())


def class_lookup(*name_lists: Sequence[str]) -> Callable[[str], list[int]]:
    """Return a function from a folder's name to the indices of the classes of that name.

    If no class has exactly that name, case, spaces and punctuation are ignored.

    Args:
        name_lists: such as labels and class ids, each in class order.
    """
    exact: dict[str, set[int]] = {}
    similar: dict[str, set[int]] = {}
    for names in name_lists:
        for index, name in enumerate(names):
            exact.setdefault(name, set()).add(index)
            similar.setdefault(_key(name), set()).add(index)
    return lambda folder: sorted(exact.get(folder) or similar.get(_key(folder), set()))


def class_order(classes: Sequence[str], labels: Sequence[str], class_ids: Sequence[str] = ()) -> list[int] | None:
    """Return the model's index of each class of a dataset, by `class_lookup`; None if the model has other classes."""
    found = list(map(class_lookup(labels, class_ids), classes))
    order = [index for indices in found for index in indices]
    is_one_to_one = all(len(indices) == 1 for indices in found) and sorted(order) == list(range(len(labels)))
    return order if is_one_to_one else None


def _key(name: str) -> str:
    """Return 't shirt top' for both 'T-shirt/top', which cannot name a folder, and 't_shirt_top'.

    The composed and the decomposed form of 'é' are the same; macOS and archives often write the latter.
    """
    composed = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    is_letter = [character.isalnum() or unicodedata.category(character)[0] == "M" for character in composed]
    kept = "".join(character if is_kept else " " for character, is_kept in zip(composed, is_letter, strict=True))
    return " ".join(kept.split()) or composed
