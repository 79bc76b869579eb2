/* The tile "In this browser": the server's ONNX artifact run by onnxruntime-web, beside the server's own backends.

`mount(element)` builds it. Nothing is loaded before its button is pressed. Then it takes every
    document.dispatchEvent(new CustomEvent("frame", { detail: { bitmap | canvas, sequence, answers } }))
where `answers` are the server's for the same frame, the reference first, and classifies the newest one, one at a time.
For each it dispatches "browser-answer" on document: { sequence, predictions, logits, preprocess_ms, infer_ms, agrees }. */

import { Samples } from "./model_samples.js";
import { view } from "./model_view.js";

const MODEL_CHECK_MS = 2000; // the person may have switched to another variant
const REDRAW_MS = 100;

/** Builds the tile in `element`; returns what takes it away again. */
export function mount(element) {
  const tile = view(element, { onStart: start, onStop: stop });
  let worker = null;
  let loaded = null; // the worker's {kind: "loaded"}, once it is ready
  let pending = null; // the newest frame not yet given to the worker
  let working = null; // the frame that the worker has
  let taken = 0; // frames seen, to tell the newer of two copies
  let drawing = 0; // the timer of the next redraw; 0 when none is due
  let check = 0;
  let figures = null;
  reset();

  document.addEventListener("frame", onFrame);

  function start() {
    reset();
    tile.showLoading();
    const current = new Worker(new URL("./model_worker.js", import.meta.url), { type: "module" });
    worker = current;
    current.addEventListener("message", ({ data }) => current === worker && onMessage(data));
    current.addEventListener("error", (event) => {
      event.preventDefault();
      if (current === worker) {
        fail(event.message || "the worker could not be started; reload the page");
      }
    });
    current.postMessage({ kind: "load", provider: tile.provider(), threads: tile.threads() });
  }

  function stop() {
    reset();
    tile.showStopped();
  }

  function fail(text) {
    reset();
    tile.showStopped(text);
  }

  function reset() {
    worker?.terminate();
    clearInterval(check);
    clearTimeout(drawing);
    drawing = 0;
    pending?.bitmap.close();
    worker = loaded = pending = working = null;
    figures = { predictions: [], preprocess: new Samples(), infer: new Samples(), compared: 0, agreed: 0, reference: "" };
  }

  function onMessage(data) {
    if (data.kind === "error") {
      fail(data.text);
    } else if (data.kind === "loaded") {
      loaded = data;
      tile.showModel(data);
      check = setInterval(followModel, MODEL_CHECK_MS);
      feed();
    } else {
      onAnswer(data);
      feed();
    }
  }

  async function onFrame({ detail }) {
    const order = ++taken;
    const current = worker;
    if (current === null) {
      return;
    }
    let bitmap;
    try {
      bitmap = await createImageBitmap(detail.bitmap ?? detail.canvas); // of this moment; the page may go on with its own
    } catch {
      return; // closed already, or empty: the next frame comes
    }
    if (current !== worker || (pending !== null && pending.order > order)) {
      bitmap.close();
      return;
    }
    pending?.bitmap.close();
    pending = { bitmap, order, sequence: detail.sequence, answers: detail.answers ?? [] };
    feed();
  }

  function feed() {
    if (loaded === null || working !== null || pending === null) {
      return;
    }
    const { bitmap, sequence, answers } = pending;
    working = { sequence, answers };
    pending = null;
    worker.postMessage({ kind: "frame", bitmap, sequence }, [bitmap]);
  }

  function onAnswer({ sequence, predictions, logits, preprocess_ms, infer_ms }) {
    const reference = working.answers[0];
    working = null;
    figures.preprocess.add(preprocess_ms);
    figures.infer.add(infer_ms);
    const agrees = reference === undefined ? null : isSame(predictions[0], reference.predictions?.[0]);
    if (agrees !== null) {
      if (figures.reference !== reference.name) {
        figures.compared = figures.agreed = 0; // with the one before
      }
      figures.compared += 1;
      figures.agreed += Number(agrees);
      figures.reference = reference.name;
    }
    const detail = { sequence, predictions, logits, preprocess_ms, infer_ms, agrees };
    document.dispatchEvent(new CustomEvent("browser-answer", { detail }));
    figures.predictions = predictions;
    drawing ||= setTimeout(draw, REDRAW_MS);
  }

  /** Ten times a second at most: more cannot be read. */
  function draw() {
    drawing = 0;
    tile.showAnswer(figures);
  }

  /** Starts again with the server's model when that is another one by now. */
  async function followModel() {
    const current = worker;
    let told;
    let isWell;
    try {
      const answer = await fetch("/model/manifest.json", { cache: "no-cache" });
      isWell = answer.ok;
      told = await answer.json();
    } catch {
      return; // the page itself says when the server is gone
    }
    if (current !== worker) {
      return;
    }
    if (!isWell) {
      fail(told.error);
    } else if (told.files["model.onnx"] !== loaded.manifest.files["model.onnx"]) {
      start();
    }
  }

  return () => {
    document.removeEventListener("frame", onFrame);
    reset();
    element.replaceChildren();
  };
}

function isSame(prediction, reference) {
  return Number.isInteger(reference?.index)
    ? prediction.index === reference.index
    : prediction.label === reference?.label;
}
