/* The picture with its answers, saved where the visitor is. */

import { shown } from "./answers.js";
import { percent } from "./format.js";
import { latestFrame } from "./picture.js";

/** Starts a download; returns its name, or null where there is no picture yet. */
export async function saveSnapshot(state) {
  const frame = latestFrame();
  if (frame === null) return null;
  const answer = shown(frame.answers);
  const lines = (answer?.predictions ?? []).map(({ label, probability }) => `${percent(probability)}  ${label}`);
  const title = [state?.dashboard.title, answer?.name].filter(Boolean).join(", ");
  const untrained = state?.untrained ? ["UNTRAINED: the answers mean nothing"] : [];
  const blob = await draw(frame.canvas, [...untrained, title, ...lines].filter(Boolean));
  const name = `simplenet-${new Date().toISOString().replace(/[:.]/g, "-").slice(0, 19)}.jpg`;
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  return name;
}

/** The answers go under the picture, not over it. */
function draw(picture, lines) {
  const size = Math.max(12, Math.round(picture.width / 36));
  const row = Math.round(1.5 * size);
  const canvas = Object.assign(document.createElement("canvas"), {
    width: picture.width,
    height: picture.height + row * lines.length + row,
  });
  const context = canvas.getContext("2d", { alpha: false });
  context.fillStyle = "#15191e";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture, 0, 0);
  context.fillStyle = "#ffffff";
  context.font = `${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  lines.forEach((line, at) => context.fillText(line, size, picture.height + row * (at + 1), canvas.width - 2 * size));
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
}
