/* What the tile "In this browser" looks like. It knows no model and no worker; it shows what it is told. */

import { make, write } from "../dom.js";
import { milliseconds, percent } from "../format.js";

const START = "Run in this browser";
const MOST_THREADS = 8;
const UNTRAINED = "UNTRAINED: random weights. The times are true, the answers mean nothing.";

/** Builds the tile; `onStart` and `onStop` are its button's two meanings. */
export function view(element, { onStart, onStop }) {
  addStyle();
  const provider = make("select", {}, option("wasm", "WASM"), option("webgpu", "WebGPU", true));
  const threads = threadChoice();
  const button = make("button", { type: "button" }, START);
  const status = make("p", { className: "muted", role: "status" }, "Nothing is loaded before you start it.");
  const error = make("p", { className: "trouble", role: "alert" });
  const untrained = make("p", { className: "notice" }, UNTRAINED);
  const note = make("p", { className: "muted" }, isolationNote());
  const answers = make("ol", { className: "answers" });
  const figures = make("dl", { className: "figures" });
  const heading = make("h2", { id: "browser-model-title" }, "In this browser");
  element.classList.add("card", "browser-model");
  element.setAttribute("aria-labelledby", heading.id);
  element.replaceChildren(
    make("header", { className: "title" }, heading, status),
    make("div", { className: "browser-model-controls" }, field("Run on", provider), field("Threads", threads), button),
    note,
    error,
    untrained,
    make("div", { className: "browser-model-results" }, answers, figures),
  );

  let isRunning = false;
  let about = [];
  button.addEventListener("click", () => (isRunning ? onStop() : onStart()));
  const restart = () => isRunning && onStart();
  provider.addEventListener("change", () => {
    threads.disabled = provider.value !== "wasm";
    restart();
  });
  threads.addEventListener("change", restart);
  reasonAgainstWebGpu().then((reason) => {
    provider.options[1].disabled = reason !== "";
    write(note, `${reason} ${isolationNote()}`.trim());
  });

  return {
    provider: () => provider.value,
    threads: () => Number(threads.value),

    showLoading() {
      isRunning = true;
      write(button, "Stop");
      write(status, "Loading. The server may have to export the model first, which takes seconds.");
      showError("");
      untrained.classList.remove("shown");
      answers.replaceChildren();
      figures.replaceChildren();
    },

    /** What was shown last stays, to be read; `reason` is why it was not the person who stopped it. */
    showStopped(reason = "") {
      isRunning = false;
      write(button, START);
      write(status, "Stopped.");
      showError(reason);
    },

    /** What the worker has loaded. */
    showModel({ manifest, threads: used, isolated, version, adapter, load_ms, first_infer_ms }) {
      write(status, `${manifest.variant}, weights ${manifest.weights.name}, ${manifest.precision}`);
      untrained.classList.toggle("shown", manifest.weights.source === "random");
      const where = adapter ?? `${used} thread${used === 1 ? "" : "s"}`;
      about = [
        ["Runs on", where, `onnxruntime-web ${version}${isolated ? "" : ", page not isolated"}`],
        ["Loaded in", milliseconds(load_ms), `first inference ${milliseconds(first_infer_ms)}`],
      ];
      figures.replaceChildren(...about.map(figure));
    },

    /** The latest answer, and the figures so far. */
    showAnswer({ predictions, preprocess, infer, compared, agreed, reference }) {
      showPredictions(answers, predictions);
      const agreement = compared > 0 ? ["Agrees", percent(agreed / compared), `of ${compared} with ${reference}`] : [];
      const rows = [latency("Model", infer), latency("Preprocessing", preprocess), agreement, ...about];
      figures.replaceChildren(...rows.filter((row) => row.length > 0).map(figure));
    },
  };

  function showError(text) {
    error.classList.toggle("shown", text !== "");
    write(error, text);
  }
}

function latency(name, samples) {
  const { n, p50, p90 } = samples.summary();
  return [name, milliseconds(p50), `p50 of ${n}; ${p90 === null ? "p90 needs 64" : `p90 ${milliseconds(p90)}`}`];
}

function figure([name, value, note]) {
  return make("div", {}, make("dt", {}, name), make("dd", {}, value, " ", make("small", {}, note)));
}

/** Labels come from a file that anybody may have written: they go in as text. */
function showPredictions(list, predictions) {
  while (list.children.length > predictions.length) list.lastChild.remove();
  predictions.forEach(({ label, probability }, place) => {
    const [name, share, bar] = (list.children[place] ?? list.appendChild(answer())).children;
    write(name, label);
    name.title = label;
    write(share, percent(probability));
    bar.firstChild.style.width = `${100 * probability}%`;
  });
}

function answer() {
  const bar = make("span", { className: "bar", ariaHidden: "true" }, make("i"));
  return make("li", {}, make("span", { className: "label" }), make("span", { className: "percent" }), bar);
}

function threadChoice() {
  const most = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS) : 1;
  const counts = Array.from({ length: most }, (_, index) => String(index + 1));
  const select = make("select", {}, ...counts.map((count) => option(count, count)));
  select.value = String(Math.min(Math.ceil(most / 2), 4)); // a hyperthread more is seldom a core more
  return select;
}

function isolationNote() {
  return self.crossOriginIsolated ? "" : "Only one thread: browsers allow more on localhost or over https.";
}

/** Why WebGPU cannot be chosen here, or "". */
async function reasonAgainstWebGpu() {
  if (!self.isSecureContext) return "No WebGPU: browsers allow it on localhost or over https only.";
  if (navigator.gpu === undefined) return "No WebGPU: this browser does not have it.";
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  return adapter === null ? "No WebGPU: this browser finds no GPU that it can use." : "";
}

function field(name, control) {
  return make("label", { className: "field" }, make("span", {}, name), control);
}

function option(value, text, disabled = false) {
  return make("option", { value, disabled }, text);
}

function addStyle() {
  const address = new URL("./model.css", import.meta.url).href;
  if (![...document.styleSheets].some(({ href }) => href === address)) {
    document.head.append(make("link", { rel: "stylesheet", href: address }));
  }
}
