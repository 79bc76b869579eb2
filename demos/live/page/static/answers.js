/* The five best answers of one model as bars. Redrawn ten times a second at most: more cannot be read. */

import { byId, write } from "./dom.js";
import { showPredictions } from "./predictions.js";

const REDRAW_MS = 100;

const list = byId("answers");
let chosen = null; // the model whose answers are shown; null: the first
let newest = null;
let drawnMs = -Infinity;
let timer = 0;

export function showAnswers(answers) {
  newest = answers;
  if (timer) return;
  timer = setTimeout(draw, Math.max(0, drawnMs + REDRAW_MS - performance.now()));
}

/** Shows another model's answers from now on; null for the first. */
export function choose(name) {
  chosen = name;
  if (newest) draw();
}

export const chosenModel = () => chosen;

/** The answers as shown: {name, predictions}, or null. */
export function shown(answers = newest) {
  return answers?.find((answer) => answer.name === chosen) ?? answers?.[0] ?? null;
}

function draw() {
  clearTimeout(timer);
  timer = 0;
  drawnMs = performance.now();
  const answer = shown();
  write(byId("answers-of"), answer?.name ?? "");
  showPredictions(list, answer?.predictions ?? []);
}
