/* Selects backends, precision and variant: the choices, what runs, and what is still loading. */

import { byId, syncChildren, make } from "./dom.js";
import { PendingRequests } from "./live.js";

export class Controls {
  /** `send(name, value)` sends a command and returns whether it could; `notify(text)` shows a line to the person. */
  constructor(send, notify) {
    Object.assign(this, { send, notify, pending: new PendingRequests() });
    byId("variant").addEventListener("change", ({ target }) => this.select("variant", target.value));
    byId("run").addEventListener("submit", (event) => event.preventDefault());
  }

  show({ choices, selected, switching: isLoading }) {
    if (isLoading) this.pending.extend();
    byId("run").setAttribute("aria-busy", String(isLoading));
    this.showBoxes("backend", "checkbox", choices.backend, this.value("backend", selected.backend.join(",")).split(","));
    this.showBoxes("precision", "radio", choices.precision, [this.value("precision", selected.precision)]);
    const list = byId("variant");
    const create = (variant) => make("option", { value: variant }, variant);
    syncChildren(list, choices.variant, (variant) => variant, create, () => {});
    if (document.activeElement !== list || !this.pending.has("variant")) list.value = this.value("variant", selected.variant);
  }

  value(name, reported) {
    return this.pending.value(name, reported ?? "");
  }

  select(name, value) {
    if (this.send(name, value)) this.pending.set(name, value);
  }

  showBoxes(name, type, choices, checked) {
    const create = (choice) => this.makeBox(name, type, choice);
    syncChildren(byId(name).querySelector(".chips"), choices, (choice) => choice, create, (label, choice) => {
      label.firstChild.checked = checked.includes(choice);
    });
  }

  makeBox(name, type, choice) {
    const box = make("input", { type, name, value: choice });
    box.addEventListener("change", () => {
      const checked = [...byId(name).querySelectorAll("input:checked")].map((input) => input.value);
      if (checked.length) return this.select(name, checked.join(","));
      box.checked = true;
      this.notify("At least one backend has to run: select another one first.");
    });
    return make("label", {}, box, make("span", {}, choice));
  }
}
