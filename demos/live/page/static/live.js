/* The WebSocket /live: the state of the demo, the server's images, and commands to it. */

import { Connection } from "./connection.js";

const SILENCE_MS = 3000; // the server sends a state at least every second, also while the demo is paused
const CONFIRM_MS = 1500; // afterwards the state shows the outcome of a command

/** Calls `onState({state, looking_at})`, `onImage(head, jpeg)`, `onError(command, message)`; `onChange` as `Connection`. */
export class Live {
  constructor({ onState, onImage, onError, onChange }) {
    this.lookingAt = null;
    this.pending = new PendingRequests();
    this.showsImages = true;
    this.unacknowledged = null;
    this.arriving = null; // the image whose JPEG is being received: {head, pieces, missing}
    this.connection = new Connection("live", {
      silenceMs: SILENCE_MS,
      onText: (message) => {
        if (message.type === "error") onError(message.command, message.message);
        else if (message.type === "frame") this.arriving = { head: message, pieces: [], missing: message.jpeg_bytes };
        else onState({ ...message, looking_at: this.pending.value("look", message.looking_at) });
      },
      onBinary: async (piece) => {
        const { head, pieces } = this.arriving;
        pieces.push(piece);
        this.arriving.missing -= piece.byteLength;
        if (this.arriving.missing > 0) return;
        if (this.showsImages) await onImage(head, new Blob(pieces, { type: "image/jpeg" }));
        this.unacknowledged = head.number;
        this.acknowledge();
      },
      onChange: (isConnected, reason) => {
        this.unacknowledged = null;
        if (isConnected && this.lookingAt !== null) this.look(this.lookingAt);
        onChange(isConnected, reason);
      },
    });
    document.addEventListener("visibilitychange", () => this.acknowledge());
    this.connection.open();
  }

  /** Requests the next image. A hidden tab and one that shows the visitor's camera do not, so they receive no images. */
  acknowledge() {
    if (this.unacknowledged === null || document.hidden || !this.showsImages) return;
    if (this.connection.send(JSON.stringify({ shown: this.unacknowledged }))) this.unacknowledged = null;
  }

  command(command, value = null) {
    return this.connection.send(JSON.stringify({ command, value }));
  }

  look(source) {
    this.lookingAt = source;
    this.pending.set("look", source);
    this.connection.send(JSON.stringify({ look: source }));
  }

  showImages(shows) {
    this.showsImages = shows;
    this.acknowledge();
  }
}

/** Selections that the server has not confirmed yet: older states that still arrive do not undo them. */
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
