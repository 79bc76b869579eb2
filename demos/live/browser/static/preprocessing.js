/* From a frame of any size to what the model takes: the same pixels as simplenet/preprocessing.py.

The shorter side is resized, the center cropped, in one step: only the crop's box, fractions of a pixel included, is
resampled, by the antialiased bicubic filter of Pillow (a = -0.5, wider where the picture shrinks), in Pillow's
fixed-point arithmetic, across and then down. (Pillow 13 goes down first where a frame is much taller than wide.)
Every number comes from the manifest. No DOM in here: it runs in a worker, and in node. */

const FRACTION_BITS = 22; // of a weight; weights sum to 1, a pixel has 8 bits, and the filter overshoots by less than 2x
const HALF = 1 << (FRACTION_BITS - 1); // sums start with it, so that dropping the fraction rounds
const KEPT_PLANS = 16;

const plans = new Map();

/** Throws a TypeError for values that make no sense, as `Preprocessing.check` does. */
export function checkPreprocessing(preprocessing) {
  const { resize_shorter_side: shorter, crop_size: crop, padding, mean, std } = preprocessing;
  const whole = [shorter, crop, padding].every(Number.isInteger);
  if (!whole || crop < 1 || crop > shorter || shorter > 4096 || padding < 0 || padding > 1024) {
    throw new TypeError(`preprocessing has impossible sizes: resize ${shorter}, crop ${crop}, padding ${padding}`);
  }
  const isSane = (value) => typeof value === "number" && Math.abs(value) < 1e6; // and not NaN
  const sane = (values) => Array.isArray(values) && values.length === 3 && values.every(isSane);
  if (!sane(mean) || !sane(std) || Math.min(...std) < 1e-6) {
    throw new TypeError(`preprocessing has an impossible mean ${mean} or std ${std}`);
  }
}

/** Where the model looks, rounded as `crop_geometry` does; `box` is [left, top, right, bottom] in the frame's pixels. */
export function cropGeometry(width, height, preprocessing) {
  const { resize_shorter_side: shorter, crop_size: crop } = preprocessing;
  const resizedWidth = width <= height ? shorter : Math.trunc((shorter * width) / height);
  const resizedHeight = width <= height ? Math.trunc((shorter * height) / width) : shorter;
  const left = halfToEven((resizedWidth - crop) / 2);
  const top = halfToEven((resizedHeight - crop) / 2);
  const scaleX = width / resizedWidth;
  const scaleY = height / resizedHeight;
  const right = Math.min((left + crop) * scaleX, width);
  const bottom = Math.min((top + crop) * scaleY, height);
  return { resizedWidth, resizedHeight, left, top, box: [left * scaleX, top * scaleY, right, bottom] };
}

/**
 * RGBA bytes [height, width, 4] -> RGB bytes [S, S, 3] with S = crop_size + 2 * padding, not yet normalized.
 * The result is the caller's own. Throws a TypeError for a frame of an impossible size.
 */
export function toModelInput(rgba, width, height, preprocessing) {
  checkFrame(rgba, width, height);
  const { crop_size: crop, padding } = preprocessing;
  const plan = planFor(width, height, preprocessing);
  const size = crop + 2 * padding;
  const pixels = new Uint8Array(size * size * 3);
  if (plan.columns === null) {
    copyCrop(rgba, width, plan.geometry, crop, pixels, size, padding);
  } else {
    resampleColumns(rgba, width, plan, crop);
    resampleRows(plan, crop, pixels, size, padding);
  }
  return pixels;
}

/** RGB bytes [S, S, 3] -> float32 [3, S, S], (x / 255 - mean) / std: what artifacts with a float32 input take. */
export function normalize(pixels, preprocessing) {
  const area = pixels.length / 3;
  const values = new Float32Array(pixels.length);
  for (let channel = 0; channel < 3; channel++) {
    const table = normalizedLevels(preprocessing.mean[channel], preprocessing.std[channel]);
    for (let index = 0; index < area; index++) {
      values[channel * area + index] = table[pixels[3 * index + channel]];
    }
  }
  return values;
}

function checkFrame(rgba, width, height) {
  const sides = [width, height];
  const whole = sides.every((side) => Number.isInteger(side) && side >= 1 && side <= 65535);
  if (!whole || Math.max(...sides) > 200 * Math.min(...sides)) {
    throw new TypeError(
      `a frame of ${width}x${height} pixels cannot be used: sides 1 to 65535, at most 200 times as long as wide`,
    );
  }
  if (rgba.length !== width * height * 4) {
    throw new TypeError(`a frame of ${width}x${height} pixels has ${width * height * 4} bytes, not ${rgba.length}`);
  }
}

/** Python's round(): to the nearest whole number, halves to the even one. */
function halfToEven(value) {
  const down = Math.floor(value);
  const rest = value - down;
  return rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down;
}

/** The weights of a frame size, computed once; `columns` is null where no pixel changes size. */
function planFor(width, height, preprocessing) {
  const { resize_shorter_side: shorter, crop_size: crop } = preprocessing;
  const key = `${width} ${height} ${shorter} ${crop}`;
  let plan = plans.get(key);
  if (plan === undefined) {
    plan = makePlan(width, height, preprocessing);
    if (plans.size >= KEPT_PLANS) {
      plans.delete(plans.keys().next().value); // the oldest
    }
    plans.set(key, plan);
  }
  return plan;
}

