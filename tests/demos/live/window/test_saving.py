"""Snapshots: written completely or not at all, and never over another file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from demos.live.sources.opencv import opencv
from demos.live.window.saving import save_snapshot
from simplenet.errors import SimpleNetError
from tests.demos.live.scenes import gray


def test_snapshots_of_one_second_have_different_names(tmp_path: Path) -> None:
    assert len({save_snapshot(tmp_path, gray()) for _ in range(5)}) == len(list(tmp_path.iterdir())) == 5


def test_snapshot_is_the_image_named_by_its_time(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    path = save_snapshot(tmp_path / "new" / "folder", image)
    cv2 = opencv()
    assert np.array_equal(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), image)
    stem, day, clock = path.stem.split("-")
    assert (stem, len(day), len(clock), path.suffix) == ("simplenet", 8, 6, ".png")
    assert list(path.parent.iterdir()) == [path]


def test_snapshot_on_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SimpleNetError, match="No space left on device"):
        save_snapshot(tmp_path, gray())
    assert list(tmp_path.iterdir()) == []


def test_snapshot_keeps_a_reserve_of_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 60, 40))
    with pytest.raises(SimpleNetError, match="the disk is nearly full"):
        save_snapshot(tmp_path, gray())
    assert list(tmp_path.iterdir()) == []


def test_snapshot_rejects_unwritable_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc/nowhere"), tmp_path / "nul\0"):
        with pytest.raises(SimpleNetError, match="choose a folder you can write to") as caught:
            save_snapshot(folder, gray())
        assert "\n" not in str(caught.value)
