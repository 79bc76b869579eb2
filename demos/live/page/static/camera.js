/* Opens the visitor's camera. */

const UNUSABLE = {
  NotAllowedError: [
    "The camera was not allowed",
    "Click the camera or lock sign beside the address, allow the camera, and try again. Images go to this server only " +
      "and are not stored.",
  ],
  NotFoundError: [
    "No camera found",
    "This device has no camera that the browser can use. Plug one in and try again.",
  ],
  NotReadableError: ["The camera is busy", "Another program may be using it. Close that program and try again."],
};
const SAME_AS = { SecurityError: "NotAllowedError", OverconstrainedError: "NotFoundError", AbortError: "NotReadableError" };

/** What is shown when the camera stops while it is used. */
export const UNPLUGGED = {
  title: "The camera has stopped",
  advice: ["It was unplugged, switched off, or taken by another program. Plug it in and try again."],
  canRetry: true,
};

/** A stream of the camera, or throws {title, advice: [text | {code}], canRetry}. */
export async function openCamera(deviceId = null) {
  if (!window.isSecureContext || !navigator.mediaDevices?.getUserMedia) throw insecureAddress();
  const which = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: { ideal: "environment" } };
  try {
    const video = { ...which, width: { ideal: 640 }, height: { ideal: 480 } };
    return await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    const unknown = ["The camera does not work", `The browser says: ${error.message}`];
    const [title, advice] = UNUSABLE[SAME_AS[error.name] ?? error.name] ?? unknown;
    throw { title, advice: [advice], canRetry: true };
  }
}

/** [{id, name}] of all cameras; their names are empty until the person has allowed one. */
export async function listCameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  const cameras = devices.filter((device) => device.kind === "videoinput");
  return cameras.map((device, at) => ({ id: device.deviceId, name: device.label || `camera ${at + 1}` }));
}

/** The command that makes this page available as http://127.0.0.1:8000 on another computer. */
export function tunnel() {
  const isHere = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  const bound = /^[\d.]+$|^\[/.test(location.hostname) ? location.hostname : "127.0.0.1"; // the server may listen only there
  return `ssh -L 8000:${bound}:${location.port || 80} ${isHere ? "device" : location.hostname}`;
}

function insecureAddress() {
  return {
    title: "This address may not use a camera",
    advice: [
      "Browsers allow a camera on https pages and on localhost only. On the computer with the camera, type:",
      { code: tunnel() },
      "and then open http://127.0.0.1:8000/ there.",
    ],
    canRetry: false,
  };
}
