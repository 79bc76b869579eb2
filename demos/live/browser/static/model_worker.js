/* Loads one model and classifies frames, in a worker so that the page stays responsive. Another model, provider or
number of threads needs a new worker.

In:  {kind: "load", provider: "wasm" | "webgpu", threads}, once; then {kind: "frame", bitmap, sequence}, one at a time.
Out: {kind: "loaded", ...}, {kind: "result", sequence, predictions, logits, preprocess_ms, infer_ms},
     {kind: "error", text}. */

import { normalize, toModelInput } from "./preprocessing.js";

const MODULES = { wasm: "ort.wasm.bundle.min.mjs", webgpu: "ort.webgpu.bundle.min.mjs" };
const WARM_UP_RUNS = 5; // the first runs allocate memory
const TOP_K = 5;

let model = null; // {ort, session, manifest}
let context = null; // of a canvas of the last frame's size

self.addEventListener("message", async ({ data }) => {
  try {
    if (data.kind === "load") await load(data.provider, data.threads);
    else await classify(data.bitmap, data.sequence);
  } catch (error) {
    self.postMessage({ kind: "error", text: oneLine(error) });
  }
});

async function load(provider, threads) {
  const startMs = performance.now();
  const manifest = await (await get("/model/manifest.json")).json();
  const { input } = manifest;
  if (![null, 1].includes(input.batch)) {
    throw new Error(`the model takes ${input.batch} images at once; export it with a batch of 1`);
  }
  const ort = await importRuntime(provider);
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = threads;
  model = { ort, manifest, session: await createSession(ort, await fetchModel(manifest), provider) };
  const black = new Uint8Array(input.height * input.width * 3);
  const runsMs = [];
  for (let run = 0; run < WARM_UP_RUNS; run++) {
    const runMs = performance.now();
    await infer(inputTensor(black));
    runsMs.push(performance.now() - runMs);
  }
  self.postMessage({
    kind: "loaded",
    load_ms: performance.now() - startMs,
    first_infer_ms: runsMs[0],
    threads: provider === "wasm" ? ort.env.wasm.numThreads : null, // 1 if the page is not cross-origin isolated
    version: ort.env.versions.web,
    adapter: provider === "webgpu" ? await adapterName() : null,
    manifest,
  });
}

/** A GET that throws the server's error message. */
async function get(address) {
  let response;
  try {
    response = await fetch(address, { cache: "no-cache" });
  } catch {
    throw new Error("the server does not respond; start it again");
  }
  if (!response.ok) throw new Error(await response.text());
  return response;
}

async function importRuntime(provider) {
  const address = `/onnxruntime-web/${MODULES[provider]}`;
  await get(address); // reports the reason, which the error of a failed import lacks
  return import(address);
}

/** Fetches the model file. Checks its hash if crypto.subtle exists (https or localhost). */
async function fetchModel(manifest) {
  const expected = manifest.files["model.onnx"];
  const bytes = await (await get(`/model/model.onnx?sha256=${encodeURIComponent(expected)}`)).arrayBuffer();
  if (self.crypto?.subtle !== undefined) {
    const digest = new Uint8Array(await self.crypto.subtle.digest("SHA-256", bytes));
    const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found !== expected) throw new Error("the model's SHA-256 is not the manifest's; export it again");
  }
  return new Uint8Array(bytes);
}

async function createSession(ort, bytes, provider) {
  try {
    return await ort.InferenceSession.create(bytes, {
      executionProviders: [provider],
      // Busy-waiting threads would take CPU time from the server's backends on the same machine.
      extra: { session: { intra_op: { allow_spinning: "0" } } },
    });
  } catch (error) {
    throw new Error(`onnxruntime-web cannot run this model on ${provider} here: ${oneLine(error)}`);
  }
}

async function adapterName() {
  const { info } = await navigator.gpu.requestAdapter();
  const name = info.description || [info.vendor, info.architecture].filter(Boolean).join(" ") || "unnamed GPU";
  return info.isFallbackAdapter ? `${name} (software, no GPU)` : name;
}

async function classify(bitmap, sequence) {
  const startMs = performance.now();
  const { width, height } = bitmap;
  const tensor = inputTensor(toModelInput(rgbaOf(bitmap), width, height, model.manifest.preprocessing));
  const preprocessedMs = performance.now();
  const logits = await infer(tensor);
  const inferredMs = performance.now();
  self.postMessage({
    kind: "result",
    sequence,
    predictions: topK(logits, model.manifest.labels),
    logits,
    preprocess_ms: preprocessedMs - startMs,
    infer_ms: inferredMs - preprocessedMs,
  });
}

function rgbaOf(bitmap) {
  const { width, height } = bitmap;
  if (context?.canvas.width !== width || context.canvas.height !== height) {
    context = new OffscreenCanvas(width, height).getContext("2d", { alpha: false, willReadFrequently: true });
  }
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height).data;
}

function inputTensor(pixels) {
  const { ort, manifest } = model;
  const { dtype, height, width } = manifest.input;
  if (dtype === "uint8") return new ort.Tensor("uint8", pixels, [1, height, width, 3]);
  return new ort.Tensor("float32", normalize(pixels, manifest.preprocessing), [1, 3, height, width]);
}

async function infer(tensor) {
  const { session, manifest } = model;
  const outputs = await session.run({ [manifest.input.name]: tensor });
  const logits = Float32Array.from(await outputs[manifest.output].getData());
  if (logits.length !== manifest.num_classes || !logits.every(Number.isFinite)) {
    throw new Error("the logits are NaN, infinite or too few; choose another provider");
  }
  return logits;
}

/** The most probable classes, best first, ties by class index; probabilities by softmax over all classes. */
function topK(logits, labels) {
  const max = Math.max(...logits);
  const exponentials = logits.map((logit) => Math.exp(logit - max));
  const sum = exponentials.reduce((total, value) => total + value);
  return Array.from(logits.keys())
    .sort((a, b) => logits[b] - logits[a] || a - b)
    .slice(0, TOP_K)
    .map((index) => ({ index, label: labels[index] ?? `class ${index}`, probability: exponentials[index] / sum }));
}

function oneLine(error) {
  const text = String(error?.message ?? error).replace(/\s+/g, " ").trim();
  return text.length > 300 ? `${text.slice(0, 299)}…` : text || "the model failed without a reason";
}
