// The live traffic: what multiplies answers, area by area, over two days.
import { byId, fixed, html, say, svg } from "./dom.js";

const WIDE = 360, HIGH = 44;

/** An area's factors around the line of 1; `low` and `high` are those of all areas. */
function course({ name, line }, low, high) {
  const y = (factor) => 3 + ((HIGH - 6) * (high - factor)) / (high - low);
  const points = line.map((factor, i) => `${((WIDE * i) / (line.length - 1)).toFixed(1)} ${y(factor).toFixed(1)}`);
  const text = `${name}: factors from ${Math.min(...line)} to ${Math.max(...line)}`;
  return svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": text, class: "timeline" },
    svg("path", { d: `M0 ${y(1)}H${WIDE}`, class: "grid" }),
    svg("path", { d: `M${points.join("L")}`, class: "line" }));
}

/** Show `traffic` of /monitor/data. */
export function showTraffic({ traffic: { trouble, said, versions } }) {
  say(byId("traffic-trouble"), trouble);
  byId("traffic-about").textContent = said;
  byId("traffic-part").hidden = !versions.length;
  const factors = versions.flatMap(({ areas }) => areas.flatMap(({ line }) => line));
  const low = Math.min(0.95, ...factors), high = Math.max(1.05, ...factors);
  const rowOf = (area) => html("tr", {},
    ...[area.name, fixed(area.factor, 2), course(area, low, high)].map((one) => html("td", {}, one)));
  byId("traffic").replaceChildren(...versions.flatMap(({ model, areas }) =>
    [html("tr", {}, html("th", { scope: "rowgroup", colspan: 3 }, model)), ...areas.map(rowOf)]));
}
