/* Selections that the server has not confirmed yet: older states that still arrive do not undo them. */

const CONFIRM_MS = 1500; // afterwards the state shows the outcome

export class PendingRequests {
  constructor() {
    this.requests = new Map();
  }

  set(name, value) {
    this.requests.set(name, { value, untilMs: performance.now() + CONFIRM_MS });
  }

  /** While the server loads a model, the requests stay pending until shortly after it has finished. */
  extend() {
    const untilMs = performance.now() + CONFIRM_MS / 3;
    for (const [name, request] of this.requests) {
      if (this.has(name)) request.untilMs = Math.max(request.untilMs, untilMs);
    }
  }

  cancel(name) {
    this.requests.delete(name);
  }

  has(name) {
    return performance.now() < (this.requests.get(name)?.untilMs ?? 0);
  }

  /** The pending value, else the one that the server reports. */
  value(name, reported) {
    return this.has(name) ? this.requests.get(name).value : reported;
  }
}
