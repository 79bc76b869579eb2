/* The model in the browser, in a worker of its own so that the page stays smooth. One worker loads one model once;
another model, provider or number of threads is another worker.

In:  {kind: "load", provider: "wasm" | "webgpu", threads}, once; then {kind: "frame", bitmap, sequence}, one at a time.
Out: {kind: "loaded", ...}, {kind: "answer", sequence, predictions, logits, preprocess_ms, infer_ms},
     {kind: "error", text}. */

import { checkPreprocessing, normalize, toModelInput } from "./preprocessing.js";

const MODULES = { wasm: "ort.wasm.bundle.min.mjs", webgpu: "ort.webgpu.bundle.min.mjs" };
const WARM_UP_RUNS = 5; // the first runs allocate; they are no part of a live loop's speed
const TOP = 5;

let model = null;
let context = null;

self.addEventListener("message", async ({ data }) => {
  try {
    if (data.kind === "load") {
      await load(data.provider, data.threads);
    } else {
      await classify(data.bitmap, data.sequence);
    }
  } catch (error) {
    self.postMessage({ kind: "error", text: oneLine(error) });
  }
});

async function load(provider, threads) {
  const startMs = performance.now();
  const manifest = checkManifest(await (await get("/model/manifest.json")).json());
  const ort = await importRuntime(provider);
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = threads;
  const bytes = await modelBytes(manifest);
  const session = await createSession(ort, bytes, provider);
  if (!session.inputNames.includes(manifest.input.name) || !session.outputNames.includes(manifest.output)) {
    throw new Error(`the model has no input ${manifest.input.name} or no output ${manifest.output}; export it again`);
  }
  model = { ort, session, manifest };
  const { input } = manifest;
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
    threads: provider === "wasm" ? ort.env.wasm.numThreads : null, // what is left of the wish when there is no isolation
    isolated: self.crossOriginIsolated,
    version: ort.env.versions.web,
    adapter: provider === "webgpu" ? await adapterName() : null,
    manifest,
  });
}

/** A GET whose failure is an Error in the server's own words. */
async function get(address) {
  let answer;
  try {
    answer = await fetch(address, { cache: "no-cache" });
  } catch {
    throw new Error("the server does not answer; is it still running?");
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Error(typeof told.error === "string" ? told.error : `the server answers ${answer.status} for ${address}`);
  }
  return answer;
}

function checkManifest(manifest) {
  const { input, preprocessing } = manifest;
  checkPreprocessing(preprocessing);
  const size = preprocessing.crop_size + 2 * preprocessing.padding;
  const known = ["uint8 NHWC", "float32 NCHW"].includes(`${input.dtype} ${input.layout}`);
  if (!known || input.height !== size || input.width !== size || ![null, 1].includes(input.batch)) {
    throw new Error("the model's input is none that this page can give (one picture at a time, uint8 or float32)");
  }
  return manifest;
}

async function importRuntime(provider) {
  const address = `/onnxruntime-web/${MODULES[provider]}`;
  await get(address); // an import that fails does not say why
  return import(address);
}

/** The model file that the manifest describes; where the browser can hash (https or localhost), verified. */
async function modelBytes(manifest) {
  const expected = manifest.files["model.onnx"];
  const bytes = await (await get(`/model/model.onnx?sha256=${encodeURIComponent(expected)}`)).arrayBuffer();
  if (self.crypto?.subtle !== undefined) {
    const digest = new Uint8Array(await self.crypto.subtle.digest("SHA-256", bytes));
    const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found !== expected) {
      throw new Error("the model is not the file its manifest describes (SHA-256 differs); export it again");
    }
  }
  return new Uint8Array(bytes);
}

async function createSession(ort, bytes, provider) {
  try {
    return await ort.InferenceSession.create(bytes, {
      executionProviders: [provider],
      // Idle threads that spin would burn the cores of the server's own backends, where it is the same machine.
      extra: { session: { intra_op: { allow_spinning: "0" } } },
    });
  } catch (error) {
    throw new Error(`onnxruntime-web cannot run this model on ${provider} here: ${oneLine(error)}`);
  }
}

async function adapterName() {
  const { info } = await navigator.gpu.requestAdapter();
  const name = info.description || [info.vendor, info.architecture].filter(Boolean).join(" ") || "a GPU without a name";
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
    kind: "answer",
    sequence,
    predictions: topOf(logits, model.manifest.labels),
    logits,
    preprocess_ms: preprocessedMs - startMs,
    infer_ms: inferredMs - preprocessedMs,
  });
}

function rgbaOf(bitmap) {
  const { width, height } = bitmap;
  if (context === null || context.canvas.width !== width || context.canvas.height !== height) {
    context = new OffscreenCanvas(width, height).getContext("2d", { alpha: false, willReadFrequently: true });
  }
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height).data;
}

function inputTensor(pixels) {
  const { input, preprocessing } = model.manifest;
  if (input.dtype === "uint8") {
    return new model.ort.Tensor("uint8", pixels, [1, input.height, input.width, 3]);
  }
  return new model.ort.Tensor("float32", normalize(pixels, preprocessing), [1, 3, input.height, input.width]);
}

async function infer(tensor) {
  const { session, manifest } = model;
  const outputs = await session.run({ [manifest.input.name]: tensor });
  const logits = Float32Array.from(await outputs[manifest.output].getData());
  if (logits.length !== manifest.num_classes || !logits.every(Number.isFinite)) {
    throw new Error("the model gives NaN, infinite or too few logits here; choose another way to run it");
  }
  return logits;
}

/** The most probable classes, best first, ties by class index; softmax over all classes. */
function topOf(logits, labels) {
  const largest = logits.reduce((most, logit) => Math.max(most, logit));
  const exponentials = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = exponentials.reduce((total, value) => total + value);
  return Array.from(logits.keys())
    .sort((one, other) => logits[other] - logits[one] || one - other)
    .slice(0, TOP)
    .map((index) => ({
      index,
      label: labels.length > 0 ? labels[index] : `class ${index}`,
      probability: exponentials[index] / sum,
    }));
}

function oneLine(error) {
  const text = String(error?.message ?? error).replace(/\s+/g, " ").trim();
  return text.length > 300 ? `${text.slice(0, 299)}…` : text || "the model failed without a reason";
}
