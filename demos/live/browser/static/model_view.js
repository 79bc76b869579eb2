/* The elements of the tile "In this browser". */

import { showFigures } from "../dashboard.js";
import { make, milliseconds, percent, write } from "../dom.js";
import { showPredictions } from "../predictions.js";

const START = "Run in this browser";
const MAX_THREADS = 8;
const SAMPLES_FOR_P90 = 64; // MLPerf LoadGen's rule, as in runtimes/timing.py
const TILE = `
  <header class="title">
    <h2 id="browser-model-title">In this browser</h2>
    <p class="muted" role="status">Nothing is loaded before you start it.</p>
  </header>
  <div class="browser-model-controls">
    <label class="field"><span>Run on</span><select>
      <option value="wasm">WASM</option><option value="webgpu" disabled>WebGPU</option>
    </select></label>
    <label class="field"><span>Threads</span><select></select></label>
    <button type="button">${START}</button>
  </div>
  <p class="muted"></p>
  <p class="error" role="alert"></p>
  <p class="notice">UNTRAINED: random weights. The latencies are valid, the predictions are not.</p>
  <div class="browser-model-results"><ol class="predictions"></ol><dl class="figures"></dl></div>`;

/** Builds the tile. Its button calls `onStart`, or `onStop` while the model runs. */
export function makeView(element, { onStart, onStop }) {
  element.innerHTML = TILE;
  element.classList.add("card", "browser-model");
  element.setAttribute("aria-labelledby", "browser-model-title");
  const [status, note] = element.querySelectorAll("p.muted");
  const [provider, threads] = element.querySelectorAll("select");
  const parts = ["button", ".error", ".notice", "ol", "dl"].map((selector) => element.querySelector(selector));
  const [button, error, untrained, predictionList, figureList] = parts;
  addThreadCounts(threads);
  write(note, isolationNote());

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

function addThreadCounts(select) {
  const max = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MAX_THREADS) : 1;
  for (let count = 1; count <= max; count++) select.append(make("option", {}, String(count)));
  select.value = String(Math.min(Math.ceil(max / 2), 4)); // half: hyperthreads seldom add speed
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
