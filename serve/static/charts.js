// Small charts in SVG; colours and type are in the style sheet.
import { svg } from "./dom.js";

/** Round steps of an axis from 0 to at least `largest`, about four of them. */
export function ticks(largest) {
  const rough = Math.max(largest, 1e-9) / 4;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * unit >= rough) * unit;
  const last = Math.ceil(largest / step - 1e-9);
  return Array.from({ length: Math.max(last, 1) + 1 }, (_, i) => i * step);
}

/** An empty chart, with words for who does not see it. */
export const chartOf = (wide, high, text, kind, more = {}) =>
  svg("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": text, class: kind, ...more });
export const path = (d, kind) => svg("path", { d, class: kind });
export const tick = (x, y, text, side) => svg("text", { x, y, class: side }, text);

/** The steps of a vertical axis, as lines from left to right. */
const grid = (steps, y, left, right) => steps.flatMap((step) =>
  [path(`M${left} ${y(step)}H${right}`, "grid"), tick(left - 5, y(step) + 4, +step.toPrecision(3), "end")]);

const through = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

/** The interval of an answer on a line of minutes. */
export function band({ p10, p50, p90 }, duration) {
  const steps = ticks(Math.max(p90, duration) * 1.15);
  const last = steps.at(-1);
  const x = (minutes) => 8 + (344 * Math.min(minutes, last)) / last;
  const text = `Eight of ten rides take ${p10.toFixed(0)} to ${p90.toFixed(0)} minutes, half of them less than ${p50.toFixed(0)}.`;
  const chart = chartOf(360, 46, text, "band");
  chart.append(path("M8 14H352", "rail"));
  for (const step of steps) chart.append(path(`M${x(step)} 26v4`, "axis"), tick(x(step), 42, step, "middle"));
  const width = Math.max(x(p90) - x(p10), 2);
  chart.append(
    svg("rect", { x: x(p10), y: 6, width, height: 16, rx: 5, class: "likely" }),
    path(`M${x(duration)} 2v24`, "needle"),
  );
  return chart;
}

/** The day from hour to hour: `hours` as /profile gives them, times in hours, `wide` in pixels. */
export function profile(hours, asked, best, now, wide) {
  const high = 240, left = 34, right = 18, top = 20, foot = 28;
  const steps = ticks(Math.max(...hours.map(({ interval }) => interval.p90)));
  const x = (hour) => left + ((wide - left - right) * hour) / 23;
  const y = (minutes) => high - foot - ((high - foot - top) * minutes) / steps.at(-1);
  const chart = chartOf(wide, high, "Minutes by hour of the start; the table below has the same figures.");
  chart.append(...grid(steps, y, left, wide - right), tick(0, 10, "minutes"));
  for (let hour = 0; hour < 24; hour += wide < 500 ? 6 : 3) {
    const label = `${String(hour).padStart(2, "0")}:00`;
    chart.append(tick(x(hour), high - 10, label, "middle"));
  }
  const over = hours.map(({ hour, interval }) => [x(hour), y(interval.p90)]);
  const under = hours.map(({ hour, interval }) => [x(hour), y(interval.p10)]).reverse();
  chart.append(
    path(`${through([...over, ...under])}Z`, "likely"),
    path(through(hours.map(({ hour, duration }) => [x(hour), y(duration)])), "line"),
    path(`M${x(asked)} ${top}V${high - foot}`, "asked"),
  );
  if (now > 0 && now < 23) { // what has passed of today
    chart.append(svg("rect", { x: left, y: top, width: x(now) - left, height: high - foot - top, class: "gone" }));
  }
  if (best && best.at < 1440) chart.append(svg("circle", { cx: x(best.at / 60), cy: y(best.duration), r: 6, class: "best" }));
  const half = (x(1) - x(0)) / 2;
  for (const { hour, duration, interval } of hours) {
    const says = `${hour}:00 – ${duration.toFixed(0)} min (${interval.p10.toFixed(0)} to ${interval.p90.toFixed(0)})`;
    const area = { x: x(hour) - half, y: top, width: 2 * half, height: high - foot - top, class: "hit" };
    chart.append(svg("rect", area, svg("title", {}, says)));
  }
  return chart;
}

/**
 * Lines over the last minutes; `series` are arrays of {t, v}, t in seconds, v null for a gap.
 *
 * With `every`, seconds, the first series is drawn as bars, each so long up to its t.
 */
export function timeline(series, seconds, unit, label, wide, every = null) {
  const high = 150, left = 40, top = 20, foot = 20;
  const values = series.flat().map(({ v }) => v).filter((v) => v !== null);
  const steps = ticks(Math.max(...values, 0) || 1);
  const now = Math.max(...series.flat().map(({ t }) => t), 0);
  const x = (t) => wide - 4 - ((wide - 4 - left) * (now - t)) / seconds;
  const y = (v) => high - foot - ((high - foot - top) * v) / steps.at(-1);
  const chart = chartOf(wide, high, label, "timeline");
  const begin = seconds < 7200 ? `${seconds / 60} min ago` : `${seconds / 3600} h ago`;
  chart.append(...grid(steps, y, left, wide - 4),
    tick(left, high - 3, begin), tick(wide - 4, high - 3, "now", "end"), tick(0, 10, unit));
  series.forEach((points, i) => {
    if (every && i === 0) {
      chart.append(...points.filter(({ v }) => v).map(({ t, v }) => svg("rect", { x: x(t - 0.9 * every), y: y(v),
        width: x(t) - x(t - 0.8 * every), height: y(0) - y(v), class: "bar" })));
      return;
    }
    let run = [];
    const flush = () => {
      if (run.length > 1) chart.append(path(through(run), `line line-${i}`));
      else if (run.length) chart.append(svg("circle", { cx: run[0][0], cy: run[0][1], r: 2, class: `dot line-${i}` }));
      run = [];
    };
    for (const { t, v } of points) {
      if (v === null) flush();
      else run.push([x(t), y(v)]);
    }
    flush();
  });
  return chart;
}
