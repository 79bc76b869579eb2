/* The image that is shown, and its snapshot. Every new image is reported to the document as a "frame" event. */

import { byId, percent, write } from "./dom.js";
import { selectedResult } from "./predictions.js";

const DESCRIBE_EVERY_MS = 2000; // for screen readers
const MIN_LONG_SIDE = 640; // of saved images, as in the window: smaller ones are enlarged

const canvas = byId("image");
const context = canvas.getContext("2d", { alpha: false });
let latest = null;
let describedMs = -Infinity;

/** Draws an image of `source` (a name); `message` has the server's results for it. */
export function showImage(drawable, message, source) {
  const { width, height } = drawable;
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  context.drawImage(drawable, 0, 0, width, height);
  const isNew = latest?.sequence !== message.number || latest?.source !== source;
  latest = { canvas, sequence: message.number, results: message.model_results ?? [], source };
  describe();
  if (isNew) document.dispatchEvent(new CustomEvent("frame", { detail: latest }));
}

/** The image that is shown, or null: {canvas, sequence, results, source}. */
export const latestFrame = () => latest;

export function clearImage() {
  latest = null;
  canvas.setAttribute("aria-label", "No image yet");
  context.clearRect(0, 0, canvas.width, canvas.height);
}

/** Downloads the image with the predictions below it; returns the file's name, or null without an image. */
export async function saveSnapshot(dashboard) {
  if (latest === null) return null;
  const result = selectedResult(latest.results);
  const predictions = (result?.predictions ?? []).map(({ label, probability }) => `${percent(probability)}  ${label}`);
  const untrained = dashboard?.untrained ? [`UNTRAINED: ${dashboard.untrained}`] : [];
  const title = [dashboard?.title, result?.name].filter(Boolean).join(", ");
  const blob = await drawSnapshot([...untrained, title, ...predictions].filter(Boolean));
  const name = `simplenet-${new Date().toISOString().replace(/[:.]/g, "-").slice(0, 19)}.jpg`;
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  return name;
}

function drawSnapshot(lines) {
  const scale = Math.max(1, MIN_LONG_SIDE / Math.max(canvas.width, canvas.height));
  const [wide, high] = [Math.round(canvas.width * scale), Math.round(canvas.height * scale)];
  const width = Math.max(wide, Math.round(high / 2)); // room for text below narrow images
  const size = Math.max(12, Math.round(width / 36));
  const row = Math.round(1.5 * size);
  const height = high + row * (lines.length + 1);
  const snapshot = Object.assign(document.createElement("canvas"), { width, height });
  const pen = snapshot.getContext("2d", { alpha: false });
  pen.fillStyle = "#15191e";
  pen.fillRect(0, 0, width, height);
  pen.imageSmoothingEnabled = scale < 4; // tiny images keep sharp pixels, as in the window
  pen.drawImage(canvas, (width - wide) / 2, 0, wide, high);
  Object.assign(pen, { fillStyle: "#ffffff", font: `${size}px system-ui, sans-serif`, textBaseline: "middle" });
  lines.forEach((line, at) => pen.fillText(line, size, high + row * (at + 1), width - 2 * size));
  return new Promise((done) => snapshot.toBlob(done, "image/jpeg", 0.92));
}

/** Draws the frame around what the models see: [left, top, right, bottom], as shares of the image. */
export function showCrop(crop) {
  const { width, height } = canvas;
  const [left, top, right, bottom] = (crop ?? []).map((share, at) => share * (at % 2 ? height : width));
  byId("crop").setAttribute("viewBox", `0 0 ${width} ${height}`);
  byId("crop").firstChild.setAttribute("d", latest && crop ? `M${left} ${top}H${right}V${bottom}H${left}Z` : "");
}

/** Sets the text over the image; "" removes it. */
export function showOverlay(text) {
  write(byId("overlay"), text);
}

function describe() {
  const nowMs = performance.now();
  if (nowMs - describedMs < DESCRIBE_EVERY_MS) return;
  describedMs = nowMs;
  const best = latest.results[0]?.predictions[0];
  const prediction = best ? `, probably ${best.label}, ${percent(best.probability, 0)}` : "";
  canvas.setAttribute("aria-label", `Live image of ${latest.source}${prediction}`);
}
