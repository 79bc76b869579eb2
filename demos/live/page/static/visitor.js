/* The visitor's camera to the server and back: one picture under way at a time, and how long its round trip took. */

import { listCameras, openCamera, UNPLUGGED } from "./camera.js";
import { Connection } from "./connection.js";

const LONGEST_SIDE = 640;
const JPEG_QUALITY = 0.85;
const ALONE_PAUSE_MS = 100; // without the server the picture still moves, and the browser's own model goes on

export class Visitor {
  /** Calls `onResult(canvas, result)`, `onTrouble({title, advice, canRetry} | null)`, `onCameras([{id, name}], id)`. */
  constructor({ onResult, onTrouble, onCameras, onChange }) {
    Object.assign(this, { onResult, onTrouble, onCameras, stream: null, source: null, answered: null, turn: 0, alone: 0 });
    this.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
    this.canvas = document.createElement("canvas");
    this.connection = new Connection("visitor", {
      onText: (message) => {
        if (message.type === "welcome") this.source = message.source;
        else this.answered?.(message);
      },
      onChange: (isOpen, reason) => {
        this.source = isOpen ? this.source : null;
        this.answered?.(null);
        onChange(isOpen, reason);
      },
    });
  }

  async start(deviceId = null) {
    this.stop();
    const turn = this.turn;
    try {
      const stream = await openCamera(deviceId);
      if (turn !== this.turn) return stream.getTracks().forEach((track) => track.stop());
      this.stream = stream;
      const [track] = stream.getVideoTracks();
      track.addEventListener("ended", () => turn === this.turn && this.fail(UNPLUGGED));
      this.video.srcObject = stream;
      await this.video.play();
      const cameras = await listCameras();
      if (turn !== this.turn) return undefined;
      this.onTrouble(null);
      this.onCameras(cameras, track.getSettings().deviceId);
    } catch (trouble) {
      if (turn === this.turn) this.fail(trouble.advice ? trouble : { ...UNPLUGGED, advice: [String(trouble)] });
      return undefined;
    }
    this.connection.open();
    return this.run(turn);
  }

  stop() {
    this.turn += 1;
    this.connection.close();
    this.answered?.(null);
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = this.source = this.video.srcObject = null;
  }

  fail(trouble) {
    this.stop();
    this.onTrouble(trouble);
  }

  async run(turn) {
    while (turn === this.turn) {
      if (document.hidden) await this.waitUntilSeen(turn);
      await nextPicture(this.video);
      if (turn !== this.turn || !this.capture()) continue;
      const result = this.source === null ? await this.goOnAlone() : await this.ask();
      if (turn === this.turn) this.onResult(this.canvas, result);
    }
  }

  /** A hidden tab sends nothing, and makes room for other visitors. */
  async waitUntilSeen(turn) {
    this.connection.close();
    this.source = null;
    while (document.hidden) {
      await new Promise((changed) => document.addEventListener("visibilitychange", changed, { once: true }));
    }
    if (turn === this.turn) this.connection.open();
  }

  /** Draws the newest picture, scaled down as the server needs no more. */
  capture() {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!width || !height) return false;
    const scale = Math.min(1, LONGEST_SIDE / Math.max(width, height));
    const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
    if (this.canvas.width !== wide || this.canvas.height !== high) Object.assign(this.canvas, { width: wide, height: high });
    this.canvas.getContext("2d", { alpha: false }).drawImage(this.video, 0, 0, wide, high);
    return true;
  }

  async ask() {
    const jpeg = await new Promise((done) => this.canvas.toBlob(done, "image/jpeg", JPEG_QUALITY));
    const sentMs = performance.now();
    const result = await new Promise((done) => {
      this.answered = done;
      if (!this.connection.send(jpeg)) done(null);
    });
    this.answered = null;
    if (result === null) return this.goOnAlone();
    return { ...result, round_trip_ms: performance.now() - sentMs };
  }

  async goOnAlone() {
    await new Promise((done) => setTimeout(done, ALONE_PAUSE_MS));
    return { number: `alone ${(this.alone += 1)}`, model_results: null, round_trip_ms: null };
  }
}

/** Resolves when the camera has another picture. */
function nextPicture(video) {
  return new Promise((done) => {
    const timer = setTimeout(done, 1000); // a camera that has stopped tells nobody
    const finish = () => (clearTimeout(timer), done());
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(finish);
    else requestAnimationFrame(finish);
  });
}
