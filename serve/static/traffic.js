// The live traffic: what multiplies answers, area by area, over two days.
import { byId, fill, fixed, html, put, say } from "./dom.js";
import { chartOf, path } from "./charts.js";

const WIDE = 360, HIGH = 44;

/** An area's factors around the line of 1; `low` and `high` are those of all areas. */
function course({ name, line }, low, high) {
  const y = (factor) => 3 + ((HIGH - 6) * (high - factor)) / (high - low);
  const points = line.map((factor, i) => `${((WIDE * i) / (line.length - 1)).toFixed(1)} ${y(factor).toFixed(1)}`);
  const text = `${name}: factors from ${Math.min(...line)} to ${Math.max(...line)}`;
  const chart = chartOf(WIDE, HIGH, text, "timeline", { preserveAspectRatio: "none" });
  chart.append(path(`M0 ${y(1)}H${WIDE}`, "grid"), path(`M${points.join("L")}`, "line"));
  return chart;
}

/** Show `traffic` of /monitor/data. */
export function showTraffic({ traffic: { trouble, said, versions } }) {
  say("traffic-trouble", trouble);
  put("traffic-about", said);
  byId("traffic-part").hidden = !versions.length;
  const factors = versions.flatMap(({ areas }) => areas.flatMap(({ line }) => line));
  const low = Math.min(0.95, ...factors), high = Math.max(1.05, ...factors);
  const rowOf = (area) => html("tr", {},
    ...[area.name, fixed(area.factor, 2), course(area, low, high)].map((one) => html("td", {}, one)));
  fill("traffic", ...versions.flatMap(({ model, areas }) =>
    [html("tr", {}, html("th", { scope: "rowgroup", colspan: 3 }, html("b", {}, model))), ...areas.map(rowOf)]));
}
