// The operator's page: rates and latencies from /metrics, everything else from /monitor/data.
import { ask, byId, fill, fixed, html, put, say, svg } from "./dom.js";
import { chartOf, path, tick, timeline } from "./charts.js";
import { parseMetrics, quantile, total } from "./metrics.js";
import { showTraffic } from "./traffic.js";

byId("silent").remove();
const METRICS_MS = 2000, DATA_MS = 3000;
const SHOWN_SECONDS = 300, RATE_SECONDS = 60, HOURS = 24;
const ASKED = ["predict.", "invocations.", "riders.", "feedback."]; // not the pages' own requests
const samples = []; // of /metrics, oldest first
const heard = { metrics: null, data: null };

// --- rates and latencies --------------------------------------------------------------------

const isAsked = ({ endpoint }) => ASKED.some((start) => endpoint.startsWith(start));

function sampleOf(text) {
  const metrics = parseMetrics(text);
  return {
    t: Date.now() / 1000,
    requests: total(metrics, "taxi_requests_total", isAsked),
    refused: total(metrics, "taxi_requests_total", (l) => isAsked(l) && Number(l.status) >= 400),
    rides: total(metrics, "taxi_predictions_total"),
    feedback: total(metrics, "taxi_feedback_total"),
    latency: total.by(metrics, "taxi_latency_seconds_bucket", "le"),
  };
}

const since = (before, now) =>
  new Map([...now.latency].map(([le, count]) => [le, count - (before?.latency.get(le) ?? 0)]));
const milliseconds = (buckets, q) => {
  const seconds = quantile(buckets, q);
  return seconds === null ? null : 1000 * seconds;
};

async function pollMetrics() {
  const response = await fetch("/metrics");
  if (!response.ok) throw new Error(`/metrics answers with status ${response.status}`);
  const now = sampleOf(await response.text());
  const last = samples.at(-1);
  if (last && now.requests < last.requests) samples.length = 0; // the service began anew
  samples.push(now);
  while (now.t - samples[0].t > SHOWN_SECONDS + RATE_SECONDS) samples.shift();
  showMetrics(now);
}

function showMetrics(now) {
  const before = samples.find(({ t }) => now.t - t <= RATE_SECONDS);
  const seconds = now.t - before.t;
  const asked = now.requests - before.requests;
  put("rate", seconds > 0 ? fixed(asked / seconds, asked / seconds < 10 ? 2 : 0) : "–");
  put("errors", now.requests ? `${((100 * now.refused) / now.requests).toFixed(1)} %` : "–");
  put("rides", count(now.rides));
  put("feedback", count(now.feedback));
  let recent = since(before, now);
  if (!recent.get("+Inf")) recent = now.latency; // quiet: since the service began
  for (const q of [50, 95, 99]) put(`p${q}`, fixed(milliseconds(recent, q / 100), 2));
  const steps = samples.slice(1).map((to, i) => ({ from: samples[i], to }));
  const rates = steps.map(({ from, to }) => ({ t: to.t, v: (to.requests - from.requests) / (to.t - from.t) }));
  const at = (q) => steps.map(({ from, to }) => ({ t: to.t, v: milliseconds(since(from, to), q) }));
  fill("rate-plot",
    timeline([rates], SHOWN_SECONDS, "1/s", "Requests a second over the last five minutes",
      byId("rate-plot").clientWidth));
  fill("latency-plot",
    timeline([at(0.5), at(0.99)], SHOWN_SECONDS, "ms", "Latency over the last five minutes",
      byId("latency-plot").clientWidth));
}

// --- everything else ------------------------------------------------------------------------

const cell = (content, kind = null) => html("td", { class: kind }, content ?? "–");
const row = (...cells) => html("tr", {}, ...cells.map((one) => (one instanceof Node ? one : cell(one))));
const count = (number) => number.toLocaleString("en");
const percent = (share, digits = 1) => (share === null || share === undefined ? "–" : `${fixed(100 * share, digits)} %`);
const nameOf = (entry) => (entry ? `${entry.name}:${entry.version}` : "–");
const clock = (iso) => iso.slice(0, 19).replace("T", " ");
const when = (iso) => cell(clock(iso), "when");
const ago = (iso) => (iso ? `${clock(iso)} UTC` : "none");
const badge = (level) => html("span", { class: `level ${level}` }, level);
const within = (value, low, high) =>
  value === null || value === undefined ? "–"
    : low === null || low === undefined ? fixed(value, 2)
      : `${fixed(value, 2)} (${fixed(low, 2)}–${fixed(high, 2)})`;

