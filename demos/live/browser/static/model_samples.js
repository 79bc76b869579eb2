/* Latencies and their percentiles, as runtimes/timing.py has them: nearest rank, and none that n cannot carry. */

const SAMPLES_FOR_P90 = 64; // MLPerf LoadGen's rule
const KEPT_SAMPLES = 1000; // a page may stay open for weeks

export class Samples {
  #latest = [];

  add(value) {
    this.#latest.push(value);
    if (this.#latest.length > KEPT_SAMPLES) {
      this.#latest.shift();
    }
  }

  /** {n, p50, p90}; null where there are too few. */
  summary() {
    const ordered = Float64Array.from(this.#latest).sort();
    const n = ordered.length;
    const percentile = (percent) => ordered[Math.ceil((percent * n) / 100) - 1];
    return { n, p50: n > 0 ? percentile(50) : null, p90: n >= SAMPLES_FOR_P90 ? percentile(90) : null };
  }
}
