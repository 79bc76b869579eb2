/* The server's sources: which one to look at, and how each is doing. */

import { byId, keep, make, write } from "./dom.js";

const STATES = { running: "", reconnecting: "reconnecting…", ended: "ended", failed: "failed" };

/** `onLook(id)` is called when the person chooses another one. */
export function showSources(state, lookingAt, isMine, onLook) {
  const own = state.sources.filter((source) => source.kind !== "visitor");
  const visitors = state.sources.length - own.length;
  write(byId("visitors"), visitors ? `and ${visitors} visitor${visitors === 1 ? "’s camera" : "s’ cameras"}, not shown` : "");
  const create = (source) => makeSource(source, onLook);
  keep(byId("sources"), own, (source) => source.id, create, (row, source) => {
    const radio = row.querySelector("input");
    radio.checked = !isMine && source.id === lookingAt;
    write(row.querySelector(".name"), source.name);
    const size = source.width ? `${source.width}×${source.height}` : "";
    const facts = row.querySelector(".facts");
    write(facts, [size, STATES[source.state]].filter(Boolean).join(" · "));
    facts.classList.toggle("bad", source.state === "failed" || source.state === "reconnecting");
    write(row.querySelector(".note"), source.note ?? "");
  });
}

/** What to say over the picture about the source it comes from. */
export function troubleOf(source) {
  if (!source) return "";
  if (source.state === "reconnecting") return `${source.name}: reconnecting; this is its last picture`;
  if (source.state === "failed") return `${source.name} has failed: ${source.note ?? "no reason known"}`;
  return source.state === "ended" ? `${source.name} has ended; this is its last picture` : "";
}

function makeSource(source, onLook) {
  const radio = make("input", { type: "radio", name: "source" });
  radio.addEventListener("change", () => onLook(source.id));
  const label = make("label", {}, radio, make("span", { className: "name" }));
  return make("li", {}, label, make("span", { className: "facts" }), make("p", { className: "note" }));
}
