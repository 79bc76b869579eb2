/* Connects the parts of the page. */

import { mount } from "./browser/model.js";
import { tunnel } from "./camera.js";
import { Controls } from "./controls.js";
import { showFigures, showFirstPredictions, showModels, showSources, showStatus, showTitle } from "./dashboard.js";
import { byId, make, milliseconds, write } from "./dom.js";
import { clearImage, latestFrame, saveSnapshot, showCrop, showImage, showOverlay } from "./image.js";
import { Live } from "./live.js";
import { showResults } from "./predictions.js";
import { Visitor } from "./visitor.js";

const NOTICE_MS = 6000;
const DISCONNECTED =
  "The demo does not answer. Check the network, or start the demo again if it was stopped; this page reconnects by itself.";

const page = {
  state: null,
  lookingAt: null, // the source whose images the server sends
  isMine: false, // the visitor's camera is shown, not a source of the server
  hasCameraError: false,
  isConnected: null, // null: connecting for the first time
  roundTripMs: null,
  notice: "", // set by this page; the server's notice is state.dashboard.notice
};
let noticeTimer = 0;

const live = new Live({
  onState({ state, looking_at }) {
    Object.assign(page, { state, lookingAt: looking_at });
    draw();
  },

  async onImage(head, jpeg) {
    const bitmap = await createImageBitmap(jpeg);
    const name = page.state?.dashboard.sources.find(({ id }) => id === head.source)?.name;
    if (!page.isMine) showFrame(bitmap, head, name ?? "the server");
    bitmap.close();
  },

  onError(command, message) {
    controls.pending.cancel(command); // shows the running selection again
    notify(message);
  },

  onChange(isConnected, reason) {
    page.isConnected = isConnected;
    if (!isConnected && !reason) visitor.connection.reconnect(); // the network is gone for it as well
    const closed = reason ? `The demo closed the connection: ${reason}. Reconnecting.` : DISCONNECTED;
    showBar("error", isConnected ? "" : closed);
    draw();
  },
});

const visitor = new Visitor({
  onResult(canvas, message) {
    page.roundTripMs = message.round_trip_ms;
    showFrame(canvas, message, "your camera");
  },
  onError: showCameraError,
  onCameras: showCameras,
  onChange(isConnected, reason) {
    if (!isConnected && (reason || page.isConnected)) notify(`Your camera: ${reason || "no answer"}. Reconnecting.`);
  },
});

const controls = new Controls((name, value) => live.command(name, value), notify);

function showFrame(drawable, message, source) {
  showImage(drawable, message, source);
  showResults(message.model_results);
  showFirstPredictions(message.model_results);
  drawOverlay();
}

function draw() {
  const { state, isMine } = page;
  showStatus(page.isConnected, state?.dashboard);
  byId("image").classList.toggle("stale", page.isConnected === false && !isMine);
  drawOverlay();
  showCrop(source()?.crop);
  if (state === null) return;
  const { dashboard } = state;
  showTitle(dashboard);
  drawNotice();
  showModels(dashboard, latestFrame()?.results);
  const roundTrip = { name: "round trip", value: milliseconds(page.roundTripMs), note: "" };
  showFigures(byId("figures"), [...dashboard.figures, ...(isMine ? [roundTrip] : []), ...(source()?.figures ?? [])]);
  showSources(dashboard, isMine ? null : page.lookingAt, (id) => {
    live.look(id);
    page.lookingAt = id;
    showView("server");
  });
  controls.show(state);
  showPressed(byId("pause"), state.paused, "Pause", "Continue");
  showPressed(byId("record"), state.recording !== null, "Record on the server", "Stop recording");
}

/** The dashboard's entry for the source whose images are shown. */
function source() {
  const id = page.isMine ? visitor.source : page.lookingAt;
  return page.state?.dashboard.sources.find((candidate) => candidate.id === id);
}