function makePlan(width, height, preprocessing) {
  const crop = preprocessing.crop_size;
  const geometry = cropGeometry(width, height, preprocessing);
  if (geometry.resizedWidth === width && geometry.resizedHeight === height) {
    return { geometry, columns: null };
  }
  const [left, top, right, bottom] = geometry.box.map(Math.fround); // Pillow takes the box as 32-bit floats
  const columns = filterWeights(width, left, right, crop);
  const rows = filterWeights(height, top, bottom, crop);
  const firstRow = rows.starts[0];
  const lastRow = rows.starts[crop - 1] + rows.counts[crop - 1];
  const between = new Uint8Array((lastRow - firstRow) * crop * 3); // resized across, not yet down
  return { geometry, columns, rows, firstRow, lastRow, between };
}

/** For each of `size` outputs over [start, stop) of `limit` pixels: the first pixel, how many, and their weights. */
function filterWeights(limit, start, stop, size) {
  const scale = Math.fround(stop - start) / size;
  const stretch = Math.max(scale, 1);
  const support = 2 * stretch;
  const stride = 2 * Math.ceil(support) + 1;
  const starts = new Int32Array(size);
  const counts = new Int32Array(size);
  const weights = new Int32Array(size * stride);
  const exact = new Float64Array(stride);
  for (let index = 0; index < size; index++) {
    const center = start + (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const count = Math.min(limit, Math.trunc(center + support + 0.5)) - first;
    let sum = 0;
    for (let tap = 0; tap < count; tap++) {
      exact[tap] = bicubic((tap + first - center + 0.5) * (1 / stretch));
      sum += exact[tap];
    }
    for (let tap = 0; tap < count; tap++) {
      const weight = (sum === 0 ? exact[tap] : exact[tap] / sum) * 2 ** FRACTION_BITS;
      weights[index * stride + tap] = Math.trunc(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    starts[index] = first;
    counts[index] = count;
  }
  return { starts, counts, weights, stride };
}

/** Keys' cubic with a = -0.5, which others call Catmull-Rom. */
function bicubic(x) {
  const a = -0.5;
  const distance = Math.abs(x);
  if (distance < 1) {
    return ((a + 2) * distance - (a + 3)) * distance * distance + 1;
  }
  return distance < 2 ? (((distance - 5) * distance + 8) * distance - 4) * a : 0;
}

/** Every needed row of the frame to the crop's width, into `plan.between`. */
function resampleColumns(rgba, width, plan, crop) {
  const { between, firstRow, lastRow } = plan;
  const { starts, counts, weights, stride } = plan.columns;
  let target = 0;
  for (let row = firstRow; row < lastRow; row++) {
    for (let column = 0; column < crop; column++) {
      let source = (row * width + starts[column]) * 4;
      let tap = column * stride;
      const end = tap + counts[column];
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      for (; tap < end; tap++, source += 4) {
        const weight = weights[tap];
        red = (red + Math.imul(rgba[source], weight)) | 0;
        green = (green + Math.imul(rgba[source + 1], weight)) | 0;
        blue = (blue + Math.imul(rgba[source + 2], weight)) | 0;
      }
      between[target] = level(red);
      between[target + 1] = level(green);
      between[target + 2] = level(blue);
      target += 3;
    }
  }
}

/** `plan.between` to the crop's height, into the middle of `pixels`. */
function resampleRows(plan, crop, pixels, size, padding) {
  const { between, firstRow } = plan;
  const { starts, counts, weights, stride } = plan.rows;
  const length = crop * 3;
  for (let row = 0; row < crop; row++) {
    const firstSource = (starts[row] - firstRow) * length;
    const firstTap = row * stride;
    const end = firstTap + counts[row];
    let target = ((row + padding) * size + padding) * 3;
    for (let index = 0; index < length; index += 3, target += 3) {
      let source = firstSource + index;
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      for (let tap = firstTap; tap < end; tap++, source += length) {
        const weight = weights[tap];
        red = (red + Math.imul(between[source], weight)) | 0;
        green = (green + Math.imul(between[source + 1], weight)) | 0;
        blue = (blue + Math.imul(between[source + 2], weight)) | 0;
      }
      pixels[target] = level(red);
      pixels[target + 1] = level(green);
      pixels[target + 2] = level(blue);
    }
  }
}

function level(sum) {
  const value = sum >> FRACTION_BITS;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

function copyCrop(rgba, width, geometry, crop, pixels, size, padding) {
  for (let row = 0; row < crop; row++) {
    let source = ((geometry.top + row) * width + geometry.left) * 4;
    let target = ((row + padding) * size + padding) * 3;
    for (let column = 0; column < crop; column++, source += 4, target += 3) {
      pixels[target] = rgba[source];
      pixels[target + 1] = rgba[source + 1];
      pixels[target + 2] = rgba[source + 2];
    }
  }
}

/** Each of the 256 levels normalized, rounded to float32 after every step as numpy does. */
function normalizedLevels(mean, std) {
  return Float32Array.from({ length: 256 }, (_, value) =>
    Math.fround(Math.fround(Math.fround(value / 255) - Math.fround(mean)) / Math.fround(std)),
  );
}
