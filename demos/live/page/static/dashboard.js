/* Draws the dashboard of the server's state: title, figures, models and sources. The server formats all texts. */

import { byId, syncChildren, make, write } from "./dom.js";
import { selectedModel, selectedResult, selectModel } from "./predictions.js";

const [WIDTH, HEIGHT] = [300, 40]; // of a sparkline
const PANEL = `
  <div><h3><button type="button" title="Show this model’s predictions"></button></h3>
    <span class="latency"><small>p50 </small><b></b></span></div>
  <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" aria-hidden="true"><polyline></polyline></svg>
  <div><span class="first"></span><span class="p90"></span></div>
  <p class="facts"></p>`;

export function showTitle({ title, untrained, keys }) {
  write(byId("title"), title);
  byId("untrained").hidden = untrained === "";
  write(byId("untrained").querySelector("small"), untrained);
  const terms = keys.flatMap(({ name, label }) => [{ kbd: name }, { text: label }]);
  syncChildren(byId("key-list"), terms, (term) => term.kbd ?? term.text, makeTerm, () => {});
}

/** Shows one status: "connecting" or "not connected", else badges such as "REC 01:12", else the state of the demo. */
export function showStatus(isConnected, dashboard) {
  const isLive = ["live", "recording"].includes(dashboard?.status);
  const status = dashboard ? dashboard.badges.join(", ") || dashboard.status : "connecting";
  write(byId("status"), isConnected === false ? "not connected" : status);
  byId("status").dataset.kind = isConnected === false ? "lost" : isLive ? "live" : "waiting";
}

/** Shows [{name, value, note}] in a <dl>. */
export function showFigures(list, figures) {
  const create = ({ name }) => make("div", {}, make("dt", {}, name), make("dd", {}, make("b"), " ", make("small")));
  syncChildren(list, figures, ({ name }) => name, create, (figure, { value, note }) => {
    write(figure.querySelector("b"), value);
    write(figure.querySelector("small"), note);
  });
}

export function showModels({ models, scale }, results) {
  if (!models.some(({ name }) => name === selectedModel())) selectModel(null);
  write(byId("scale"), scale && `recent frames, 0 to ${scale}`);
  const shown = models.length > 1 ? selectedResult(results)?.name : null;
  syncChildren(byId("models"), models, ({ name }) => name, makePanel, (panel, model) => {
    const parts = ["button", "b", "polyline", ".p90", ".facts"].map((selector) => panel.querySelector(selector));
    const [button, latency, line, p90, facts] = parts;
    button.disabled = models.length === 1;
    button.setAttribute("aria-pressed", String(model.name === shown));
    panel.classList.toggle("selected", model.name === shown);
    write(latency, model.p50);
    const step = WIDTH / Math.max(1, model.sparkline.length - 1);
    const points = model.sparkline.map((share, at) => `${(at * step).toFixed(1)},${(HEIGHT - (HEIGHT - 1) * share).toFixed(1)}`);
    line.setAttribute("points", points.join(" "));
    write(p90, `p90 ${model.p90}`);
    write(facts, `${model.agreement} · ${model.device}`);
  });
  showFirstPredictions(results);
}

/** The first prediction of every model, marked where it differs from the reference model's. */
export function showFirstPredictions(results) {
  for (const panel of byId("models").children) {
    const result = results?.find(({ name }) => name === panel.dataset.key);
    const mark = result?.agrees === false ? "≠ " : "";
    write(panel.querySelector(".first"), result?.predictions.length ? mark + result.predictions[0].label : "");
  }
}

/** `onLook(id)` is called when the person selects another source. */
export function showSources({ sources, visitors }, lookingAt, onLook) {
  write(byId("visitors"), visitors);
  const create = ({ id }) => {
    const radio = make("input", { type: "radio", name: "source" });
    radio.addEventListener("change", () => onLook(id));
    const label = make("label", {}, radio, make("span", { className: "name" }));
    return make("li", {}, label, make("span", { className: "facts" }), make("p", { className: "note" }));
  };
  const own = sources.filter((source) => !source.is_visitor);
  syncChildren(byId("sources"), own, ({ id }) => id, create, (row, source) => {
    row.querySelector("input").checked = source.id === lookingAt;
    for (const part of ["name", "facts", "note"]) write(row.querySelector(`.${part}`), source[part]);
    row.querySelector(".facts").classList.toggle("failing", source.is_failing);
  });
}

function makeTerm({ kbd, text }) {
  return kbd === undefined ? make("dd", {}, text) : make("dt", {}, make("kbd", {}, kbd));
}

function makePanel({ name }) {
  const panel = make("li", { className: "panel", innerHTML: PANEL });
  write(panel.querySelector("button"), name);
  panel.querySelector("button").addEventListener("click", () => selectModel(name));
  return panel;
}
