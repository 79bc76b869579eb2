"""Class folders as people have them: each is trained on, or refused in one line; what is not used is counted."""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demos import evaluate
from simplenet.errors import DataError, SimpleNetWarning
from train import cifar, imagefolder

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:d06c05e87574cf62\nsize 12345\n"
Run = Callable[..., dict[str, object]]


def write_classes(folder: Path, *classes: str, count: int = 4) -> Path:
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Train through a script's main for one short epoch; return its --json."""

    def run(folder: Path, script: str = "imagefolder") -> dict[str, object]:
        flags = ["--epochs", "1", "--batch", "4", "--fp32", "--json", "--output", str(tmp_path / "run")]
        if script == "cifar":
            assert cifar.main(["--dataset", "folder", "--data", str(folder), *flags]) == 0
        else:
            size = ["--size", "32", "--workers", "0", "--variant", "cifar-310k"]
            assert imagefolder.main([str(folder), *size, *flags]) == 0
        result: dict[str, object] = json.loads(capsys.readouterr().out)
        return result

    return run


def refusal(train: Run, folder: Path, script: str = "imagefolder") -> str:
    with pytest.raises(DataError) as caught:
        train(folder, script)
    message = str(caught.value)
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    ("train_name", "test_name", "split"),
    [
        ("train", "valid", "valid"),
        ("Training", "Testing", "Testing"),
        ("TRAIN", "Validation", "Validation"),
        ("training_set/training_set", "test_set/test_set", "test_set"),
        ("seg_train/seg_train", "seg_test/seg_test", "seg_test"),
        ("train images", "eval", "eval"),
        ("flowers/train", "flowers/dev", "dev"),
    ],
)
@pytest.mark.parametrize("script", ["imagefolder", "cifar"])
def test_understands_usual_split_names(
    train: Run, tmp_path: Path, train_name: str, test_name: str, split: str, script: str
) -> None:
    write_classes(tmp_path / "flowers" / train_name, "oak", "yew")
    write_classes(tmp_path / "flowers" / test_name, "oak", "yew", count=3)
    (tmp_path / "flowers/readme.txt").write_text("")
    result = train(tmp_path / "flowers", script)
    assert (result["test_split"], result["test_images"]) == (split, 6)
    recorded = json.loads(next((tmp_path / "run").glob("*.training.json")).read_text())
    assert recorded["test_split"] == split


@pytest.mark.parametrize("script", ["imagefolder", "cifar"])
def test_measures_val_and_keeps_test(
    train: Run, tmp_path: Path, script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, count in (("train", 4), ("val", 2), ("test", 3)):
        write_classes(tmp_path / "data" / name, "oak", "yew", count=count)
    capsys.readouterr()
    flags = ["--epochs", "1", "--batch", "4", "--fp32", "--output", str(tmp_path / "run")]
    if script == "cifar":
        cifar.main(["--dataset", "folder", "--data", str(tmp_path / "data"), *flags])
    else:
        imagefolder.main([str(tmp_path / "data"), "--variant", "cifar-310k", "--size", "32", "--workers", "0", *flags])
    said = capsys.readouterr()
    assert f"{tmp_path / 'data/val'} is measured; {tmp_path / 'data/test'} is not used" in said.err
    assert "top-1 on val after" in said.out
    weights = ["--variant", "cifar-310k", "--weights", str(tmp_path / "run/cifar-310k.safetensors")]
    model = [*weights, "--backend", "torch", "--artifacts", str(tmp_path / "artifacts"), "--json"]
    assert evaluate.main([str(tmp_path / "data"), *model]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["source"], report["images"]) == (str(tmp_path / "data/test"), 6)


@pytest.mark.parametrize(
    ("folder", "classes"),
    [("", ("oak", "yew")), ("data/data", ("oak", "yew")), ("train", ("oak", "yew")), ("", ("train", "bus"))],
    ids=["classes", "an archive's folders", "only train", "a class named train"],
)
def test_holds_out_a_part_without_test_images(
    train: Run, tmp_path: Path, folder: str, classes: tuple[str, ...]
) -> None:
    write_classes(tmp_path / "data" / folder, *classes, count=10)
    (tmp_path / "data/__MACOSX/data").mkdir(parents=True)
    (tmp_path / "data/lost+found").mkdir()
    with pytest.warns(SimpleNetWarning, match="not used: 2 hidden") if folder == "" else contextlib.nullcontext():
        result = train(tmp_path / "data")
    assert (result["test_split"], result["test_images"]) == ("held-out 10 %", 2)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (LFS_POINTER, "8 x a git-lfs pointer, not the file itself; type: git lfs pull"),
        ("<!DOCTYPE html><title>Sign in</title>", "8 x a web page, not the file itself; open it in a browser"),
        ("", "8 x the file is empty; replace it"),
        ("hello", "8 x a text file, not an image"),
    ],
    ids=["git-lfs", "HTML", "empty", "text"],
)
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("script", ["imagefolder", "cifar"])
def test_refuses_a_class_without_a_readable_image(
    train: Run, tmp_path: Path, content: str, what: str, split: str, script: str
) -> None:
    for name in ("train", "test"):
        write_classes(tmp_path / "data" / name, "oak", "yew", count=8)
    for path in (tmp_path / "data" / split / "yew").iterdir():
        path.write_text(content)
    said = refusal(train, tmp_path / "data", script)
    assert re.search(rf"none of the 8 \w* ?images in {tmp_path / 'data' / split / 'yew'} can be read: {what}", said)
    assert not (tmp_path / "run").exists()


