/* A WebSocket to this page's server that reconnects by itself, with growing pauses while the server is gone. */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 5000;
const CONNECT_TIMEOUT_MS = 8000;

export class Connection {
  /** Calls `onChange(isOpen, reason)` when it opens and closes; `reason` is the server's, or "". */
  constructor(path, { onText = () => {}, onBinary = () => {}, onChange = () => {} }) {
    this.url = new URL(path, location.href);
    this.url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    Object.assign(this, { onText, onBinary, onChange, socket: null, pause: FIRST_PAUSE_MS, timer: 0, isEnabled: false });
  }

  open() {
    if (this.isEnabled) return;
    this.isEnabled = true;
    this.connect();
  }

  close() {
    this.isEnabled = false;
    clearTimeout(this.timer);
    this.socket?.close();
    this.socket = null;
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  /** Returns whether the message could be sent. */
  send(message) {
    if (!this.isOpen) return false;
    this.socket.send(message);
    return true;
  }

  connect() {
    clearTimeout(this.timer);
    const socket = (this.socket = new WebSocket(this.url));
    socket.binaryType = "arraybuffer";
    const timeout = setTimeout(() => socket.close(), CONNECT_TIMEOUT_MS);
    socket.addEventListener("open", () => {
      clearTimeout(timeout);
      this.onChange(true, "");
    });
    socket.addEventListener("message", ({ data }) => {
      if (socket !== this.socket) return;
      this.pause = FIRST_PAUSE_MS;
      if (typeof data === "string") this.onText(JSON.parse(data));
      else this.onBinary(data);
    });
    socket.addEventListener("close", ({ reason }) => {
      clearTimeout(timeout);
      if (socket !== this.socket) return;
      this.onChange(false, reason);
      this.timer = setTimeout(() => this.isEnabled && this.connect(), this.pause * (0.8 + 0.4 * Math.random()));
      this.pause = Math.min(2 * this.pause, LONGEST_PAUSE_MS);
    });
  }
}
