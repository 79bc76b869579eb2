"""Folders of images: find the image files, count what is not used, match subfolders with classes."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from simplenet import files, images
from simplenet.errors import DataError, ImageError, SimpleNetWarning
from simplenet.labels import class_lookup

SUFFIXES = {".apng", ".avif", ".avifs", ".bmp", ".dib", ".gif", ".j2c", ".j2k", ".jfi", ".jfif", ".jif", ".jp2", ".jpc",
            ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff",
            ".webp"}  # fmt: skip
_HEIF_SUFFIXES = (".heic", ".heif", ".hif")
_VIDEO_SUFFIXES = (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv",
                   ".webm", ".wmv")  # fmt: skip
_HINTS = {
    **dict.fromkeys(_HEIF_SUFFIXES, "to read them: pip install pillow-heif"),
    **dict.fromkeys(_VIDEO_SUFFIXES, "video"),
}
_MAX_KINDS, _OTHER = 8, "of other kinds"
_SPLIT_NAMES = {
    split: re.compile(f"([a-z0-9]+[_-])?({names})(ing)?([ _-]?(set|data|dataset|images|imgs|split))?\\d*")
    for split, names in (("train", "train"), ("val", "val|valid|validation|dev"), ("test", "test|eval|evaluation"))
}
_MAX_WRAPPERS = 3
_HIDDEN = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")  # of operating systems


@dataclass(frozen=True)
class Listing:
    """What is directly in a folder."""

    images: list[Path]
    """Sorted."""
    folders: list[Path]
    """Sorted, without hidden ones and the output of training."""
    unused: Counter[str]
    """How many of the other entries there are of each kind, for `describe_unused`."""


def list_folder(folder: Path) -> Listing:
    """Return the images, the subfolders and the other entries of a folder.

    Images are selected by suffix and not opened.

    Raises:
        DataError: the folder cannot be read.

    Example:
        listing = image_folders.list_folder(folder)
        if listing.unused:
            warnings.warn(f"{folder}: not used: {image_folders.describe_unused(listing.unused)}", SimpleNetWarning)
    """
    listing = Listing([], [], Counter())
    suffixes = SUFFIXES.union(_HEIF_SUFFIXES if importlib.util.find_spec("pillow_heif") else ())
    try:
        for path in sorted(folder.iterdir()):
            suffix = path.suffix.lower()
            if path.name.startswith(".") or path.name in _HIDDEN:
                listing.unused["hidden"] += 1
            elif path.is_dir():
                listing.folders.extend([] if _is_training_output(path) else [path])
            elif not path.is_file():
                listing.unused["broken link(s)" if path.is_symlink() else "device(s)"] += 1
            elif suffix in suffixes:
                listing.images.append(path)
            else:
                is_usual = not suffix or (len(suffix) <= 10 and suffix[1:].isalnum())
                listing.unused[(suffix or "without a suffix") if is_usual else _OTHER] += 1
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {folder}: {files.error_message(error)}; name a folder of images") from error
    return listing


def _is_training_output(folder: Path) -> bool:
    """Whether a folder has a training run, in it or up to three folders below, and no images but its curve."""
    has_run = False
    for name in _names_below(folder):
        if Path(name).suffix.lower() in SUFFIXES and not name.endswith(".training.png"):
            return False
        has_run |= name in (".lock", "log.jsonl") or name.startswith("events.out.tfevents.")
    return has_run


def _names_below(folder: Path | str, depth: int = 3) -> Iterator[str]:
    """Yield the names of the files; lazily, because the first image of a large class ends the search."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                yield entry.name
            elif depth:
                yield from _names_below(entry.path, depth - 1)


def describe_unused(unused: Counter[str]) -> str:
    """Return unused entries by kind and count, such as "3 .txt, 2 .mp4 (video), 1 hidden"."""
    kinds = [kind for kind, _ in unused.most_common(_MAX_KINDS) if kind != _OTHER]
    texts = [f"{unused[kind]} {kind}" + (f" ({_HINTS[kind]})" if kind in _HINTS else "") for kind in kinds]
    rest = unused.total() - sum(unused[kind] for kind in kinds)
    return ", ".join(texts + [f"{rest} {_OTHER}"] * (rest > 0))


def find_images(path: str | Path) -> list[Path]:
    """Return the sorted image files in a folder and its direct subfolders, or a file itself.

    A warning counts, by kind, the entries that are not used.

    Raises:
        DataError: no such folder, or no image in it.
    """
    path = Path(path)
    if files.is_file(path):
        return [path]
    top = list_folder(path)
    inner = [list_folder(folder) for folder in top.folders]
    found = [file for listing in (top, *inner) for file in listing.images]
    unused = sum(map(unused_in, inner), top.unused)
    if not found:
        raise DataError(
            f"no images in {path}{_only(unused)}; it needs files such as .jpg, .png, .tif or .webp, or folders of them"
        )
    if unused:
        text = f"{path}: not used: {describe_unused(unused)}"
        warnings.warn(text, SimpleNetWarning, stacklevel=2)
    return found


def fingerprint(folder: str | Path) -> str:
    """Return a hash, 16 hex digits, of the names and sizes of the images in a folder.

    Raises:
        DataError: as `find_images`.
    """
    listing = "".join(f"{path.relative_to(folder)}\0{path.stat().st_size}\n" for path in find_images(folder))
    return hashlib.sha256(os.fsencode(listing)).hexdigest()[:16]


