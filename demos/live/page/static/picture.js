/* The picture shown, whosever it is. Every new one is told to the document as a "frame" event. */

import { byId, write } from "./dom.js";
import { percent } from "./format.js";

const DESCRIBE_EVERY_MS = 2000;

const canvas = byId("picture");
const context = canvas.getContext("2d", { alpha: false });
let latest = null;
let describedMs = -Infinity;

/** `picture` is anything that can be drawn; `result` the server's answers to it, `of` the source's name. */
export function show(picture, width, height, result, of) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  context.drawImage(picture, 0, 0, width, height);
  const isNew = latest?.result.number !== result.number || latest?.of !== of;
  latest = { canvas, sequence: result.number, answers: result.model_results ?? [], result, of };
  describe();
  if (isNew) document.dispatchEvent(new CustomEvent("frame", { detail: latest }));
}

/** The last one shown, or null: {canvas, sequence, answers, result, of}. */
export const latestFrame = () => latest;

export function forget() {
  latest = null;
  canvas.setAttribute("aria-label", "No picture yet");
  context.clearRect(0, 0, canvas.width, canvas.height);
}

export function veil(text) {
  write(byId("veil"), text);
}

function describe() {
  const nowMs = performance.now();
  if (nowMs - describedMs < DESCRIBE_EVERY_MS) return;
  describedMs = nowMs;
  const best = latest.answers[0]?.predictions[0];
  const says = best ? `, probably ${best.label}, ${percent(best.probability, 0)}` : "";
  canvas.setAttribute("aria-label", `Live picture of ${latest.of}${says}`);
}
