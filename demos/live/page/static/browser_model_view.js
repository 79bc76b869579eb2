/* What the tile "In this browser" looks like. It knows no model and no worker; it shows what it is told. */

import { milliseconds } from "./browser_model_samples.js";

const MOST_THREADS = 8;

/** Builds the tile; `onStart` and `onStop` are its button's two meanings. */
export function view(element, { onStart, onStop }) {
  addStyle();
  const provider = make("select", { id: "browser-model-provider" });
  provider.append(option("wasm", "WASM"), option("webgpu", "WebGPU", true));
  const threads = make("select", { id: "browser-model-threads" });
  fillThreads(threads);
  const button = make("button", { type: "button", text: "Run in this browser" });
  const notes = make("p", { className: "browser-model-note", text: isolationNote() });
  const status = make("p", { className: "browser-model-status", text: "Nothing is loaded before you start it." });
  status.setAttribute("role", "status");
  const untrained = make("p", { className: "browser-model-untrained", hidden: true });
  untrained.textContent = "UNTRAINED: random weights. The times are true, the answers mean nothing.";
  const answers = make("ol", { className: "browser-model-answers" });
  const table = make("dl", { className: "browser-model-figures" });
  const heading = make("h2", { id: "browser-model-heading", text: "In this browser" });
  const controls = make("div", { className: "browser-model-controls" });
  controls.append(labelled("Run on", provider), labelled("Threads", threads), button);
  element.classList.add("browser-model");
  element.setAttribute("role", "region");
  element.setAttribute("aria-labelledby", heading.id);
  element.replaceChildren(heading, controls, notes, status, untrained, answers, table);

  let running = false;
  let about = [];
  button.addEventListener("click", () => (running ? onStop() : onStart()));
  const restart = () => running && onStart();
  provider.addEventListener("change", () => {
    threads.disabled = provider.value !== "wasm";
    restart();
  });
  threads.addEventListener("change", restart);
  reasonAgainstWebGpu().then((reason) => {
    provider.options[1].disabled = reason !== null;
    notes.textContent = [reason, notes.textContent].filter(Boolean).join(" ");
  });

  return {
    provider: () => provider.value,
    threads: () => Number(threads.value),

    show({ running: isRunning = running, status: text = "", error = null }) {
      running = isRunning;
      button.textContent = running ? "Stop" : "Run in this browser";
      status.textContent = error ?? text;
      status.classList.toggle("browser-model-error", error !== null);
      if (running) {
        untrained.hidden = true;
        answers.replaceChildren();
        table.replaceChildren();
      }
    },

    /** What the worker has loaded. */
    showModel({ manifest, threads: used, isolated, version, adapter, load_ms, first_infer_ms }) {
      status.textContent = `Running ${manifest.variant}, weights ${manifest.weights.name}, ${manifest.precision}.`;
      untrained.hidden = manifest.weights.source !== "random";
      const where = adapter === null ? plural(used, "thread") : adapter;
      about = [
        ["runs on", `onnxruntime-web ${version}, ${where}${isolated ? "" : ", page not isolated"}`],
        ["to load", `${milliseconds(load_ms)}, of which the first inference ${milliseconds(first_infer_ms)}`],
      ];
      fillFigures(table, about);
    },

    /** The latest answer, and the figures so far. */
    showAnswer({ predictions, preprocess, infer, compared, agreed, reference }) {
      fillAnswers(answers, predictions);
      fillFigures(table, [
        ["model", latency(infer)],
        ["preprocessing", latency(preprocess)],
        ["agrees", compared > 0 ? `${((100 * agreed) / compared).toFixed(1)} % of ${compared} with ${reference}` : "–"],
        ...about,
      ]);
    },
  };
}

function latency(samples) {
  const { n, p50, p90 } = samples.summary();
  return `p50 ${milliseconds(p50)}, ${p90 === null ? "p90 needs 64" : `p90 ${milliseconds(p90)}`}, n ${n}`;
}

function fillThreads(threads) {
  const most = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS) : 1;
  for (let count = 1; count <= most; count++) {
    threads.append(option(String(count), String(count)));
  }
  threads.value = String(Math.min(most, 4));
}

function isolationNote() {
  return self.crossOriginIsolated ? "" : "Only one thread: browsers allow more on localhost or over https.";
}

/** Why WebGPU cannot be chosen here, or null. */
async function reasonAgainstWebGpu() {
  if (!self.isSecureContext) {
    return "No WebGPU: browsers allow it on localhost or over https only.";
  }
  if (navigator.gpu === undefined) {
    return "No WebGPU: this browser does not have it.";
  }
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  return adapter === null ? "No WebGPU: this browser finds no GPU that it can use." : null;
}

function fillAnswers(list, predictions) {
  while (list.children.length > predictions.length) {
    list.lastChild.remove();
  }
  predictions.forEach(({ label, probability }, place) => {
    const item = list.children[place] ?? list.appendChild(answer());
    const [name, bar, percent] = item.children;
    name.textContent = label;
    bar.value = probability;
    percent.textContent = `${(100 * probability).toFixed(1)} %`;
  });
}

function answer() {
  const item = make("li", {});
  const bar = make("progress", { max: 1 });
  bar.setAttribute("aria-hidden", "true"); // the number beside it says the same
  item.append(make("span", { className: "browser-model-label" }), bar, make("span", { className: "browser-model-percent" }));
  return item;
}

function fillFigures(table, rows) {
  table.replaceChildren(...rows.flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value })]));
}

function labelled(text, control) {
  const label = make("label", { text, htmlFor: control.id });
  label.append(control);
  return label;
}

function option(value, text, disabled = false) {
  return make("option", { value, text, disabled });
}

/** Text goes in as text: labels come from a file that anybody may have written. */
function make(tag, { text = "", ...properties }) {
  const element = Object.assign(document.createElement(tag), properties);
  element.textContent = text;
  return element;
}

function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function addStyle() {
  const address = new URL("./browser_model.css", import.meta.url).href;
  if (![...document.styleSheets].some(({ href }) => href === address)) {
    document.head.append(make("link", { rel: "stylesheet", href: address }));
  }
}
