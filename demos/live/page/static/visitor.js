/* The visitor's camera to the server and back: one image at a time, with its round-trip time. */

import { listCameras, openCamera, UNPLUGGED } from "./camera.js";
import { Connection } from "./connection.js";

const LONGEST_SIDE = 640;
const JPEG_QUALITY = 0.85;
const ANSWER_TIMEOUT_MS = 8000; // the server answers within 3 s, also while the demo is paused
const OFFLINE_PAUSE_MS = 100; // without the server the image still moves, for the model in the browser

export class Visitor {
  /** Calls `onResult(canvas, result)`, `onError({title, advice, canRetry} | null)`, `onCameras([{id, name}], id)`. */
  constructor({ onResult, onError, onCameras, onChange }) {
    Object.assign(this, { onResult, onError, onCameras, stream: null, source: null, resolve: null, attempt: 0, offline: 0 });
    this.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
    this.canvas = document.createElement("canvas");
    this.connection = new Connection("visitor", {
      onText: (message) => {
        if (message.type === "welcome") this.source = message.source;
        else this.resolve?.(message);
      },
      onChange: (isConnected, reason) => {
        this.source = null;
        this.resolve?.(null);
        onChange(isConnected, reason);
      },
    });
  }

  async start(deviceId = null) {
    this.stop();
    const attempt = this.attempt;
    try {
      const stream = await openCamera(deviceId);
      if (attempt !== this.attempt) return stream.getTracks().forEach((track) => track.stop());
      this.stream = stream;
      const [track] = stream.getVideoTracks();
      track.addEventListener("ended", () => attempt === this.attempt && this.fail(UNPLUGGED));
      this.video.srcObject = stream;
      await this.video.play();
      const cameras = await listCameras();
      if (attempt !== this.attempt) return undefined;
      this.onError(null);
      this.onCameras(cameras, track.getSettings().deviceId);
    } catch (error) {
      if (attempt === this.attempt) this.fail(error.advice ? error : { ...UNPLUGGED, advice: [String(error)] });
      return undefined;
    }
    this.connection.open();
    return this.run(attempt);
  }

  stop() {
    this.attempt += 1;
    this.connection.close();
    this.resolve?.(null);
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = this.source = this.video.srcObject = null;
  }

  fail(error) {
    this.stop();
    this.onError(error);
  }

  async run(attempt) {
    while (attempt === this.attempt) {
      if (document.hidden) await this.waitUntilVisible(attempt);
      await nextImage(this.video);
      if (attempt !== this.attempt || !this.capture()) continue;
      const result = this.source === null ? await this.skipServer() : await this.classify();
      if (attempt === this.attempt) this.onResult(this.canvas, result);
    }
  }

  /** A hidden tab sends nothing and frees its place for other visitors. */
  async waitUntilVisible(attempt) {
    this.connection.close();
    this.source = null;
    while (document.hidden) {
      await new Promise((changed) => document.addEventListener("visibilitychange", changed, { once: true }));
    }
    if (attempt === this.attempt) this.connection.open();
  }

  /** Draws the newest image, scaled down: the server needs no more pixels. Returns whether there was one. */
  capture() {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!width || !height) return false;
    const scale = Math.min(1, LONGEST_SIDE / Math.max(width, height));
    const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
    if (this.canvas.width !== wide || this.canvas.height !== high) Object.assign(this.canvas, { width: wide, height: high });
    this.canvas.getContext("2d", { alpha: false }).drawImage(this.video, 0, 0, wide, high);
    return true;
  }

  async classify() {
    const jpeg = await new Promise((done) => this.canvas.toBlob(done, "image/jpeg", JPEG_QUALITY));
    const sentMs = performance.now();
    const result = await new Promise((done) => {
      this.resolve = done;
      if (this.connection.send(jpeg)) this.connection.expectMessage(ANSWER_TIMEOUT_MS);
      else done(null);
    });
    this.resolve = null;
    if (result === null) return this.skipServer();
    return { ...result, round_trip_ms: performance.now() - sentMs };
  }

  async skipServer() {
    await new Promise((done) => setTimeout(done, OFFLINE_PAUSE_MS));
    return { number: `offline ${(this.offline += 1)}`, model_results: null, round_trip_ms: null };
  }
}

/** Resolves when the camera has another image. */
function nextImage(video) {
  return new Promise((done) => {
    const timer = setTimeout(done, 1000); // a stopped camera never calls back
    const finish = () => (clearTimeout(timer), done());
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(finish);
    else requestAnimationFrame(finish);
  });
}