def test_refuses_a_held_out_part_without_a_readable_image(train: Run, tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "data", "oak", "yew", count=10)
    for path in sorted((folder / "yew").iterdir())[1:]:
        path.write_text(LFS_POINTER)
    assert "images in" in (said := refusal(train, folder))
    assert f"{folder / 'yew'} can be read: " in said


@pytest.mark.parametrize("script", ["imagefolder", "cifar"])
def test_counts_what_is_not_used_in_one_warning(train: Run, tmp_path: Path, script: str) -> None:
    folder = tmp_path / "data"
    for name in ("train", "val"):
        write_classes(folder / name, "oak", "yew")
    write_classes(folder / "train/oak", "old", "older")
    for name in ("train/oak/notes.txt", "val/yew/notes.txt", "train/list.csv", "val/yew/.DS_Store", "train/yew/x.xml"):
        (folder / name).write_text("")
    (folder / "train/yew/9.png").symlink_to("gone.png")
    (folder / "val/oak/loop").symlink_to("loop")
    (folder / "train/direct.png").write_bytes((folder / "train/oak/0.png").read_bytes())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = train(folder, script)
    (said,) = [str(warning.message) for warning in caught]
    assert said.startswith(f"{folder}: not used: ")
    kinds = (
        "2 .txt",
        "1 .csv",
        "1 hidden",
        "1 .xml",
        "2 broken link(s)",
        "2 nested folder(s)",
        "1 image(s) outside of",
    )
    assert all(kind in said for kind in kinds), said
    assert result["test_images"] == 8