def dataset_folders(folder: Path) -> tuple[Path, dict[str, Path]]:
    """Return the folder in which a dataset begins, and its folders by split: those that it has of train, val and test.

    Splits are folders of classes with any usual name in any case, such as Training, valid or test_set. A folder that
    holds only one other folder is skipped, because archives often unpack to flowers/flowers.

    Raises:
        DataError: there is no such folder, one cannot be read, or two are the same split.
    """
    if not files.is_folder(folder):
        if files.is_file(folder):
            raise DataError(f"{folder} is a file; unpack it if it is an archive, and name the dataset's folder")
        raise DataError(f"there is no folder {folder}; name the dataset's folder")
    root = _without_wrappers(folder)
    splits: dict[str, Path] = {}
    for path in list_folder(root).folders:
        if (split := split_of(path)) and list_folder(path).folders:
            if split in splits:
                raise DataError(f"{splits[split]} and {path} are both {split} images; rename or remove one of them")
            splits[split] = _without_wrappers(path, split)
    return root, splits


def split_of(path: Path) -> str | None:
    """Return the split that a folder is named after: train, val, test, or None."""
    name = path.name.strip().lower()
    return next((split for split, names in _SPLIT_NAMES.items() if names.fullmatch(name)), None)


def _without_wrappers(folder: Path, split: str | None = None) -> Path:
    for _ in range(_MAX_WRAPPERS):
        listing = list_folder(folder)
        if listing.images or len(listing.folders) != 1 or split_of(listing.folders[0]) not in (None, split):
            break
        inner = list_folder(listing.folders[0])
        if not inner.folders or (inner.images and len(inner.folders) < 2):  # the folder of a class
            break
        folder = listing.folders[0]
    return folder


def evaluation_folder(folder: Path, *, or_all: bool = False) -> Path:
    """Return the folder of a dataset's test images: test, else val.

    Args:
        or_all: of a folder without splits, return the folder itself.

    Raises:
        DataError: as `dataset_folders`; or there are no test images.
    """
    root, splits = dataset_folders(folder)
    if or_all and not splits:
        return root
    if test := splits.get("test", splits.get("val")):
        return test
    train = f"; it has training images: name {splits['train']} to use them" if splits else ""
    raise DataError(f"{root} has neither test/<class>/* nor val/<class>/*; add one, or name another folder{train}")


def check_class(folder: Path, paths: Sequence[Path] | None = None, kind: str = "images") -> None:
    """Check that one image in the folder of a class, or one of `paths`, can be read.

    Args:
        kind: how the message calls the images.

    Raises:
        DataError: there is none; the message says what the files are.
    """
    if paths is None:
        listing = list_folder(folder)
        paths = listing.images
        if not paths:
            advice = (
                "put a class's images directly into its folder" if listing.folders else "add some, or remove the folder"
            )
            raise DataError(f"no images in {folder}{_only(unused_in(listing))}; {advice}")
    reasons: Counter[str] = Counter()
    for path in paths:
        try:
            images.read_rgb(path, reduction=lambda *_: 8)  # decodes a JPEG faster
            return
        except ImageError as error:
            reasons[str(error).removeprefix(f"{path}: ")] += 1
    kinds: Counter[str] = Counter()
    for reason, count in reasons.items():
        kinds["damaged" if reason.startswith("damaged") else reason.partition("; ")[0]] += count
    texts = ", ".join(f"{count} x {text}" for text, count in kinds.most_common(3))
    advice = reasons.most_common(1)[0][0].rpartition("; ")[2]
    raise DataError(f"none of the {len(paths)} {kind} in {folder} can be read: {texts}; {advice}")


def unused_in(listing: Listing) -> Counter[str]:
    """Return what is not used in the folder of a class."""
    return listing.unused + Counter({"nested folder(s)": len(listing.folders)})


def _only(unused: Counter[str]) -> str:
    return f", only {describe_unused(unused)}" if unused else ""


def labeled_folder(
    path: str | Path, labels: Sequence[str], class_ids: Sequence[str] = ()
) -> list[tuple[Path, int | None]]:
    """Return the images of `find_images`, each with the index of its class, or None if it has no class.

    An image's class is the one that its folder is named after, as `labels.class_lookup` compares names.

    Args:
        labels, class_ids: the model's classes.

    Raises:
        DataError: there are no images; there are subfolders, but none is named after a class; or two classes have the
            name of a folder.
    """
    path = Path(path)
    found = find_images(path)
    lookup = class_lookup(labels, class_ids)
    named: dict[Path, int | None] = {}
    for folder in sorted({file.parent for file in found} - {path, path.parent}):
        indices = lookup(folder.name)
        if len(indices) > 1:
            ids = ", ".join(class_ids[index] for index in indices) if class_ids else "distinct names"
            raise DataError(f"{folder} could be any of the classes {indices}; rename it to one of: {ids}")
        named[folder] = indices[0] if indices else None
    if named and not any(index is not None for index in named.values()):
        example = next(iter((*class_ids, *labels)), "")
        known = f"such as {example!r}" if example else "but this model has none"
        raise DataError(f"no folder in {path} is named after a class of the model ({known}); rename its folders")
    return [(file, named.get(file.parent)) for file in found]