/** Fill a table; a phone shows a column's name before each of its cells. */
function fillTable(id, rows, empty) {
  const titles = [...byId(id).closest("table").tHead.rows[0].cells].map((title) => title.textContent);
  for (const { cells } of rows) [...cells].forEach((one, i) => { one.dataset.column = titles[i]; });
  fill(id, ...(rows.length ? rows : [html("tr", {}, html("td", { colspan: titles.length, class: "muted" }, empty))]));
}

function showServing({ serving, trouble }) {
  say("trouble", trouble.join(" "));
  const sample = serving?.champion.data_source === "sample";
  say("source", sample ? "The champion learned from the built-in sample, not from real trips." : null);
  if (!serving) {
    put("serving", "No model serves.");
    return;
  }
  const { champion, challenger } = serving;
  fill("serving",
    "Champion ", html("b", {}, champion.model), ` (${champion.model_kind ?? "?"}`,
    champion.train_data ? `, learned from ${champion.train_data}` : "",
    champion.run_id ? `, run ${champion.run_id}` : "", ")",
    ...(challenger ? [serving.baking ? ", before it " : ", challenger ", html("b", {}, challenger.model), ` (${challenger.model_kind ?? "?"})`] : []), ".");
}

const toldOf = (one) => [count(one.feedback),
  one.short + one.long ? `${percent((one.short + one.long) / one.feedback)} outside 1–60 min` : null,
  ...Object.entries(one.quarantined).map(([reason, n]) => `${count(n)} ${reason.replaceAll("_", " ")}`),
].filter(Boolean).join(", ");

function showLog({ log, serving }) {
  const rows = log.models.map((one) => row(
    one.model, one.arm, count(one.predictions), toldOf(one),
    within(one.mean_error, one.error_low, one.error_high), percent(one.coverage), fixed(one.latency_ms, 2)));
  fillTable("versions", rows, log.trouble ?? "No ride was asked for yet.");
  put("window", `Last ${log.days} days of the prediction log. The interval takes rides as ` +
    "independent of each other; the verdict's, drawn over days, does not.");
  const own = log.models.find((one) => one.model === serving?.champion.model && one.arm === "champion");
  put("mae", fixed(own?.mean_error, 2));
}

function showHeadline({ headline: { level, text } }) {
  byId("headline").className = `headline ${level}`;
  put("headline", text);
}

/** The last hours as the log's sums have them: there before anything happens on this page. */
function showHours({ at, log, serving }) {
  const now = Math.ceil(at / 3600) * 3600, known = new Map(log.hours.map((one) => [one.at + 3600, one]));
  const hours = Array.from({ length: HOURS }, (_, i) => now - 3600 * (HOURS - 1 - i)); // their ends
  const expected = serving?.champion.validation_mae[0];
  const draw = (id, series, unit, label) => fill(id,
    timeline(series, 3600 * HOURS, unit, label, byId(id).clientWidth, 3600));
  draw("rides-plot", [hours.map((t) => ({ t, v: known.get(t)?.rides ?? 0 }))], "rides", "Rides by hour over the last day");
  draw("error-plot", [hours.map((t) => ({ t, v: known.get(t)?.mean_error ?? null })),
    expected === undefined ? [] : [{ t: hours[0] - 3600, v: expected }, { t: now, v: expected }]],
  "minutes", "Mean error by hour over the last day");
}

function showTraining({ training }) {
  say("training", training && `Last training: ${training.what}, ${fixed(training.minutes)} minutes of work. ` +
    `Its gain: ${training.gain} (${clock(training.at)} UTC)`);
}

/** How many true durations do not count, and why. */
function notScored(truths) {
  const others = Object.entries(truths).filter(([what]) => what !== "scored")
    .map(([what, n]) => `${count(n)} ${what.replaceAll("_", " ")}`);
  return others.length ? [html("li", {}, `true durations that do not count: ${others.join(", ")}`)] : [];
}

function showVerdict({ verdict }) {
  for (const part of ["segments-part", "drift-part"]) byId(part).hidden = !verdict;
  if (!verdict) return;
  byId("level").className = `level ${verdict.verdict}`;
  put("level", verdict.verdict);
  put("verdict-about", `${verdict.model} on the ${verdict.source}: ${count(verdict.rides)} ` +
    `rides, ${count(verdict.answered)} with a true duration that counts; made at ${clock(verdict.at)} UTC. ` +
    `Last ride ${ago(verdict.last_ride_at)}, last true duration ${ago(verdict.last_feedback_at)}.`);
  showEstimate(verdict.estimate);
  fill("reasons", ...verdict.reasons.map(({ kind, level, text }) =>
    html("li", {}, badge(level), ` ${kind}: ${text}`)), ...notScored(verdict.truths));
  fillTable("segments", verdict.errors.map((one) => row(
    { overall: "all", segment: one.group.replaceAll("_", " ") }[one.by] ?? `${one.by} ${one.group}`, count(one.rows),
    within(one.mae, one.mae_low, one.mae_high), percent(one.coverage))), "No true duration came in yet.");
  fillTable("drift", verdict.drift.map((one) => row(
    html("td", {}, one.feature.replaceAll("_", " "), " ", html("small", {}, one.measure)),
    `${+one.value.toPrecision(2)} ${one.unit}`, `${one.watch}, ${one.alarm}`, cell(badge(one.level)))), "Too few rides to tell.");
}

