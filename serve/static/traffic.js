// The live traffic: what multiplies answers, area by area, over two days, and what it bought.
import { byId, fixed, html, say, svg } from "./dom.js";

const WIDE = 360, HIGH = 44, EDGE = 3;
const clock = (iso) => iso.replace("T", " ");

/** The factors of an area, with the line of 1; `low` and `high` are those of all areas. */
function course({ name, line }, since, until, low, high) {
  const x = (i) => EDGE + ((WIDE - 2 * EDGE) * i) / Math.max(line.length - 1, 1);
  const y = (factor) => EDGE + ((HIGH - 2 * EDGE) * (high - factor)) / (high - low);
  const path = line.map((factor, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(factor).toFixed(1)}`).join("");
  const text = `${name}: ${Math.min(...line).toFixed(2)} to ${Math.max(...line).toFixed(2)} from ${clock(since)} to ${clock(until)}`;
  return svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, width: WIDE, height: HIGH, role: "img", "aria-label": text, class: "timeline" },
    svg("path", { d: `M${EDGE} ${y(1)}H${WIDE - EDGE}`, class: "grid" }),
    svg("path", { d: path, class: "line line-0" }));
}

function rowsOf(version, low, high) {
  return version.areas.map((area) => html("tr", {},
    html("td", {}, version.model), html("td", {}, area.name), html("td", {}, fixed(area.factor, 2)),
    html("td", {}, course(area, version.since, version.until, low, high))));
}

function aboutOf(version) {
  if (!version.rides) return `${version.model}: no ride has ended in these days`;
  const gain = (1 - version.with / version.without) * 100;
  return `${version.model}: ${version.rides.toLocaleString("en")} rides, off by ${fixed(version.with, 2)} minutes with it, ` +
    `${fixed(version.without, 2)} without (${fixed(Math.abs(gain))} % ${gain < 0 ? "more" : "less"}); the newest ended by ${clock(version.last_ended)}`;
}

/** Show `traffic` of /monitor/data. */
export function showTraffic({ traffic }) {
  say(byId("traffic-trouble"), traffic.trouble);
  const { versions } = traffic;
  byId("traffic-part").hidden = !versions.length;
  byId("traffic-about").textContent = !traffic.is_on ? "Off (TRAFFIC=off): answers are the model's own."
    : versions.length ? `${versions.map(aboutOf).join(". ")}.`
      : "Answers follow no traffic yet: no true duration has come in.";
  if (!versions.length) return;
  const { since, until } = versions[0];
  byId("traffic-span").textContent = `${clock(since)} to ${clock(until)}, New York`;
  const factors = versions.flatMap(({ areas }) => areas.flatMap(({ line }) => line));
  const low = Math.min(0.95, ...factors), high = Math.max(1.05, ...factors);
  byId("traffic").replaceChildren(...versions.flatMap((version) => rowsOf(version, low, high)));
}
