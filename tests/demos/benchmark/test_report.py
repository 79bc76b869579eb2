"""The HTML report of a comparison, as a browser shows it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from demos.benchmark import report
from demos.benchmark.comparison import Comparison, Row
from tests.conftest import MakeArtifact
from tests.demos.benchmark.comparisons import compared, rows_with
from tests.demos.conftest import RunDemo
from tests.demos.live.conftest import CHROMIUM, FLAGS


@pytest.fixture
def comparison(make_artifact: MakeArtifact) -> Comparison:
    rows = rows_with(make_artifact("onnx", "fp32"), torch=[2.0] * 8, onnxruntime=[0.5] * 8, openvino=[0.5, 0.4] * 4)
    rows[1].top1_percent = 89.0
    (twin,) = rows_with(make_artifact("onnx", "fp32"), openvino=[0.51, 0.41] * 4)
    twin.is_twin = True
    rows.append(Row("tensorrt", "fp32", reason="needs an NVIDIA GPU"))
    return compared(rows, twin=twin, machine={"processor": "A <b>processor</b>", "system": "Linux"})


def embedded(text: str) -> object:
    found = re.search(r'<script type="application/json" id="results">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_report_has_numbers_and_raw_samples(comparison: Comparison, tmp_path: Path) -> None:
    comparison = dataclasses.replace(comparison, images='folder "</script><script>alert(1)</script>"')
    report.write(comparison, tmp_path / "report.html", ["compare.py", "--image", "a b&c"])
    text = (tmp_path / "report.html").read_text()
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]
    assert embedded(text) == json.loads(json.dumps(comparison.to_json()))
    assert "compare.py --image &#x27;a b&amp;c&#x27;" in text
    assert "A &lt;b&gt;processor&lt;/b&gt;" in text
    assert "alert(1)</script>" not in text
    assert text.count("<svg") == 5
    assert "<td>needs" not in text
    assert "tensorrt fp32: needs an NVIDIA GPU" in text


def test_report_of_one_row_without_labels(make_artifact: MakeArtifact, tmp_path: Path) -> None:
    (row,) = rows_with(make_artifact("onnx", "fp32"), onnxruntime=[0.5])
    row.top1_percent = None
    report.write(dataclasses.replace(compared([row]), labeled=False), tmp_path / "report.html", ["compare.py"])
    assert "agreement with onnxruntime fp32 (%)" in (tmp_path / "report.html").read_text()


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (1100, "dark"), (390, "light")])
def test_report_in_a_browser(comparison: Comparison, tmp_path: Path, width: int, scheme: str) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install '.[dev]'")
    report.write(comparison, tmp_path / "report.html", ["compare.py"])
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("request", lambda request: problems.append(request.url) if "file:" not in request.url else None)
        page.goto(f"file://{tmp_path}/report.html")
        assert problems == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        color = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
        assert (color == "rgb(230, 233, 237)") == (scheme == "dark")
        for name in ("torch fp32", "onnxruntime fp32", "openvino fp32"):
            assert page.locator("svg text", has_text=name).first.is_visible()
        assert page.locator("tr").count() == 5


@pytest.mark.parametrize("flag", ["--report", "--plot", "--save"])
def test_unwritable_file_fails_before_the_measurement(run_demo: RunDemo, flag: str) -> None:
    suffix = {"--report": "html", "--plot": "png", "--save": "json"}[flag]
    result = run_demo("compare", flag, f"/nowhere/out.{suffix}")
    assert result.returncode == 2
    assert result.stderr == (
        f"error: cannot write /nowhere/out.{suffix}: no folder that you can write to; name another file\n"
    )
