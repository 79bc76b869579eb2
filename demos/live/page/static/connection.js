/* A WebSocket to this page's own server that comes back by itself, less and less often while the server is gone. */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 5000;
const CONNECT_TIMEOUT_MS = 8000;

export class Connection {
  /** `onChange(isOpen, reason)` is told when it opens and closes; `reason` is the server's own, or "". */
  constructor(path, { onText = () => {}, onBinary = () => {}, onChange = () => {} }) {
    this.url = new URL(path, location.href);
    this.url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    Object.assign(this, { onText, onBinary, onChange, socket: null, pause: FIRST_PAUSE_MS, timer: 0, isWanted: false });
  }

  open() {
    if (this.isWanted) return;
    this.isWanted = true;
    this.connect();
  }

  close() {
    this.isWanted = false;
    clearTimeout(this.timer);
    this.socket?.close();
    this.socket = null;
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  /** Returns whether it could be sent. */
  send(message) {
    if (!this.isOpen) return false;
    this.socket.send(message);
    return true;
  }

  connect() {
    clearTimeout(this.timer);
    const socket = (this.socket = new WebSocket(this.url));
    socket.binaryType = "arraybuffer";
    const impatience = setTimeout(() => socket.close(), CONNECT_TIMEOUT_MS);
    socket.addEventListener("open", () => {
      clearTimeout(impatience);
      this.onChange(true, "");
    });
    socket.addEventListener("message", ({ data }) => {
      if (socket !== this.socket) return;
      this.pause = FIRST_PAUSE_MS;
      if (typeof data === "string") this.onText(JSON.parse(data));
      else this.onBinary(data);
    });
    socket.addEventListener("close", ({ reason }) => {
      clearTimeout(impatience);
      if (socket !== this.socket) return;
      this.onChange(false, reason);
      this.timer = setTimeout(() => this.isWanted && this.connect(), this.pause * (0.8 + 0.4 * Math.random()));
      this.pause = Math.min(2 * this.pause, LONGEST_PAUSE_MS);
    });
  }
}
