/* Predictions as bars. Redrawn at most ten times a second, as fast as people read. */

import { byId, make, percent, write } from "./dom.js";

const REDRAW_MS = 100;

let selected = null; // the name of the model whose predictions are shown; null: the first one
let latest = [];
let drawnMs = -Infinity;
let timer = 0;

/** Shows [{label, probability}] as the items of a list. Labels come from a file, so they are inserted as text, not HTML. */
export function showPredictions(list, predictions) {
  while (list.children.length > predictions.length) list.lastChild.remove();
  predictions.forEach(({ label, probability }, place) => {
    const [name, share, bar] = (list.children[place] ?? list.appendChild(makeItem())).children;
    write(name, label);
    name.title = label;
    write(share, percent(probability));
    bar.firstChild.style.width = `${100 * probability}%`;
  });
}

/** Draws the results of one frame, [{name, predictions}] with one item per model, once `REDRAW_MS` have passed. */
export function showResults(results) {
  latest = results ?? [];
  timer ||= setTimeout(draw, Math.max(0, drawnMs + REDRAW_MS - performance.now()));
}

/** Shows another model's predictions from now on; null for the first model. */
export function selectModel(name) {
  selected = name;
  draw();
}

export const selectedModel = () => selected;

/** The result of the selected model, or null. */
export function selectedResult(results = latest) {
  return results?.find(({ name }) => name === selected) ?? results?.[0] ?? null;
}

function draw() {
  clearTimeout(timer);
  timer = 0;
  drawnMs = performance.now();
  const result = selectedResult();
  write(byId("predictions-model"), result?.name ?? "");
  const predictions = result?.predictions ?? [];
  showPredictions(byId("predictions"), predictions);
  write(byId("best"), predictions.length ? `${predictions[0].label}  ${percent(predictions[0].probability)}` : "");
}

function makeItem() {
  const bar = make("span", { className: "bar", ariaHidden: "true" }, make("i"));
  return make("li", {}, make("span", { className: "label" }), make("span", { className: "percent" }), bar);
}
