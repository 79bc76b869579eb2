/* A WebSocket to this page's server. It reconnects by itself when it closes or gets no message, with growing pauses. */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 3000;
const CONNECT_TIMEOUT_MS = 5000; // from the connection to the first message

export class Connection {
  /** Calls `onChange(isConnected, reason)` at the first message and when the connection is lost. `reason` is the server's,
  or "". After `silenceMs` without a message, the connection counts as lost; null: never. */
  constructor(path, { silenceMs = null, onText = () => {}, onBinary = () => {}, onChange }) {
    this.url = new URL(path, location.href);
    this.url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    Object.assign(this, { silenceMs, onText, onBinary, onChange });
    Object.assign(this, { socket: null, pause: FIRST_PAUSE_MS, timer: 0, isOpen: false });
  }

  open() {
    if (!this.isOpen) this.connect();
    this.isOpen = true;
  }

  close() {
    this.isOpen = false;
    this.detach();
  }

  /** Returns whether the message could be sent. */
  send(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(message);
    return true;
  }

  /** Reconnects if there is no message within this time. */
  expectMessage(withinMs) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.reconnect(), withinMs);
  }

  reconnect(reason = "") {
    if (this.socket === null) return;
    this.detach();
    this.onChange(false, reason);
    this.timer = setTimeout(() => this.connect(), this.pause * (0.8 + 0.4 * Math.random()));
    this.pause = Math.min(2 * this.pause, LONGEST_PAUSE_MS);
  }

  connect() {
    const socket = (this.socket = new WebSocket(this.url));
    socket.binaryType = "arraybuffer";
    this.expectMessage(CONNECT_TIMEOUT_MS);
    let isFirst = true;
    socket.addEventListener("message", ({ data }) => {
      if (socket !== this.socket) return;
      if (this.silenceMs === null) clearTimeout(this.timer);
      else this.expectMessage(this.silenceMs);
      this.pause = FIRST_PAUSE_MS;
      if (isFirst) this.onChange(true, "");
      isFirst = false;
      if (typeof data === "string") this.onText(JSON.parse(data));
      else this.onBinary(data);
    });
    socket.addEventListener("close", ({ reason }) => socket === this.socket && this.reconnect(reason));
  }

  /** Closes the socket without waiting for its "close" event, which takes a minute on a dead network. */
  detach() {
    clearTimeout(this.timer);
    const { socket } = this;
    this.socket = null;
    socket?.close();
  }
}
