/* What the loop and the source looked at come to. */

import { byId, keep, make, write } from "./dom.js";
import { count, milliseconds } from "./format.js";

/** `roundTrip`, in milliseconds, only while the visitor's own camera is shown. */
export function showFigures(state, source, roundTrip = null) {
  const age = source?.frame_age_p50_ms ?? null;
  const figures = [
    ["Loop FPS", state.loop_fps.toFixed(1), ""],
    ["Frame age p50", source?.is_live ? milliseconds(age) : "–", ageNote(source)],
    ["Frames", count(source?.frames ?? state.frames), ""],
    ["Dropped", source?.is_live ? count(source.dropped) : "–", ""],
    ["Reconnects", source?.is_live ? count(source.reconnects) : "–", ""],
  ];
  if (roundTrip !== null) figures.splice(1, 0, ["Round trip", milliseconds(roundTrip), ""]);
  keep(byId("figures"), figures, ([name]) => name, makeFigure, (figure, [, value, note]) => {
    write(figure.querySelector("b"), value);
    write(figure.querySelector("small"), note);
  });
}

function ageNote(source) {
  return source?.is_live && source.frame_age_p90_ms !== null ? `p90 ${milliseconds(source.frame_age_p90_ms)}` : "";
}

function makeFigure([name]) {
  return make("div", {}, make("dt", {}, name), make("dd", {}, make("b"), " ", make("small")));
}
