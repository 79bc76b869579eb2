"""Known datasets and files of class names."""

from __future__ import annotations

from pathlib import Path

import pytest

from simplenet import datasets, labels
from simplenet.errors import SimpleNetWarning, UsageError


@pytest.mark.parametrize(
    "content",
    [
        b"cat\ndog\nT-shirt/top\n",
        b"cat\r\ndog\r\nT-shirt/top\r\n\r\n",
        b"\xef\xbb\xbfcat\ndog\nT-shirt/top",
        "cat\r\ndog\r\nT-shirt/top\r\n".encode("utf-16"),
        b'["cat", "dog", "T-shirt/top"]',
        b'{"1": "dog", "0": "cat", "2": "T-shirt/top"}',
        b'{"cat": 0, "dog": 1, "T-shirt/top": 2}',
        b'{"0": ["n1", "cat"], "1": ["n2", "dog"], "2": ["n3", "T-shirt/top"]}',
        b'{"model_type": "timm", "id2label": {"0": "cat", "1": "dog", "2": "T-shirt/top"}, "label2id": {"cat": 0}}',
    ],
    ids=["lines", "CRLF", "BOM", "UTF-16", "list", "by index", "by name", "with ids", "Hugging Face"],
)
def test_reads_labels(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "labels").write_bytes(content)
    assert labels.read(tmp_path / "labels") == ("cat", "dog", "T-shirt/top")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"cat\n\ndog\n", "line 2 is empty"),
        (b"cat\xff\n", "can't decode"),
        (b"cat\x1b[31m\n", "not plain strings"),
        (b'{"1": "cat", "2": "dog"}', "no class '0'"),
        (b'{"0": 5.5}', "not plain strings"),
        (b'{"0": "cat", "1": "dog", "1": "fox"}', "'1' is there twice"),
        (b'{"id2label": {"0": "cat", "0": "dog"}}', "'0' is there twice"),
        (b'{"cat": 0, "dog": 1, "fox": 1}', "two names have the same number"),
        (b'{"0": ["n1"]}', "index out of range"),
        (b'{"0": "cat"', "delimiter"),
        (b"cat\ncat\ncat\n", "all 3 are the same"),
        (b"cat\n" * (1 << 20) + b"dog", "more than 4194304 characters"),
    ],
    ids=[
        "empty",
        "gap",
        "Latin-1",
        "control",
        "from 1",
        "number",
        "same key",
        "same id",
        "same number",
        "only ids",
        "cut",
        "equal",
        "huge",
    ],
)
def test_rejects_other_files_in_one_line(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(UsageError, match=rf"labels is not a list of labels \(.*{reason}.*write one on each") as caught:
        labels.read(tmp_path / "labels")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "command"),
    [
        ("0 cat|1 dog", "sed -E"),
        ("1: cat|2: dog|3: fox", "sed -E"),
        ("0,cat|1,dog", "sed -E"),
        ("id,name|n01,cat|n02,dog", "cut -d , -f COLUMN"),
        ("cat;0|dog;1", "cut -d ';' -f COLUMN"),
    ],
)
def test_warns_of_numbers_and_columns(lines: str, command: str, tmp_path: Path) -> None:
    names = lines.split("|")
    (tmp_path / "labels").write_text("\n".join(names), "utf-8")
    with pytest.warns(SimpleNetWarning, match=f"labels has .*, as in '{names[-1]}', .* type: {command}"):
        assert labels.read(tmp_path / "labels") == tuple(names)


@pytest.mark.parametrize("lines", ["0|1|2", "0.5 m|1.5 m", "5 cents|10 cents", "tench, Tinca|crane, bird", "a,b|c"])
def test_accepts_names_with_digits_and_commas(lines: str, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text(lines.replace("|", "\n"), "utf-8")
    assert labels.read(tmp_path / "labels") == tuple(lines.split("|"))


def test_rejects_unreadable_labels(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.txt"):
        with pytest.raises(UsageError, match=r"cannot read .*; name a file: --labels FILE"):
            labels.read(path)


def test_known_datasets_agree_with_the_shipped_cards() -> None:
    for name, variant in (("cifar10", "cifar-5m"), ("fashion-mnist", "cifar-310k"), ("mnist", "cifar-310k")):
        card, known = datasets.shipped_card(name, variant), labels.known_dataset(name)
        assert (card.labels, card.preprocessing) == (known.labels, known.preprocessing)
    assert [len(labels.known_dataset(name).labels) for name in labels.KNOWN_DATASETS] == [10, 100, 47, 10, 10, 10, 1000]
    assert labels.known_dataset("imagenet").class_ids[0] == "n01440764"
    with pytest.raises(UsageError, match="unknown dataset 'cifar-100', did you mean 'cifar100'"):
        labels.known_dataset("cifar-100")
