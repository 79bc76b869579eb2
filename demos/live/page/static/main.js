/* Puts the page together. */

import { showAnswers } from "./answers.js";
import { mount } from "./browser/model.js";
import { tunnel } from "./camera.js";
import { byId, make, write } from "./dom.js";
import { showFigures } from "./figures.js";
import { listenToKeys } from "./keys.js";
import { Live } from "./live.js";
import { showModels, showSayings } from "./models.js";
import { mention, showNotice, showStatus, showTrouble } from "./notices.js";
import * as picture from "./picture.js";
import { Selection } from "./selection.js";
import { saveSnapshot } from "./snapshot.js";
import { showSources, troubleOf } from "./sources.js";
import { Visitor } from "./visitor.js";

const page = { state: null, lookingAt: null, isMine: false, hasTrouble: false, isConnected: false, roundTripMs: null };

const live = new Live({
  onState({ state, looking_at }) {
    page.state = state;
    page.lookingAt = looking_at;
    draw();
  },

  async onPicture(head, jpeg) {
    const bitmap = await createImageBitmap(jpeg);
    const source = page.state?.sources.find(({ id }) => id === head.source);
    if (!page.isMine) present(bitmap, bitmap.width, bitmap.height, head, source?.name ?? "the server");
    bitmap.close();
  },

  onError(command, message) {
    selection.forget(command);
    mention(message);
  },

  onChange(isConnected, reason) {
    page.isConnected = isConnected;
    const gone = "The demo does not answer. It may have been stopped: start it again; this page comes back by itself.";
    showTrouble(isConnected ? "" : reason ? `The demo closed the connection: ${reason}. Trying again.` : gone);
    draw();
  },
});

const visitor = new Visitor({
  onResult(canvas, result) {
    page.roundTripMs = result.round_trip_ms;
    present(canvas, canvas.width, canvas.height, result, "your camera");
  },
  onTrouble: showCameraTrouble,
  onCameras: showCameras,
  onChange(isOpen, reason) {
    if (!isOpen && reason) mention(`Your camera: ${reason}.`);
  },
});

const selection = new Selection((name, value) => live.command(name, value), mention);

function present(drawable, width, height, result, of) {
  picture.show(drawable, width, height, result, of);
  showAnswers(result.model_results);
  showSayings(result.model_results);
  drawVeil();
}

function draw() {
  const { state } = page;
  drawStatus();
  drawVeil();
  if (state === null) return;
  write(byId("model"), state.dashboard.title);
  byId("untrained").hidden = !state.untrained;
  showNotice(state.notice);
  showModels(state.models, picture.latestFrame()?.answers);
  showFigures(state, source(), page.isMine ? page.roundTripMs : null);
  showSources(state, page.lookingAt, page.isMine, (id) => {
    live.look(id);
    page.lookingAt = id;
    setPlace("server");
  });
  selection.show(state);
  toggle(byId("pause"), state.paused, "Pause", "Go on");
  toggle(byId("record"), state.recording !== null, "Record on the server", "Stop recording");
}

/** The one whose picture is shown. */
function source() {
  const id = page.isMine ? visitor.source : page.lookingAt;
  return page.state?.sources.find((candidate) => candidate.id === id);
}

function drawStatus() {
  const { state, isConnected } = page;
  if (!isConnected) showStatus(state === null ? "connecting" : "not connected", state === null ? "waiting" : "bad");
  else if (state?.ended) showStatus("ended", "waiting");
  else if (state?.paused) showStatus("paused", "waiting");
  else if (state?.recording) showStatus("recording", "live");
  else showStatus("live", "live");
}

function drawVeil() {
  const { state, isConnected, isMine } = page;
  const isAlone = isMine && picture.latestFrame()?.answers.length === 0;
  let text = "";
  if (page.hasTrouble) text = "";
  else if (!isConnected && state !== null) text = "not connected; this is the last picture";
  else if (state?.paused) text = "paused";
  else if (picture.latestFrame() === null) text = isMine ? "starting your camera…" : waitingFor(state);
  else if (isAlone) text = "waiting for the server’s answer…";
  else if (!isMine) text = troubleOf(source());
  picture.veil(text);
}

function waitingFor(state) {
  const hasNone = state !== null && !state.sources.some(({ kind }) => kind !== "visitor");
  return hasNone ? "This demo has no picture of its own: choose “My camera” below." : "waiting for the first picture…";
}

function toggle(button, isOn, off, on) {
  button.setAttribute("aria-pressed", String(isOn));
  write(button, isOn ? on : off);
}

function setPlace(place) {
  const isMine = place === "mine";
  if (isMine === page.isMine) return;
  page.isMine = isMine;
  page.roundTripMs = null;
  document.querySelector(`input[name="place"][value="${place}"]`).checked = true;
  byId("camera-choice").hidden = true;
  showCameraTrouble(null);
  picture.forget();
  showAnswers([]);
  live.showPictures(!isMine);
  if (isMine) visitor.start();
  else visitor.stop();
  draw();
}

function showCameraTrouble(trouble) {
  const box = byId("camera-trouble");
  page.hasTrouble = trouble !== null;
  box.hidden = trouble === null;
  box.replaceChildren();
  if (trouble === null) return;
  const lines = trouble.advice.map((part) => (part.code ? make("pre", {}, make("code", {}, part.code)) : make("p", {}, part)));
  const buttons = make("div", { className: "buttons" });
  if (trouble.canRetry) buttons.append(button("Try again", () => visitor.start()));
  buttons.append(button("Show the server’s sources", () => setPlace("server")));
  box.append(make("h3", {}, trouble.title), ...lines, buttons);
  drawVeil();
}

function showCameras(cameras, current) {
  const select = byId("camera");
  select.replaceChildren(...cameras.map(({ id, name }) => make("option", { value: id, selected: id === current }, name)));
  byId("camera-choice").hidden = cameras.length < 2;
}

function button(text, action) {
  const element = make("button", { type: "button" }, text);
  element.addEventListener("click", action);
  return element;
}

const actions = {
  pause: () => live.command("pause"),
  async snapshot() {
    const name = await saveSnapshot(page.state);
    mention(name === null ? "There is no picture to save yet." : `Saved ${name} where your browser keeps downloads.`);
  },
  "server-snapshot": () => live.command("snapshot"),
  record: () => live.command("record"),
  help: () => byId("help-dialog").showModal(),
};
for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);
listenToKeys({
  space: actions.pause,
  s: actions.snapshot,
  r: actions.record,
  b: () => live.command("next-backend"),
  p: () => live.command("next-precision"),
  h: actions.help,
});
byId("place").addEventListener("change", ({ target }) => setPlace(target.value));
byId("camera").addEventListener("change", ({ target }) => visitor.start(target.value));
write(byId("tunnel"), tunnel());
mount(byId("browser-model"));
