/* /live: the state of the demo, the server's pictures, and commands to it. */

import { Connection } from "./connection.js";
import { Wishes } from "./wishes.js";

/** Calls `onState({state, looking_at})`, `onPicture(head, jpeg)`, `onError(command, message)`, `onChange(isOpen, reason)`. */
export class Live {
  constructor({ onState, onPicture, onError, onChange }) {
    this.looksAt = null;
    this.wishes = new Wishes();
    this.wantsPictures = true;
    this.unacknowledged = null;
    this.connection = new Connection("live", {
      onText: (message) => {
        if (message.type === "error") onError(message.command, message.message);
        else onState({ ...message, looking_at: this.wishes.wanted("look", message.looking_at) });
      },
      onBinary: async (message) => {
        const { head, jpeg } = split(message);
        if (this.wantsPictures) await onPicture(head, jpeg);
        this.unacknowledged = head.number;
        this.acknowledge();
      },
      onChange: (isOpen, reason) => {
        this.unacknowledged = null;
        if (isOpen && this.looksAt !== null) this.look(this.looksAt);
        onChange(isOpen, reason);
      },
    });
    document.addEventListener("visibilitychange", () => this.acknowledge());
    this.connection.open();
  }

  /** The server sends the next picture when this one has been seen: none to a hidden tab, or to one that shows another. */
  acknowledge() {
    if (this.unacknowledged === null || document.hidden || !this.wantsPictures) return;
    if (this.connection.send(JSON.stringify({ shown: this.unacknowledged }))) this.unacknowledged = null;
  }

  command(command, value = null) {
    return this.connection.send(JSON.stringify({ command, value }));
  }

  look(source) {
    this.looksAt = source;
    this.wishes.set("look", source);
    this.connection.send(JSON.stringify({ look: source }));
  }

  showPictures(wanted) {
    this.wantsPictures = wanted;
    this.acknowledge();
  }
}

function split(message) {
  const length = new DataView(message).getUint32(0);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(message, 4, length)));
  return { head, jpeg: new Blob([new Uint8Array(message, 4 + length)], { type: "image/jpeg" }) };
}
