/* Converts a frame of any size to the model's input: the same pixels as simplenet/preprocessing.py.

Resizing and center crop are one step: only the crop box, whose edges may be fractions of a pixel, is resampled. The
filter is Pillow's antialiased bicubic one (a = -0.5, wider when the image shrinks), in fixed-point arithmetic, first
horizontally, then vertically. (Pillow 13 starts vertically if a frame is much taller than wide.) No DOM is needed. */

// Of a weight. With 8 bits of a pixel and one for the filter's overshoot (less than 2x), a sum fits into 32 bits.
const FRACTION_BITS = 22;
const HALF = 1 << (FRACTION_BITS - 1); // added to each sum, so that the shift rounds

let plan = null; // the weights for the last frame size

/** The center crop, rounded as `crop_geometry` does; `box` is [left, top, right, bottom] in the frame's pixels. */
export function cropGeometry(width, height, { resize_shorter_side: shorter, crop_size: crop }) {
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

/** RGBA bytes [height, width, 4] -> RGB bytes [S, S, 3] with S = crop_size + 2 * padding, not yet normalized. */
export function toModelInput(rgba, width, height, preprocessing) {
  const { crop_size: crop, padding } = preprocessing;
  const key = `${width} ${height} ${preprocessing.resize_shorter_side} ${crop}`;
  if (plan?.key !== key) plan = { key, ...makePlan(width, height, preprocessing) };
  const { columns, rows, firstRow, lastRow, resized } = plan;
  for (let row = firstRow, target = 0; row < lastRow; row++) {
    for (let column = 0; column < crop; column++, target += 3) {
      const tap = column * columns.stride;
      const source = (row * width + columns.starts[column]) * 4;
      blend(rgba, source, 4, columns.weights, tap, tap + columns.counts[column], resized, target);
    }
  }
  const size = crop + 2 * padding;
  const pixels = new Uint8ClampedArray(size * size * 3);
  for (let row = 0; row < crop; row++) {
    const tap = row * rows.stride;
    const end = tap + rows.counts[row];
    let source = (rows.starts[row] - firstRow) * crop * 3;
    let target = ((row + padding) * size + padding) * 3;
    for (let column = 0; column < crop; column++, source += 3, target += 3) {
      blend(resized, source, crop * 3, rows.weights, tap, end, pixels, target);
    }
  }
  return new Uint8Array(pixels.buffer);
}

/** RGB bytes [S, S, 3] -> float32 [3, S, S], (x / 255 - mean) / std, for artifacts with a float32 input. */
export function normalize(pixels, { mean, std }) {
  const area = pixels.length / 3;
  const values = new Float32Array(pixels.length);
  for (let channel = 0; channel < 3; channel++) {
    const levels = normalizedLevels(mean[channel], std[channel]);
    for (let index = 0; index < area; index++) values[channel * area + index] = levels[pixels[3 * index + channel]];
  }
  return values;
}

/** Python's round(): to the nearest whole number, halves to the even one. */
function halfToEven(value) {
  const down = Math.floor(value);
  const rest = value - down;
  return rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down;
}

function makePlan(width, height, preprocessing) {
  const { crop_size: crop } = preprocessing;
  const box = cropGeometry(width, height, preprocessing).box;
  const [left, top, right, bottom] = box.map(Math.fround); // Pillow takes the box as 32-bit floats
  const columns = filterWeights(width, left, right, crop);
  const rows = filterWeights(height, top, bottom, crop);
  const firstRow = rows.starts[0];
  const lastRow = rows.starts[crop - 1] + rows.counts[crop - 1];
  const resized = new Uint8ClampedArray((lastRow - firstRow) * crop * 3); // the rows that the second pass needs
  return { columns, rows, firstRow, lastRow, resized };
}

/** Resamples [start, stop) of a line of `limit` pixels to `size` pixels. Returns, for each of them, the first pixel that
is read, the number of pixels, and their weights. */
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

/** Keys' cubic with a = -0.5, also called Catmull-Rom. */
function bicubic(x) {
  const a = -0.5;
  const distance = Math.abs(x);
  if (distance < 1) return ((a + 2) * distance - (a + 3)) * distance * distance + 1;
  return distance < 2 ? (((distance - 5) * distance + 8) * distance - 4) * a : 0;
}

/** Sums the weighted RGB pixels that start at `from` in `source` and are `step` bytes apart. Writes the sum to `target`
at `at`; the clamped array limits it to 0..255. */
function blend(source, from, step, weights, tap, end, target, at) {
  let red = HALF;
  let green = HALF;
  let blue = HALF;
  for (; tap < end; tap++, from += step) {
    const weight = weights[tap];
    red = (red + Math.imul(source[from], weight)) | 0;
    green = (green + Math.imul(source[from + 1], weight)) | 0;
    blue = (blue + Math.imul(source[from + 2], weight)) | 0;
  }
  target[at] = red >> FRACTION_BITS;
  target[at + 1] = green >> FRACTION_BITS;
  target[at + 2] = blue >> FRACTION_BITS;
}

/** The 256 levels normalized, rounded to float32 after every step as NumPy does. */
function normalizedLevels(mean, std) {
  return Float32Array.from({ length: 256 }, (_, value) =>
    Math.fround(Math.fround(Math.fround(value / 255) - Math.fround(mean)) / Math.fround(std)),
  );
}