/** What is expected of the rides without a truth, beside what was measured on the others. */
function showEstimate(estimate) {
  byId("estimate").hidden = !estimate;
  if (!estimate) return;
  put("estimate", `Before their truth is known: ${count(estimate.rides)} rides without a true ` +
    `duration are expected to be off by ${within(estimate.mae, estimate.mae_low, estimate.mae_high)} minutes on average, ` +
    `and P10–P90 to hold ${percent(estimate.coverage)} of them (${percent(estimate.coverage_low)}–${percent(estimate.coverage_high)}). ` +
    "It knows the mix of rides, not today's traffic.");
}

function showTest({ serving, test }) {
  const on = serving?.challenger;
  put("ab", !on ? "No challenger."
    : serving.baking ? `${serving.champion.model} bakes: ${on.model}, the champion before, answers every ride in the shadow and takes over again if it is nearer.`
      : `${on.model} answers ${percent(serving.ab_share, 0)} of the rides; shadow answers are ${serving.shadow ? "on" : "off"}.`);
  fill("evidence", );
  if (!on || !test) return;
  byId("ab").textContent += ` Last look (${clock(test.at)} UTC): ${test.verdict} after ${test.blocks} days and ` +
    `${count(test.trips)} rides, ${test.gain_min < 0 ? "farther off" : "nearer"} by ${fixed(Math.abs(test.gain_min), 2)} minutes` +
    (test.boundary ? `; evidence ${test.e_value.toPrecision(3)} of the ${test.boundary} that decide.` : ".");
  if (test.boundary) byId("evidence").append(evidence(test.e_value, test.boundary));
}

/** Evidence against "no difference" on a logarithmic line; at the boundary the test is decided. */
function evidence(value, boundary) {
  const most = Math.log10(Math.max(boundary * 5, value));
  const x = (v) => 10 + (320 * Math.log10(Math.max(v, 1))) / most;
  const text = `Evidence ${value.toPrecision(3)}; the test is decided at ${boundary}.`;
  const chart = chartOf(360, 52, text, "band");
  chart.append(path("M10 16H330", "rail"),
    svg("rect", { x: 10, y: 9, width: x(value) - 10, height: 14, rx: 5, class: "likely" }),
    path(`M${x(boundary)} 3v28`, "needle"),
    tick(x(boundary), 46, `decided at ${boundary}`, "middle"), tick(10, 46, `evidence ${value.toPrecision(3)}`));
  return chart;
}

function showPast({ history, decisions, report, mlflow, serving }) {
  fillTable("history", history.map((one) => row(
    when(one.at), one.action, nameOf(one.champion), nameOf(one.challenger), cell(one.reason, "why"))), "Nothing was deployed yet.");
  fillTable("decisions", decisions.map((one) => row(when(one.at), one.what, cell(one.why, "why"))),
    "None yet: python pipeline.py auto takes a turn.");
  byId("report").hidden = !report;
  put("report-time", report ? clock(report) : "");
  const known = byId("mlflow-link");
  if (mlflow && serving && !known) {
    const [name, version] = serving.champion.model.split(":");
    const href = `${mlflow}/#/models/${encodeURIComponent(name)}/versions/${version}`;
    byId("links").append(" Tracked in ", html("a", { id: "mlflow-link", href, rel: "noreferrer" }, "MLflow"), ".");
  }
}

async function pollData() {
  const data = await ask("/monitor/data");
  let failed;
  for (const show of [showHeadline, showServing, showHours, showLog, showVerdict, showTraffic, showTest, showTraining, showPast]) {
    try {
      show(data);
    } catch (error) {
      failed ??= error; // the other parts are shown all the same
    }
  }
  if (failed) throw failed;
}

// --- the beat -------------------------------------------------------------------------------

function tell() {
  const wrong = Object.values(heard).find(Boolean);
  put("beat", wrong ? `not updated: ${wrong}` : "live");
}

/** Poll for ever, one at a time, and not while nobody looks. */
async function repeat(name, poll, pause) {
  if (!document.hidden) {
    try {
      await poll();
      heard[name] = null;
    } catch (error) {
      heard[name] = error.message;
    }
    tell();
  }
  setTimeout(repeat, pause, name, poll, pause);
}

repeat("metrics", pollMetrics, METRICS_MS);
repeat("data", pollData, DATA_MS);
