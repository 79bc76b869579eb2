/* Formats what is measured in this browser, as demos/live/dashboard.py formats what the server measures. */

export function milliseconds(value) {
  if (value === null || value === undefined) return "-";
  return `${value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : Math.round(value)} ms`;
}

export function percent(share, digits = 1) {
  return `${(100 * share).toFixed(digits)} %`;
}
