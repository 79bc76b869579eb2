/* One line of what is going on, and one of what is wrong. Screen readers hear each once. */

import { byId, write } from "./dom.js";

const SHORT_MS = 6000;
let passing = "";
let passingTimer = 0;
let standing = "";

/** What the server says for as long as it says so. */
export function showNotice(text) {
  standing = text ?? "";
  draw();
}

/** A line that goes away by itself. */
export function mention(text) {
  passing = text;
  clearTimeout(passingTimer);
  passingTimer = setTimeout(() => mention(""), SHORT_MS);
  draw();
}

/** What is wrong until it is not any more; "" takes it away. */
export function showTrouble(text) {
  write(byId("trouble"), text);
  byId("trouble").classList.toggle("shown", Boolean(text));
}

export function showStatus(text, kind) {
  write(byId("status"), text);
  byId("status").dataset.kind = kind;
}

function draw() {
  write(byId("notice"), passing || standing);
  byId("notice").classList.toggle("shown", Boolean(passing || standing));
}
