/* A tile for each model: how long it took of late, on one scale for all, and whether it agrees with the first. */

import { choose, chosenModel, shown } from "./answers.js";
import { byId, keep, make, write } from "./dom.js";
import { milliseconds, percent } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 40;

const list = byId("models");

export function showModels(models, answers) {
  if (!models.some((model) => model.name === chosenModel())) choose(null);
  const top = scaleOf(models);
  write(byId("scale"), models.some((model) => model.recent_infer_ms.length) ? `of late, 0 to ${milliseconds(top)}` : "");
  const key = (model) => model.name;
  keep(list, models, key, makeTile, (tile, model) => fill(tile, model, top, answers, models.length > 1));
}

/** The answers of a frame, between two states: what each model says. */
export function showSayings(answers) {
  for (const tile of list.children) write(tile.querySelector(".says"), saying(tile.dataset.key, answers));
}

/** A round number that nearly all recent latencies stay under, the same for every tile. */
function scaleOf(models) {
  const all = models.flatMap((model) => model.recent_infer_ms).sort((a, b) => a - b);
  const high = 1.15 * (all[Math.floor(0.97 * (all.length - 1))] ?? 1) || 1;
  const unit = 10 ** Math.floor(Math.log10(high));
  return unit * [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((step) => step * unit >= high);
}

function makeTile(model) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const y of [0.5, HEIGHT / 2, HEIGHT - 0.5]) {
    const line = document.createElementNS(SVG, "line");
    Object.entries({ x1: 0, x2: WIDTH, y1: y, y2: y }).forEach(([name, value]) => line.setAttribute(name, value));
    svg.append(line);
  }
  svg.append(document.createElementNS(SVG, "polyline"));
  const button = make("button", { type: "button", title: "Show this model’s answers" }, model.name);
  button.addEventListener("click", () => choose(model.name));
  return make(
    "li",
    { className: "tile" },
    make("div", {}, make("h3", {}, button), make("span", { className: "big" }, make("small", {}, "p50 "), make("b"))),
    svg,
    make("div", {}, make("span", { className: "says" }), make("span", { className: "facts" })),
  );
}

function fill(tile, model, top, answers, severalModels) {
  const [button, latency, line, says, facts] = ["button", "b", "polyline", ".says", ".facts"].map((part) =>
    tile.querySelector(part),
  );
  const isChosen = severalModels && shown(answers)?.name === model.name;
  button.disabled = !severalModels;
  button.setAttribute("aria-pressed", String(isChosen));
  tile.classList.toggle("chosen", isChosen);
  write(latency, milliseconds(model.infer_p50_ms));
  line.setAttribute("points", points(model.recent_infer_ms, top));
  write(says, saying(model.name, answers));
  const agreement = severalModels ? [agreementOf(model)] : [];
  const threads = model.threads === null ? [] : [`${model.threads} thread${model.threads === 1 ? "" : "s"}`];
  write(facts, [`p90 ${milliseconds(model.infer_p90_ms)}`, ...agreement, model.device, ...threads].join(" · "));
}

function agreementOf(model) {
  return model.agrees_percent === null ? "reference" : `agrees ${percent(model.agrees_percent / 100)}`;
}

function saying(name, answers) {
  const answer = answers?.find((candidate) => candidate.name === name);
  if (!answer?.predictions.length) return "";
  return `${answer.agrees === false ? "≠ " : ""}${answer.predictions[0].label}`;
}

function points(samples, top) {
  const step = WIDTH / Math.max(1, samples.length - 1);
  return samples.map((sample, at) => `${(at * step).toFixed(1)},${y(sample, top)}`).join(" ");
}

function y(sample, top) {
  return (HEIGHT - (HEIGHT - 1) * Math.min(1, sample / top)).toFixed(1);
}
