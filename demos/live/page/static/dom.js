/* Makes elements and changes them only where something has changed; formats what is measured in this browser. */

export const byId = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Sets a text. The same text again does not disturb a screen reader or a selection. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Keeps one child element for each item, made by `create(item)` and changed by `update(child, item)`. */
export function syncChildren(parent, items, key, create, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const children = items.map((item) => {
    const name = String(key(item));
    const child = known.get(name) ?? create(item);
    child.dataset.key = name;
    update(child, item);
    return child;
  });
  const same = children.length === parent.children.length && children.every((child, at) => parent.children[at] === child);
  if (!same) parent.replaceChildren(...children);
}

/** Three significant digits, as in demos/live/dashboard.py. */
export function milliseconds(value) {
  if (value === null || value === undefined) return "-";
  return `${value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : Math.round(value)} ms`;
}

export function percent(share, digits = 1) {
  return `${(100 * share).toFixed(digits)} %`;
}