function drawOverlay() {
  const { state, isConnected, isMine, hasCameraError } = page;
  const frame = latestFrame();
  const consequence = frame === null ? "" : isMine ? ": no predictions" : "; this is the last image";
  const reasons = [
    [hasCameraError, ""],
    [isConnected === false, `not connected${consequence}`],
    [state?.paused, "paused"],
    [frame === null, isMine ? "starting your camera…" : source()?.banner || waitingFor(state)],
    [isMine && frame?.results.length === 0, "waiting for the server’s predictions…"],
    [!isMine, source()?.banner ?? ""],
  ];
  showOverlay(reasons.find(([applies]) => applies)?.[1] ?? "");
}

function waitingFor(state) {
  const hasSource = state === null || state.dashboard.sources.some((candidate) => !candidate.is_visitor);
  return hasSource ? "waiting for the first image…" : "This demo has no source of its own: select “My camera” below.";
}

function showPressed(button, isOn, off, on) {
  button.setAttribute("aria-pressed", String(isOn));
  write(button, isOn ? on : off);
}

/** Shows a line that disappears by itself. */
function notify(text) {
  page.notice = text;
  clearTimeout(noticeTimer);
  if (text) noticeTimer = setTimeout(() => notify(""), NOTICE_MS);
  drawNotice();
}

function drawNotice() {
  showBar("notice", page.notice || (page.state?.dashboard.notice ?? ""));
}

function showBar(id, text) {
  write(byId(id), text);
  byId(id).classList.toggle("shown", text !== "");
}

/** Switches between the server's sources ("server") and the visitor's camera ("mine"). */
function showView(view) {
  const isMine = view === "mine";
  if (isMine === page.isMine) return;
  Object.assign(page, { isMine, roundTripMs: null });
  document.querySelector(`input[name="view"][value="${view}"]`).checked = true;
  byId("camera-choice").hidden = true;
  showCameraError(null);
  clearImage();
  showResults([]);
  live.showImages(!isMine);
  if (isMine) visitor.start();
  else visitor.stop();
  draw();
}

function showCameraError(error) {
  const box = byId("camera-error");
  page.hasCameraError = error !== null;
  box.hidden = error === null;
  box.replaceChildren();
  if (error === null) return;
  const lines = error.advice.map((part) => (part.code ? make("pre", {}, make("code", {}, part.code)) : make("p", {}, part)));
  const retry = error.canRetry ? [makeButton("Try again", () => visitor.start())] : [];
  const buttons = [...retry, makeButton("Show the server’s sources", () => showView("server"))];
  box.append(make("h3", {}, error.title), ...lines, make("div", { className: "buttons" }, ...buttons));
  drawOverlay();
}

function showCameras(cameras, current) {
  const options = cameras.map(({ id, name }) => make("option", { value: id, selected: id === current }, name));
  byId("camera").replaceChildren(...options);
  byId("camera-choice").hidden = cameras.length < 2;
}

function makeButton(text, action) {
  const button = make("button", { type: "button" }, text);
  button.addEventListener("click", action);
  return button;
}

/** Commands that the page runs; all others go to the server. */
const actions = {
  async snapshot() {
    const name = await saveSnapshot(page.state?.dashboard);
    notify(name === null ? "There is no image to save yet." : `Saved ${name} in the browser’s downloads folder.`);
  },
  help: () => byId("help-dialog").showModal(),
};
const run = (command) => (actions[command] ?? (() => live.command(command)))();

for (const button of document.querySelectorAll("button[data-command]")) {
  button.addEventListener("click", () => run(button.dataset.command));
}
byId("server-snapshot").addEventListener("click", () => live.command("snapshot"));
byId("view").addEventListener("change", ({ target }) => showView(target.value));
byId("camera").addEventListener("change", ({ target }) => visitor.start(target.value));

// Keys work unless a control that takes the key has the focus, or the person has turned them off.
document.addEventListener("keydown", (event) => {
  const pressed = event.key === " " ? "space" : event.key;
  const command = page.state?.dashboard.keys.find(({ key }) => key === pressed)?.command;
  const isTaken = event.ctrlKey || event.metaKey || event.altKey || event.repeat || byId("help-dialog").open;
  if (!command || isTaken || !byId("keys").checked) return;
  if (event.target.closest(event.key === " " ? "button, input, select, a" : "select, input[type=text]")) return;
  event.preventDefault();
  run(command);
});

write(byId("tunnel"), tunnel());
mount(byId("browser-model"));
