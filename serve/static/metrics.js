// The Prometheus text format, as far as the monitor needs it.

const LINE = /^(\w+)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** Samples by name: arrays of {labels, value}. */
export function parseMetrics(text) {
  const metrics = new Map();
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (!found) continue;
    const [, name, labelText = "", value] = found;
    const labels = Object.fromEntries([...labelText.matchAll(LABEL)].map(([, key, text]) => [key, text]));
    if (!metrics.has(name)) metrics.set(name, []);
    metrics.get(name).push({ labels, value: Number(value) });
  }
  return metrics;
}

/** The sum of a metric over the label sets that are wanted. */
export function total(metrics, name, wanted = () => true) {
  const samples = (metrics.get(name) ?? []).filter(({ labels }) => wanted(labels));
  return samples.reduce((sum, { value }) => sum + value, 0);
}

/** Sums of a metric by one of its labels. */
total.by = (metrics, name, label) => {
  const sums = new Map();
  for (const { labels, value } of metrics.get(name) ?? []) {
    sums.set(labels[label], (sums.get(labels[label]) ?? 0) + value);
  }
  return sums;
};

/** A quantile of a histogram's cumulative buckets, on a line within its bucket; null when empty. */
export function quantile(buckets, q) {
  const bounds = [...buckets].map(([le, count]) => [le === "+Inf" ? Infinity : Number(le), count]);
  bounds.sort(([a], [b]) => a - b);
  const n = bounds.at(-1)?.[1] ?? 0;
  if (!n) return null;
  let lower = 0, below = 0;
  for (const [upper, count] of bounds) {
    if (count >= q * n) {
      if (upper === Infinity) return lower;
      return lower + ((upper - lower) * (q * n - below)) / Math.max(count - below, 1);
    }
    [lower, below] = [upper, count];
  }
  return lower;
}
