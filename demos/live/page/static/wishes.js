/* What a person has just chosen: a state that left the server before it had read the choice does not take it back. */

const TRUST_MS = 1500; // after which the state shows what became of it

export class Wishes {
  constructor() {
    this.wishes = new Map();
  }

  set(name, value) {
    this.wishes.set(name, { value, untilMs: performance.now() + TRUST_MS });
  }

  /** The server is busy with them: they hold until a moment after it has finished. */
  prolong() {
    const untilMs = performance.now() + TRUST_MS / 3;
    for (const [name, wish] of this.wishes) if (this.has(name)) wish.untilMs = Math.max(wish.untilMs, untilMs);
  }

  forget(name) {
    this.wishes.delete(name);
  }

  has(name) {
    return performance.now() < (this.wishes.get(name)?.untilMs ?? 0);
  }

  /** What was wished for a moment ago, else what the server says it has. */
  wanted(name, reported) {
    return this.has(name) ? this.wishes.get(name).value : reported;
  }
}
