/* Backends, precision and variant: what can be chosen, what is, and what was asked for and is still loading. */

import { byId, keep, make } from "./dom.js";
import { Wishes } from "./wishes.js";

export class Selection {
  /** `ask(name, value)` sends the command; `complain(text)` shows a line to the person. */
  constructor(ask, complain) {
    Object.assign(this, { ask, complain, wishes: new Wishes() });
    byId("variant").addEventListener("change", ({ target }) => this.wish("variant", target.value));
    byId("run").addEventListener("submit", (event) => event.preventDefault());
  }

  show({ choices, selected, switching: isLoading }) {
    if (isLoading) this.wishes.prolong();
    byId("run").setAttribute("aria-busy", String(isLoading));
    this.showBoxes("backend", "checkbox", choices.backend, this.wanted("backend", selected).split(","));
    this.showBoxes("precision", "radio", choices.precision, [this.wanted("precision", selected)]);
    const select = byId("variant");
    const makeOption = (variant) => make("option", { value: variant }, variant);
    keep(select, choices.variant, (variant) => variant, makeOption, () => {});
    if (document.activeElement !== select || !this.wishes.has("variant")) select.value = this.wanted("variant", selected);
  }

  /** It did not work: the controls go back to what runs. */
  forget(name) {
    this.wishes.forget(name);
  }

  wanted(name, selected) {
    return this.wishes.wanted(name, text(selected[name]));
  }

  wish(name, value) {
    if (this.ask(name, value)) this.wishes.set(name, value);
  }

  showBoxes(name, type, choices, chosen) {
    const row = byId(name).querySelector(".chips");
    const create = (choice) => this.makeBox(name, type, choice);
    keep(row, choices, (choice) => choice, create, (label, choice) => {
      label.firstChild.checked = chosen.includes(choice);
    });
  }

  makeBox(name, type, choice) {
    const box = make("input", { type, name, value: choice });
    box.addEventListener("change", () => {
      const ticked = [...byId(name).querySelectorAll("input:checked")].map((input) => input.value);
      if (ticked.length) return this.wish(name, ticked.join(","));
      box.checked = true;
      this.complain("At least one backend has to run: tick another one first.");
    });
    return make("label", {}, box, make("span", {}, choice));
  }
}

const text = (value) => (Array.isArray(value) ? value.join(",") : (value ?? ""));