def _write_splits(folder: Path, **classes: str) -> None:
    for split, names in classes.items():
        write_classes(folder / split, *names)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda at: [write_classes(at / "train/pets", "cat", "dog"), write_classes(at / "train", "oak", "yew"),
                     write_classes(at / "val", "oak", "yew")],
         "no images in {at}/train/pets, only 2 nested folder(s); put a class's images directly"),
        (lambda at: [write_classes(at / name, "oak", "yew") for name in ("first", "second")],
         "no images in {at}/<class>/*, where the folders are first, second; name the folder that"),
        (lambda at: write_classes(at, ""), "{at} has no folders of classes beside 4 images; training needs two"),
        (lambda at: write_classes(at, "train", "test"), "{at} has no train/<class>/*, only test, train; make"),
        (lambda at: write_classes(at, "train", "test1", "x"), "{at} has no train/<class>/*, only test1, train, x"),
        (lambda at: at.with_suffix(".zip").write_bytes(b"PK") and at.symlink_to(at.with_suffix(".zip")),
         "{at} is a file; unpack it if it is an archive, and name the dataset's folder"),
        (lambda at: None, "there is no folder {at}; name the dataset's folder"),
        (lambda at: [write_classes(at, ""), write_classes(at / "trees", "oak", "yew")],
         "{at} has only one folder of a class, trees beside 4 images; training needs two or more: {at}/<c"),
        (lambda at: write_classes(at, "oak"), "{at} has only one folder of a class, oak; training needs two"),
        (lambda at: _write_splits(at, val="ab"), "{at} has no train/<class>/*, only val; make it {at}/train/<class>/*"),
        (lambda at: _write_splits(at, train="ab", val="ab", Valid="ab"), "{at}/Valid and {at}/val are both val images"),
        (lambda at: [_write_splits(at, train="ab"), write_classes(at, "val")],
         "{at} has train/<class>/*, but neither val/<class>/* nor test/<class>/*, only val; sort test images"),
        (lambda at: _write_splits(at, train="abcd", val="ac"), "{at}/val has no folder for the class 'b' and 1 more"),
        (lambda at: _write_splits(at, train="ab", val="abc"), "{at}/val/c is none of the 2 classes; rename"),
        (lambda at: [write_classes(at, "a", "b"), (at / "self").symlink_to(at)], "no images in {at}/self, only 3"),
        (lambda at: [at.mkdir(), (at / "x").symlink_to(at)], "has only one folder of a class, x; training needs two"),
        (lambda at: [write_classes(at, "a", "b"), (at / "c").symlink_to("/gone")], "{at}/c is a broken link"),
        (lambda at: [write_classes(at, "a", "b"), (at / "c").symlink_to("c")], "{at}/c is a broken link"),
        (lambda at: write_classes(at, "oak", "oak "), "look the same ('oak '); merge them"),
        (lambda at: write_classes(at, unicodedata.normalize("NFC", "caf\xe9"), unicodedata.normalize("NFD", "caf\xe9")),
         "look the same ('caf\\xe9'); merge them"),
    ],
    ids=["nested", "other splits", "no classes", "flat splits", "Kaggle's", "a file", "nothing", "one level too high",
         "one class",
         "only val", "val twice", "flat val", "classes without test", "unknown class in val", "link to the parent",
         "link to itself", "broken link", "loop", "spaces", "Unicode normalization"],
)  # fmt: skip
def test_refuses_other_folders_in_one_line(
    train: Run, tmp_path: Path, make: Callable[[Path], object], complaint: str
) -> None:
    make(tmp_path / "data")
    assert complaint.format(at=tmp_path / "data") in refusal(train, tmp_path / "data")


@pytest.mark.parametrize(
    ("classes", "test_classes"),
    [
        (("1", "10", "2"), ("1", "10", "2")),
        (("oak ", "yew"), ("oak", "yew")),
        ((unicodedata.normalize("NFD", "\xe9t\xe9"), "hiver"), ("\xe9t\xe9", "HIVER")),
        (("C", "C++"), ("C", "C++")),
    ],
    ids=["numbers", "spaces", "Unicode normalization", "punctuation"],
)
def test_class_names_may_be_written_differently(
    train: Run, tmp_path: Path, classes: tuple[str, ...], test_classes: tuple[str, ...]
) -> None:
    write_classes(tmp_path / "data/train", *classes)
    write_classes(tmp_path / "data/val", *test_classes)
    assert train(tmp_path / "data")["test_images"] == 4 * len(classes)


def test_names_that_differ_in_case_are_classes_with_a_warning(train: Run, tmp_path: Path) -> None:
    write_classes(tmp_path / "data", "Oak", "oak", "yew", count=10)
    with pytest.warns(SimpleNetWarning, match="Oak and oak are different classes; if they are not, merge"):
        assert train(tmp_path / "data")["test_images"] == 3


@pytest.mark.parametrize("output", ["out", "runs/a", "train/runs/a"])
@pytest.mark.parametrize("classes", ["", "train", "inner"])
def test_a_run_among_the_classes_is_no_class(
    tmp_path: Path, output: str, classes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_classes(tmp_path / classes, "oak", "yew")
    flags = ["--epochs", "1", "--batch", "4", "--fp32", "--size", "32", "--workers", "0", "--variant", "cifar-310k"]
    arguments = [str(tmp_path), *flags, "--output", str(tmp_path / output)]
    for resume in ([], ["--resume"]):
        assert imagefolder.main([*arguments, *resume]) == 0
    assert capsys.readouterr().out.count("top-1 on held-out 10 %") == 2
