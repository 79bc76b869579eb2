"""The dashboard's texts follow from the session's state alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos.live import dashboard
from demos.live.dashboard import Dashboard, Figure
from tests.demos.live.scenes import make_state, model_state, source_state


def build(**changes: object) -> Dashboard:
    return dashboard.build(make_state(**changes))  # type: ignore[arg-type]


def texts(figures: list[Figure]) -> dict[str, str]:
    return {figure["name"]: f"{figure['value']} {figure['note']}".strip() for figure in figures}


def test_title_names_variant_and_weights() -> None:
    assert build()["title"] == "cifar-310k, fashion-mnist weights"
    assert build()["untrained"] == ""
    untrained = build(untrained=True, weights="random")
    assert untrained["title"] == "cifar-310k, random weights"
    assert "meaningless" in untrained["untrained"]
    assumed = build(preprocessing_doubt="preprocessing: assumed for cifar-310k")
    assert assumed["title"] == "cifar-310k, fashion-mnist weights; preprocessing: assumed for cifar-310k"


@pytest.mark.parametrize(
    ("changes", "status", "badges"),
    [
        ({}, "live", []),
        ({"paused": True}, "paused", ["paused"]),
        ({"recording": {"path": "a.mp4", "seconds": 72.9}}, "recording", ["REC 01:12"]),
        ({"recording": {"path": "a.mp4", "seconds": 3723.0}, "paused": True}, "paused", ["REC 1:02:03", "paused"]),
        ({"ended": "q"}, "ended", []),
    ],
)
def test_status_and_badges(changes: dict[str, object], status: str, badges: list[str]) -> None:
    found = build(**changes)
    assert (found["status"], found["badges"]) == (status, badges)


def test_models_have_latency_and_agreement() -> None:
    found = build(models=[model_state(), model_state("openvino int8", reference=False, threads=1, infer_p90_ms=12.34)])
    first, second = found["models"]
    assert (first["p50"], first["p90"], first["agreement"]) == ("0.21 ms", "-", "reference")
    assert (second["p90"], second["agreement"]) == ("12.3 ms", "agreement 99.5 %")
    assert (first["device"], second["device"]) == ("cpu, 2 threads", "cpu, 1 thread")
    assert found["scale"] == "0.3 ms"
    assert first["sparkline"] == [0.667, 0.833, 0.667]


def test_live_sources_have_age_and_drops() -> None:
    (live,) = build(sources=[source_state(frame_age_p90_ms=0.31, frames=1234)])["sources"]
    expected = {"frame age p50": "0.20 ms p90 0.31 ms", "frames": "1,234", "dropped": "3", "reconnects": "0"}
    assert texts(live["figures"]) == expected
    (file,) = build(sources=[source_state(is_live=False, frame_age_p50_ms=None)])["sources"]
    assert texts(file["figures"]) == {"frames": "10"}
    assert live["facts"] == "640x480"


@pytest.mark.parametrize(
    ("state", "note", "banner"),
    [
        ("running", "a.png: cannot read it", ""),
        ("reconnecting", "no frame for 5 s", "camera 0 is reconnecting: no frame for 5 s; showing its last image"),
        ("reconnecting", None, "camera 0 is reconnecting; showing its last image"),
        ("failed", "camera 0 gave no frame for 60 s", "camera 0 gave no frame for 60 s"),
        ("failed", "no such device", "camera 0 failed: no such device"),
        ("failed", None, "camera 0 failed"),
        ("ended", None, "camera 0 ended"),
    ],
)
def test_states_of_sources_in_words(state: str, note: str | None, banner: str) -> None:
    (source,) = build(sources=[source_state(state=state, note=note)])["sources"]
    assert source["banner"] == banner
    assert source["is_failing"] == (state in ("reconnecting", "failed"))
    assert source["note"] == (note or "")


def test_visitors_are_counted() -> None:
    visitors = [source_state(number, kind="visitor") for number in range(1, 3)]
    assert build()["visitors"] == ""
    found = build(sources=[source_state(), *visitors])
    assert found["visitors"] == "2 visitor cameras, not shown"
    assert [source["is_visitor"] for source in found["sources"]] == [False, True, True]


@settings(max_examples=100)
@given(st.lists(st.lists(st.floats(1e-4, 1e4), max_size=30), max_size=4))
def test_common_scale_is_round_and_covers_nearly_all(latencies_ms: list[list[float]]) -> None:
    scale_ms = dashboard.common_scale_ms(latencies_ms)
    assert float(f"{scale_ms:.1e}") == pytest.approx(scale_ms)
    highs = [float(np.percentile(one, 90, method="inverted_cdf")) for one in latencies_ms if one]
    assert max(highs, default=1.0) <= scale_ms <= 2.5 * max(highs, default=1.0)
    models = [model_state(recent_infer_ms=one) for one in latencies_ms]
    found = build(models=models)
    assert all(0 <= share <= 1 for model in found["models"] for share in model["sparkline"])
    assert json.loads(json.dumps(found)) == found


def test_one_slow_frame_does_not_flatten_the_rest() -> None:
    assert dashboard.common_scale_ms([[0.2] * 59 + [80.0]]) < 0.5
    assert dashboard.common_scale_ms([[float("nan")], [0.0]]) == 1.0


@pytest.mark.parametrize(("value_ms", "text"), [(None, "-"), (0.234, "0.23 ms"), (12.34, "12.3 ms"), (456.7, "457 ms")])
def test_milliseconds_have_three_digits(value_ms: float | None, text: str) -> None:
    assert dashboard.milliseconds(value_ms) == text


def test_keys_are_unique_and_the_page_cannot_quit() -> None:
    keys = [key.key for key in dashboard.KEYS]
    assert len(set(keys)) == len(keys)
    assert "quit" not in {key["command"] for key in build()["keys"]}
    assert {"quit", "help"}.isdisjoint(dashboard.PAGE_COMMANDS)
    assert ("q, Esc", "quit") in dashboard.keys_help()
