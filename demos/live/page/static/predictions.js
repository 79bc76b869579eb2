/* A model's top-k predictions as bars. */

import { make, write } from "./dom.js";
import { percent } from "./format.js";

/** Shows `predictions` in `list`, an <ol class="answers">. Labels are untrusted: they are inserted as text. */
export function showPredictions(list, predictions) {
  while (list.children.length > predictions.length) list.lastChild.remove();
  predictions.forEach((prediction, rank) => {
    const [label, share, bar] = (list.children[rank] ?? list.appendChild(makeRow())).children;
    write(label, prediction.label);
    label.title = prediction.label;
    write(share, percent(prediction.probability));
    bar.firstChild.style.width = `${100 * prediction.probability}%`;
  });
}

function makeRow() {
  const bar = make("span", { className: "bar", ariaHidden: "true" }, make("i"));
  return make("li", {}, make("span", { className: "label" }), make("span", { className: "percent" }), bar);
}
