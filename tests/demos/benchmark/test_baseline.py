"""Saved results, and the comparison of a new run with them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from demos.benchmark import baseline, results
from demos.benchmark.statistics import unpaired_ratio
from simplenet.errors import DataError
from tests.conftest import MakeArtifact
from tests.demos.benchmark.comparisons import compared, rows_with
from tests.demos.conftest import RunDemo

NOISY = [1.0, 1.1, 0.95, 1.02, 0.98, 1.05, 1.0, 0.97]


@pytest.fixture
def saved(make_artifact: MakeArtifact) -> dict[str, Any]:
    """Results of two rows, a and b."""
    rows = rows_with(make_artifact("onnx", "fp32"), a=NOISY, b=[2 * ms for ms in NOISY])
    values = compared(rows, machine={"processor": "some", "logical_cores": 2}).to_json()
    copied: dict[str, Any] = json.loads(json.dumps(values))
    return copied


def slower(saved: dict[str, Any], factor: float) -> dict[str, Any]:
    """The same results with row a slower."""
    now = copy.deepcopy(saved)
    stages = now["rows"][0]["timings"]["stages_ms"]
    stages["inference"] = [[sample * factor for sample in samples] for samples in stages["inference"]]
    return now


def test_saved_results_are_read_again(saved: dict[str, Any], tmp_path: Path) -> None:
    results.save(saved, tmp_path / "results.json")
    assert results.read(tmp_path / "results.json") == saved
    assert list(tmp_path.iterdir()) == [tmp_path / "results.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("", "truncated or no JSON"),
        ('{"schema_version": 2, "rows": [{"backend"', "truncated or no JSON"),
        ("[" * 100_000, "truncated or no JSON"),
        ("[1, 2]", "is no results file"),
        ('"text"', "is no results file"),
        ('{"rows": []}', "is no results file"),
        ('{"schema_version": 1, "rows": []}', "has the schema version 1, this is 2; measure again"),
        ('{"schema_version": 2, "rows": [7]}', "is damaged"),
        ('{"schema_version": 2}', "is damaged"),
    ],
)
def test_refuses_other_files(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        results.read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_refuses_results_without_samples(saved: dict[str, Any], tmp_path: Path) -> None:
    for samples in ([], [[]], [[1.0, -1.0]], [["1"]], None):
        saved["rows"][0]["timings"]["stages_ms"]["inference"] = samples
        (tmp_path / "results.json").write_text(json.dumps(saved))
        with pytest.raises(DataError, match="is damaged"):
            results.read(tmp_path / "results.json")


def test_slower_row_is_found(saved: dict[str, Any]) -> None:
    unchanged, other = baseline.changes(saved, saved)
    assert (unchanged.name, other.name) == ("a fp32", "b fp32")
    assert unchanged.verdict == other.verdict == "no difference"
    slow, same = baseline.changes(saved, slower(saved, 1.5))
    assert slow.verdict == "slower"
    assert slow.ratio.value == pytest.approx(1.5)
    assert slow.is_slower_than(5)
    assert not slow.is_slower_than(60)
    assert not same.is_slower_than(5)
    fast, _ = baseline.changes(saved, slower(saved, 0.5))
    assert fast.verdict == "faster"
    assert not fast.is_slower_than(5)


def test_slower_within_the_noise_floor_does_not_count(saved: dict[str, Any]) -> None:
    now = slower(saved, 1.5)
    now["noise"] = 1.0
    assert not baseline.changes(saved, now)[0].is_slower_than(5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda now: now["machine"].update(processor="other"), "processor was some, and is other"),
        (lambda now: now["machine"].update(governor="powersave"), "governor was None, and is powersave"),
        (lambda now: now.update(threads=4), "threads was 1, and is 4"),
        (lambda now: now.update(frame="8x8 RGB"), "frame was 1x1 RGB, and is 8x8 RGB"),
        (lambda now: now["rows"][1]["manifest"].update(files={"model.onnx": "0"}), "artifact of b fp32 was "),
        (lambda now: now["rows"][0]["description"].update(device="a GPU"), "device of a fp32 was CPU, and is a GPU"),
        (lambda now: [row.update(precision="int8") for row in now["rows"]], "no row was measured in both"),
    ],
)
def test_other_conditions_are_not_comparable(saved: dict[str, Any], change: Any, reason: str) -> None:
    assert baseline.not_comparable(saved, saved) == []
    now = copy.deepcopy(saved)
    change(now)
    (found,) = baseline.not_comparable(saved, now)
    assert found.startswith(reason)


def test_package_versions_may_differ(saved: dict[str, Any]) -> None:
    now = copy.deepcopy(saved)
    now["rows"][0]["description"]["versions"] = {"onnxruntime": "99"}
    assert baseline.not_comparable(saved, now) == []


def test_unpaired_ratio_needs_no_common_rounds() -> None:
    interval = unpaired_ratio([[2.0, 2.0]] * 7, [[1.0]] * 9)
    assert (interval.value, interval.low, interval.high) == pytest.approx((2, 2, 2))
    assert unpaired_ratio([[2.0]] * 5, [[1.0]] * 9).low is None


@pytest.mark.slow
def test_exit_codes_of_a_comparison_with_a_baseline(
    run_demo: RunDemo, make_artifact: MakeArtifact, tmp_path: Path
) -> None:
    root, path = make_artifact("onnx", "fp32").folder.parents[1], tmp_path / "before.json"
    flags = ["--backend", "onnxruntime", "--precision", "fp32", "--artifacts", root, "--limit", "20", "--samples", "24",
             "--rounds", "6", "--threads", "1", "--no-twin"]  # fmt: skip
    first = run_demo("compare", *flags, "--save", path)
    assert first.returncode == 0, first.stderr
    assert json.loads(path.read_text())["twin"] is None
    now = json.loads(path.read_text())
    stages = now["rows"][0]["timings"]["stages_ms"]
    stages["inference"] = [[sample / 1000 for sample in samples] for samples in stages["inference"]]
    path.write_text(json.dumps(now))
    second = run_demo("compare", *flags, "--baseline", path, "--fail-above", "5%")
    assert second.returncode == 3
    assert "onnxruntime fp32 is slower than the baseline by more than 5 %: " in second.stderr.splitlines()[-1]
    assert "slower" in second.stdout.splitlines()[-2]
    assert run_demo("compare", *flags, "--baseline", path).returncode == 0
    now["threads"] = 2
    path.write_text(json.dumps(now))
    third = run_demo("compare", *flags, "--baseline", path, "--fail-above", "5%")
    assert third.returncode == 4
    assert third.stderr.splitlines()[-1].startswith(f"not comparable with {path}: threads was 2, and is 1; ")


def test_wrong_baseline_fails_before_the_measurement(run_demo: RunDemo, tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"schema')
    result = run_demo("compare", "--baseline", tmp_path / "half.json")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    result = run_demo("compare", "--fail-above", "5%")
    assert result.returncode == 2
    assert "add --baseline FILE.json" in result.stderr


def test_diff_has_ratios_only_for_one_machine(run_demo: RunDemo, saved: dict[str, Any], tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    results.save(saved, first)
    results.save(slower(saved, 1.5), second)
    result = run_demo("compare", "--diff", first, second)
    assert result.returncode == 0
    assert "1.50 [1." in result.stdout
    other = slower(saved, 1.5)
    other["machine"]["processor"] = "another"
    results.save(other, second)
    result = run_demo("compare", "--diff", first, second)
    assert result.returncode == 0
    assert [line.split()[:2] for line in result.stdout.splitlines() if "fp32" in line] == [["a", "fp32"], ["b", "fp32"]]
    assert "no ratio: processor was some, and is another" in result.stdout
    assert "[" not in result.stdout
    result = run_demo("compare", "--diff", first, tmp_path / "none.json")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)


def test_row_that_is_no_longer_measured_is_not_comparable(saved: dict[str, Any]) -> None:
    now = copy.deepcopy(saved)
    now["rows"][1] |= {"stages": None, "timings": None, "reason": "b is not installed"}
    assert baseline.not_comparable(saved, now) == ["b fp32 is not measured now (b is not installed)"]
    del now["rows"][1]  # it was not requested
    assert baseline.not_comparable(saved, now) == []


def test_diff_can_fail_above_a_limit(run_demo: RunDemo, saved: dict[str, Any], tmp_path: Path) -> None:
    results.save(saved, tmp_path / "first.json")
    results.save(slower(saved, 1.5), tmp_path / "second.json")
    files = [tmp_path / "first.json", tmp_path / "second.json"]
    assert run_demo("compare", "--diff", *files, "--fail-above", "60%").returncode == 0
    result = run_demo("compare", "--diff", *files, "--fail-above", "5%")
    assert result.returncode == 3
    assert "a fp32 is slower than the baseline by more than 5 %" in result.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mode", "cold", "--baseline", "a.json"], "--mode cold does not use --baseline"),
        (["--mode", "stream", "--recommend", "--max-p99-ms", "1"], "does not use --max-p99-ms, --recommend"),
        (["--mode", "soak", "--report", "a.html"], "--mode soak does not use --report"),
        (["--diff", "a.json", "b.json", "--json"], "--diff does not use --json"),
        (["--diff", "a.json", "b.json", "--save", "c.json"], "--diff does not use --save"),
    ],
)
def test_flags_without_effect_are_refused(run_demo: RunDemo, flags: list[str], message: str) -> None:
    result = run_demo("compare", *flags)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr
