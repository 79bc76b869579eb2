"""All texts, figures and keys of the window and the page, formatted in one place.

state = session.state()
state["dashboard"]["models"][0]["p50"]      # '0.21 ms'
state["dashboard"]["sources"][0]["banner"]  # 'camera 0 is reconnecting: no frame for 5 s; showing its last image'
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import numpy as np

UNTRAINED = "UNTRAINED"
_UNTRAINED_NOTE = "random weights: latencies are real, predictions are meaningless"
_SCALE_STEPS = (1, 1.5, 2, 3, 5, 7, 10)
_SCALE_PERCENT, _SCALE_MARGIN = 90, 1.15


@dataclass(frozen=True)
class Key:
    """A key of the window and the page: its name in lower case, the session's command, and what it does in words."""

    key: str
    command: str
    label: str

    @property
    def name(self) -> str:
        """The name that is printed on the key."""
        return {"space": "Space", "escape": "Esc"}.get(self.key, self.key)


KEYS = (
    Key("space", "pause", "pause or continue"),
    Key("s", "snapshot", "save a snapshot"),
    Key("r", "record", "start or stop recording"),
    Key("b", "next-backend", "next backend"),
    Key("p", "next-precision", "next precision"),
    Key("h", "help", "show or hide this help"),
    Key("q", "quit", "quit"),
    Key("escape", "quit", "quit"),
)
COMMANDS = tuple(dict.fromkeys(key.command for key in KEYS))  # these take no value
SELECTIONS = ("backend", "precision", "variant")  # these take one
PAGE_COMMANDS = (*(command for command in COMMANDS if command not in ("help", "quit")), *SELECTIONS)
"""Commands that the page may send: it cannot end the demo, and it shows its own help."""
_PAGE_KEYS = [{**asdict(key), "name": key.name} for key in KEYS if key.command != "quit"]


class Figure(TypedDict):
    """A named value, such as `frame age p50`, `0.20 ms`, and a note such as `p90 0.31 ms`, often empty."""

    name: str
    value: str
    note: str


class ModelTexts(TypedDict):
    """The panel of one model. `sparkline`: latencies divided by the common scale, 0 to 1, oldest first."""

    name: str
    p50: str
    p90: str
    agreement: str
    device: str
    sparkline: list[float]


class SourceTexts(TypedDict):
    """What is shown of one source.

    `banner` covers its last image while no new ones come; '' while it runs. `crop` is the part of the image that the
    first model sees: left, top, right and bottom as shares of its width and height; None before the first image.
    """

    id: int
    name: str
    is_visitor: bool
    is_failing: bool
    facts: str
    note: str
    banner: str
    figures: list[Figure]
    crop: list[float] | None


class Dashboard(TypedDict):
    """The formatted texts of one state, JSON-serializable. Empty texts are ''.

    `status` is live, recording, paused or ended.
    """

    title: str
    status: str
    badges: list[str]
    untrained: str
    notice: str
    figures: list[Figure]
    scale: str
    models: list[ModelTexts]
    sources: list[SourceTexts]
    visitors: str
    keys: list[dict[str, str]]


def build(state: Mapping[str, Any]) -> Dashboard:
    """Format the measurements of `Session.state` for people; takes well under a tenth of a millisecond."""
    scale_ms = common_scale_ms([model["recent_infer_ms"] for model in state["models"]])
    weights = "random" if state["untrained"] else state["weights"]
    visitors = sum(source["kind"] == "visitor" for source in state["sources"])
    recording = state["recording"]
    status = "ended" if state["ended"] else "paused" if state["paused"] else "recording" if recording else "live"
    return {
        "title": "; ".join(filter(None, (f"{state['variant']}, {weights} weights", state["preprocessing_doubt"]))),
        "status": status,
        "badges": ([f"REC {clock(recording['seconds'])}"] if recording else []) + ["paused"] * state["paused"],
        "untrained": _UNTRAINED_NOTE if state["untrained"] else "",
        "notice": state["notice"] or "",
        "figures": [Figure(name="FPS", value=f"{state['loop_fps']:.1f}", note="")],
        "scale": f"{scale_ms:g} ms" if any(model["recent_infer_ms"] for model in state["models"]) else "",
        "models": [_model(model, scale_ms, place == 0) for place, model in enumerate(state["models"])],
        "sources": [_source(source) for source in state["sources"]],
        "visitors": f"{visitors} visitor camera{'s' if visitors > 1 else ''}, not shown" if visitors else "",
        "keys": _PAGE_KEYS,
    }


def common_scale_ms(recent_ms: Sequence[Sequence[float]]) -> float:
    """The top of all sparklines: a round number above the 90th percentile of every model's recent latencies."""
    highs = [sorted(samples)[math.ceil(_SCALE_PERCENT / 100 * len(samples)) - 1] for samples in recent_ms if samples]
    minimum = _SCALE_MARGIN * max(highs, default=1.0)
    if not (math.isfinite(minimum) and minimum > 0):
        return 1.0
    decade = 10.0 ** math.floor(math.log10(minimum))
    return next(step * decade for step in _SCALE_STEPS if step * decade >= minimum * 0.999)


def milliseconds(value_ms: float | None) -> str:
    """Three significant digits: '0.23 ms', '12.3 ms', '456 ms'; '-' without a value."""
    if value_ms is None:
        return "-"
    return f"{value_ms:.2f} ms" if value_ms < 10 else f"{value_ms:.1f} ms" if value_ms < 100 else f"{value_ms:.0f} ms"


def percent(share: float) -> str:
    """A probability as '98.2 %'."""
    return f"{100 * share:.1f} %"


def clock(seconds: float) -> str:
    """'01:12', or '1:02:03' from an hour on."""
    hours, minutes, seconds = int(seconds) // 3600, int(seconds) // 60 % 60, int(seconds) % 60
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"


def source_text(name: str, state: str, note: str | None) -> str:
    """The state of a source in words, with the reason if there is one: 'camera 0 is reconnecting: no frame for 5 s'."""
    if note and state == "failed" and name in note:
        return note
    text = f"{name} {'failed' if state == 'failed' else f'is {state}' if state == 'reconnecting' else state}"
    return f"{text}: {note.removeprefix(f'{name}: ')}" if note else text


def keys_help() -> list[tuple[str, str]]:
    """Keys and what they do, one row for each command: ('q, Esc', 'quit')."""
    names: dict[str, list[str]] = {}
    for key in KEYS:
        names.setdefault(key.label, []).append(key.name)
    return [(", ".join(each), label) for label, each in names.items()]


def _model(model: Mapping[str, Any], scale_ms: float, is_reference: bool) -> ModelTexts:
    agrees, threads = model["agrees_percent"], model["threads"]
    agreement = "reference" if is_reference else f"agreement {'-' if agrees is None else percent(agrees / 100)}"
    count = f"{threads} thread{'' if threads == 1 else 's'}"
    return {
        "name": model["name"],
        "p50": milliseconds(model["infer_p50_ms"]),
        "p90": milliseconds(model["infer_p90_ms"]),
        "agreement": agreement,
        "device": model["device"] if threads is None else f"{model['device']}, {count}",
        "sparkline": (np.array(model["recent_infer_ms"]) / scale_ms).clip(0, 1).round(3).tolist(),
    }


def _source(source: Mapping[str, Any]) -> SourceTexts:
    name, state, note, p90 = source["name"], source["state"], source["note"], source["frame_age_p90_ms"]
    size = f"{source['width']}x{source['height']}" if source["width"] else ""
    banner = "" if state == "running" else source_text(name, state, note)
    counts = ("frames", "dropped", "reconnects") if source["is_live"] else ("frames",)
    figures = [Figure(name=count, value=f"{source[count]:,}", note="") for count in counts]
    if source["is_live"]:
        age_p90 = "" if p90 is None else f"p90 {milliseconds(p90)}"
        age_p50 = milliseconds(source["frame_age_p50_ms"])
        figures.insert(0, Figure(name="frame age p50", value=age_p50, note=age_p90))
    return {
        "id": source["id"],
        "name": name,
        "is_visitor": source["kind"] == "visitor",
        "is_failing": state in ("reconnecting", "failed"),
        "facts": ", ".join(filter(None, (size, "" if state == "running" else state))),
        "note": note or "",
        "banner": f"{banner}; showing its last image" if state == "reconnecting" and source["frames"] else banner,
        "figures": figures,
        "crop": source["crop"],
    }
