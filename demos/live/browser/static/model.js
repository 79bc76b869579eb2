/* The tile "In this browser": runs the server's ONNX artifact with onnxruntime-web, beside the server's backends.

`mount(element)` builds the tile. It loads nothing until its button is pressed. Then it handles the event
    document.dispatchEvent(new CustomEvent("frame", { detail: { canvas, sequence, results } }))
`results` are the server's results for that frame, the reference first. One frame at a time is classified, the newest.
The event "browser-result" on document has { sequence, predictions, logits, preprocess_ms, infer_ms, agrees }. */

import { makeView } from "./model_view.js";

const MODEL_CHECK_MS = 2000; // how soon a switch to another variant is noticed
const REDRAW_MS = 100;
const KEPT_LATENCIES = 1000;

/** Builds the tile in `element`. */
export function mount(element) {
  const view = makeView(element, { onStart: start, onStop: stop });
  let worker = null;
  let loaded = null; // the worker's {kind: "loaded"} message
  let pending = null; // the newest frame that the worker has not received
  let inFlight = null; // the frame that the worker is classifying
  let received = 0; // the number of "frame" events
  let redrawTimer = 0;
  let checkTimer = 0;
  let figures = null;
  document.addEventListener("frame", onFrame);

  function start() {
    reset();
    view.showLoading();
    const current = new Worker(new URL("./model_worker.js", import.meta.url), { type: "module" });
    worker = current;
    current.addEventListener("message", ({ data }) => current === worker && onMessage(data));
    current.addEventListener("error", (event) => {
      event.preventDefault();
      if (current === worker) stop(event.message || "the worker could not be started; reload the page");
    });
    current.postMessage({ kind: "load", provider: view.provider(), threads: view.threads() });
  }

  function stop(reason = "") {
    reset();
    view.showStopped(reason);
  }

  function reset() {
    worker?.terminate();
    clearInterval(checkTimer);
    clearTimeout(redrawTimer);
    redrawTimer = 0;
    pending?.bitmap.close();
    worker = loaded = pending = inFlight = null;
    figures = { predictions: [], preprocess: [], infer: [], compared: 0, agreed: 0, reference: "" };
  }

  function onMessage(data) {
    if (data.kind === "error") return stop(data.text);
    if (data.kind === "loaded") {
      loaded = data;
      view.showModel(data);
      checkTimer = setInterval(followModel, MODEL_CHECK_MS);
    } else {
      onResult(data);
    }
    sendFrame();
  }

  async function onFrame({ detail }) {
    const order = ++received;
    const current = worker;
    if (current === null) return;
    let bitmap;
    try {
      bitmap = await createImageBitmap(detail.canvas); // a copy: the page draws its next frame into the canvas
    } catch {
      return; // an empty canvas
    }
    if (current !== worker || pending?.order > order) return bitmap.close();
    pending?.bitmap.close();
    pending = { bitmap, order, sequence: detail.sequence, reference: detail.results?.[0] };
    sendFrame();
  }

  function sendFrame() {
    if (loaded === null || inFlight !== null || pending === null) return;
    const { bitmap, sequence } = pending;
    inFlight = pending;
    pending = null;
    worker.postMessage({ kind: "frame", bitmap, sequence }, [bitmap]);
  }

  function onResult({ sequence, predictions, logits, preprocess_ms, infer_ms }) {
    const { reference } = inFlight;
    inFlight = null;
    figures.preprocess = [...figures.preprocess, preprocess_ms].slice(-KEPT_LATENCIES);
    figures.infer = [...figures.infer, infer_ms].slice(-KEPT_LATENCIES);
    const agrees = reference ? predictions[0].index === reference.predictions[0].index : null;
    if (reference) {
      if (figures.reference !== reference.name) figures.compared = figures.agreed = 0;
      figures.reference = reference.name;
      figures.compared += 1;
      figures.agreed += Number(agrees);
    }
    const detail = { sequence, predictions, logits, preprocess_ms, infer_ms, agrees };
    document.dispatchEvent(new CustomEvent("browser-result", { detail }));
    figures.predictions = predictions;
    redrawTimer ||= setTimeout(() => {
      redrawTimer = 0;
      view.showResult(figures);
    }, REDRAW_MS);
  }

  /** Starts again if the server has switched to another model. */
  async function followModel() {
    const current = worker;
    let response;
    let body;
    try {
      response = await fetch("/model/manifest.json", { cache: "no-cache", signal: AbortSignal.timeout(MODEL_CHECK_MS) });
      body = await (response.ok ? response.json() : response.text());
    } catch {
      return; // the page reports that the server is gone
    }
    if (current !== worker) return;
    if (!response.ok) stop(body);
    else if (body.files["model.onnx"] !== loaded.manifest.files["model.onnx"]) start();
  }
}
