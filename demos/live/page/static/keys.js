/* The same keys as in the window, unless the person types, has a control under the space bar, or has turned them off. */

import { byId } from "./dom.js";

export function listenToKeys(actions) {
  document.addEventListener("keydown", (event) => {
    const action = actions[event.key === " " ? "space" : event.key];
    const isTaken = event.ctrlKey || event.metaKey || event.altKey || event.repeat || byId("help-dialog").open;
    if (!action || isTaken || !byId("keys").checked) return;
    if (event.target.closest(event.key === " " ? "button, input, select, a" : "select, input[type=text]")) return;
    event.preventDefault();
    action();
  });
}
