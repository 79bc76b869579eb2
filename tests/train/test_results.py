"""The training curve."""

from __future__ import annotations

from pathlib import Path

from train import results

LINE = {"epoch": 1, "train_loss": 1.0, "test_loss": 0.5, "test_top1": 90.0}


def test_draws_a_curve_with_any_title(tmp_path: Path) -> None:
    results.write_curve(tmp_path / "curve.png", "1.5m on 花 $x$", [LINE], 90.0)  # any warning would be an error here
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
