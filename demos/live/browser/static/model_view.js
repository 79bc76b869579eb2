/* The elements of the tile "In this browser". */

import { showFigures } from "../dashboard.js";
import { make, milliseconds, percent, write } from "../dom.js";
import { showPredictions } from "../predictions.js";

const START = "Run in this browser";
const MAX_THREADS = 8;
const SAMPLES_FOR_P90 = 64; // MLPerf LoadGen's rule, as in runtimes/timing.py
const UNTRAINED = "UNTRAINED: random weights. The latencies are valid, the predictions are not.";

/** Builds the tile. Its button calls `onStart`, or `onStop` while the model runs. */
export function makeView(element, { onStart, onStop }) {
  const provider = make("select", {}, option("wasm", "WASM"), option("webgpu", "WebGPU", true));
  const threads = makeThreadSelect();
  const button = make("button", { type: "button" }, START);
  const status = make("p", { className: "muted", role: "status" }, "Nothing is loaded before you start it.");
  const error = make("p", { className: "error", role: "alert" });
  const untrained = make("p", { className: "notice" }, UNTRAINED);
  const note = make("p", { className: "muted" }, isolationNote());
  const predictionList = make("ol", { className: "predictions" });
  const figureList = make("dl", { className: "figures" });
  const heading = make("h2", { id: "browser-model-title" }, "In this browser");
  element.classList.add("card", "browser-model");
  element.setAttribute("aria-labelledby", heading.id);
  element.replaceChildren(
    make("header", { className: "title" }, heading, status),
    make("div", { className: "browser-model-controls" }, field("Run on", provider), field("Threads", threads), button),
    note,
    error,
    untrained,
    make("div", { className: "browser-model-results" }, predictionList, figureList),
  );

  let isRunning = false;
  let modelFigures = [];
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

  function showError(text) {
    error.classList.toggle("shown", text !== "");
    write(error, text);
  }

  return {
    provider: () => provider.value,
    threads: () => Number(threads.value),

    showLoading() {
      isRunning = true;
      write(button, "Stop");
      write(status, "Loading. If the server has to export the model first, this takes seconds.");
      showError("");
      untrained.classList.remove("shown");
      predictionList.replaceChildren();
      figureList.replaceChildren();
    },

    /** Keeps the last predictions and figures visible. `reason` is empty after the button was pressed. */
    showStopped(reason) {
      isRunning = false;
      write(button, START);
      write(status, "Stopped.");
      showError(reason);
    },

    /** Takes the worker's "loaded" message. */
    showModel({ manifest, threads: used, version, adapter, load_ms, first_infer_ms }) {
      write(status, `${manifest.variant}, weights ${manifest.weights.name}, ${manifest.precision}`);
      untrained.classList.toggle("shown", manifest.weights.source === "random");
      const where = adapter ?? `${used} thread${used === 1 ? "" : "s"}`;
      modelFigures = [
        { name: "Runs on", value: where, note: `onnxruntime-web ${version}` },
        { name: "Loaded in", value: milliseconds(load_ms), note: `first inference ${milliseconds(first_infer_ms)}` },
      ];
      showFigures(figureList, modelFigures);
    },

    showResult({ predictions, preprocess, infer, compared, agreed, reference }) {
      showPredictions(predictionList, predictions);
      const figures = [latencyFigure("Model", infer), latencyFigure("Preprocessing", preprocess)];
      const share = { name: "Agrees", value: percent(agreed / compared), note: `of ${compared} with ${reference}` };
      showFigures(figureList, [...figures, ...(compared > 0 ? [share] : []), ...modelFigures]);
    },
  };
}

/** p50 and p90 by nearest rank. */
function latencyFigure(name, latencies) {
  const ordered = Float64Array.from(latencies).sort();
  const n = ordered.length;
  const percentile = (rank) => milliseconds(ordered[Math.ceil((rank * n) / 100) - 1]);
  const p90 = n < SAMPLES_FOR_P90 ? `p90 needs ${SAMPLES_FOR_P90}` : `p90 ${percentile(90)}`;
  return { name, value: percentile(50), note: `p50 of ${n}; ${p90}` };
}

function makeThreadSelect() {
  const max = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MAX_THREADS) : 1;
  const counts = Array.from({ length: max }, (_, index) => String(index + 1));
  const select = make("select", {}, ...counts.map((count) => option(count, count)));
  select.value = String(Math.min(Math.ceil(max / 2), 4)); // half: hyperthreads seldom add speed
  return select;
}

function isolationNote() {
  return self.crossOriginIsolated ? "" : "Only one thread: browsers allow more on localhost or over https.";
}

/** Why WebGPU is not available, or "". */
async function reasonAgainstWebGpu() {
  if (!self.isSecureContext) return "No WebGPU: browsers allow it on localhost or over https only.";
  if (navigator.gpu === undefined) return "No WebGPU: this browser does not have it.";
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  return adapter === null ? "No WebGPU: this browser finds no usable GPU." : "";
}

function field(name, control) {
  return make("label", { className: "field" }, make("span", {}, name), control);
}

function option(value, text, disabled = false) {
  return make("option", { value, disabled }, text);
}
