"""Folders of images: which files are found, what is counted as not used, and the classes of subfolders."""

from __future__ import annotations

import importlib.util
import unicodedata
from pathlib import Path

import pytest

from simplenet import image_folders
from simplenet.errors import DataError, SimpleNetWarning
from simplenet.labels import class_lookup


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_find_images_in_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.PNG", "c.jpeg", "d.JFIF", "e.jpe", "f.jif", "g.mpo", "h.apng", "i.dib", "j.jfi")
    names = ["a.PNG", "b.jpg", "c.jpeg", "d.JFIF", "e.jpe", "f.jif", "g.mpo", "h.apng", "i.dib", "j.jfi"]
    assert [path.name for path in image_folders.find_images(tmp_path)] == names
    assert image_folders.find_images(tmp_path / "b.jpg") == [tmp_path / "b.jpg"]


def test_find_images_in_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "top.jpg", "dog/2.jpg", "dog/10.jpg", "cat/1.png")
    found = [str(path.relative_to(tmp_path)) for path in image_folders.find_images(tmp_path)]
    assert found == ["top.jpg", "cat/1.png", "dog/10.jpg", "dog/2.jpg"]


def test_counts_what_is_not_used_by_kind(tmp_path: Path) -> None:
    touch(
        tmp_path, "a.jpg", "notes.TXT", "cat/b.txt", "clip.mov", ".hidden.jpg", ".cache/x.jpg", "cat/deep/c.jpg", "no"
    )
    touch(tmp_path, "b.jpg.part~", "x.a-very-long-suffix", "dog/d.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.warns(SimpleNetWarning) as warned:
        found = image_folders.find_images(tmp_path)
    assert [path.name for path in found] == ["a.jpg", "d.jpg"]
    (text,) = [str(warning.message) for warning in warned]
    start, _, kinds = text.partition(": not used: ")
    assert start == str(tmp_path)
    usual = ["1 .mov (video)", "1 broken link(s)", "1 nested folder(s)", "1 without a suffix"]
    assert sorted(kinds.split(", ")) == [*usual, "2 .txt", "2 hidden", "2 of other kinds"]


def test_names_only_the_most_frequent_of_many_kinds(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", *(f"{i}.k{i}" for i in range(30)), "b.txt", "c.txt")
    with pytest.warns(SimpleNetWarning) as warned:
        image_folders.find_images(tmp_path)
    text = str(warned[0].message)
    assert "not used: 2 .txt, 1 .k" in text
    assert text.endswith(" of other kinds")
    assert sum(int(part.split()[0]) for part in text.partition("used: ")[2].split(", ")) == 32


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is not None, reason="pillow-heif is installed")
def test_folder_of_other_formats_is_not_an_empty_folder(tmp_path: Path) -> None:
    touch(tmp_path, "1.HEIC", "2.heic", "3.psd", "4.mp4", "deep/deeper/5.jpg")
    with pytest.raises(DataError, match=r"no images in .*, only ") as caught:
        image_folders.find_images(tmp_path)
    for kind in ("2 .heic (to read them: pip install pillow-heif)", "1 .psd", "1 .mp4 (video)", "1 nested folder(s)"):
        assert kind in str(caught.value)


def test_heic_is_used_if_pillow_heif_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "packages", "pillow_heif.py")
    touch(tmp_path / "images", "1.HEIC", "2.heif", "3.hif")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    assert [path.name for path in image_folders.find_images(tmp_path / "images")] == ["1.HEIC", "2.heif", "3.hif"]


def test_find_images_finds_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    (tmp_path / "empty").mkdir()
    for path, reason in (
        (tmp_path, "no images in .*, only 1 .txt; it needs"),
        (tmp_path / "empty", "no images in .*empty; it needs"),
        (tmp_path / "missing", "No such file"),
        (Path("a\0b"), "null"),
    ):
        with pytest.raises(DataError, match=reason):
            image_folders.find_images(path)


LABELS, CLASS_IDS = ("T-shirt/top", "great white shark", "crane", "crane"), ("n1", "n2", "n3", "n4")


@pytest.mark.parametrize(
    ("name", "index"),
    [("T-shirt_top", 0), ("t shirt top", 0), ("N1", 0), ("Great-White-Shark", 1), ("n2", 1), ("n4", 3), ("car", None)],
)
def test_a_folder_is_a_class_by_its_id_or_label(tmp_path: Path, name: str, index: int | None) -> None:
    touch(tmp_path, f"{name}/a.jpg", "great white shark/b.jpg")
    found = image_folders.labeled_folder(tmp_path, LABELS, CLASS_IDS)
    assert (tmp_path / name / "a.jpg", index) in found
    assert (tmp_path / "great white shark" / "b.jpg", 1) in found
    assert len(found) == 2


def test_composed_and_decomposed_names_are_equal() -> None:
    """macOS and archives often write names decomposed."""
    named = class_lookup(["café", "cafe", "か", "が"])
    for form in ("NFC", "NFD"):
        assert [named(unicodedata.normalize(form, name)) for name in ("café", "Cafe", "か", "が")] == [
            [0],
            [1],
            [2],
            [3],
        ]


def test_rejects_a_folder_that_names_two_classes(tmp_path: Path) -> None:
    touch(tmp_path, "crane/a.jpg")
    with pytest.raises(DataError, match=r"crane could be any of the classes \[2, 3\]; rename it to one of: n3, n4"):
        image_folders.labeled_folder(tmp_path, LABELS, CLASS_IDS)


def test_images_outside_class_folders_have_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    assert image_folders.labeled_folder(tmp_path, LABELS) == [(tmp_path / "a.jpg", None), (tmp_path / "b.jpg", None)]
    touch(tmp_path, "n1/c.jpg")
    assert [index for _, index in image_folders.labeled_folder(tmp_path, LABELS, CLASS_IDS)] == [None, None, 0]


@pytest.mark.parametrize(
    ("labels", "hint"), [(LABELS, "such as 'T-shirt/top'"), ((), "but this model has none")], ids=["labels", "none"]
)
def test_rejects_folders_that_are_no_classes(tmp_path: Path, labels: tuple[str, ...], hint: str) -> None:
    touch(tmp_path, "train/a.jpg", "val/b.jpg")
    with pytest.raises(DataError, match=f"no folder in .* is named after a class of the model .{hint}"):
        image_folders.labeled_folder(tmp_path, labels)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images in"):
        image_folders.labeled_folder(tmp_path, LABELS)


def test_labels_without_letters_differ(tmp_path: Path) -> None:
    touch(tmp_path, "+/a.jpg", "-/b.jpg")
    assert [index for _, index in image_folders.labeled_folder(tmp_path, ("+", "-"))] == [0, 1]
