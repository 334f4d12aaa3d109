// Picking a zone: a text field with suggestions (the WAI-ARIA combobox), and a map.
import { html, svg } from "./dom.js";

const MOST = 12; // suggestions at a time
const plain = (text) => text.normalize("NFD").replace(/[\u0300-\u036f]/g, "").toLowerCase();

/** The zones with a label that is unlike every other, and the text that is searched. */
export function prepare(zones) {
  const seen = new Map();
  for (const zone of zones) {
    zone.label = zone.name === zone.borough ? zone.name : `${zone.name}, ${zone.borough}`;
    seen.set(zone.label, (seen.get(zone.label) ?? 0) + 1);
  }
  for (const zone of zones) {
    if (seen.get(zone.label) > 1) zone.label += ` (${zone.id})`;
    zone.searched = plain(`${zone.name} ${zone.borough} ${zone.id}`);
  }
  return zones;
}

/** Zones that have every word of a text, those that begin with it first. */
export function find(zones, text) {
  const wanted = plain(text.trim());
  const words = wanted.split(/[\s,()]+/).filter(Boolean);
  const rank = (zone) =>
    String(zone.id) === wanted ? 0 : zone.searched.startsWith(wanted) ? 1 : 2;
  return zones
    .filter((zone) => words.every((word) => zone.searched.includes(word)))
    .sort((a, b) => rank(a) - rank(b) || a.label.localeCompare(b.label));
}

/** A combobox on an input that is followed by its list. */
export class ZonePicker {
  constructor(input, zones, changed) {
    this.input = input;
    this.list = input.nextElementSibling;
    this.zones = zones;
    this.changed = changed;
    this.zone = null;
    this.at = -1;
    input.addEventListener("input", () => this.typed());
    input.addEventListener("keydown", (event) => this.pressed(event));
    input.addEventListener("focus", () => input.select());
    input.addEventListener("blur", () => this.left());
    // Before blur, so that the list is still there.
    this.list.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      const option = event.target.closest("[role=option]");
      if (option) this.choose(this.shown[option.dataset.at]);
    });
  }

  choose(zone) {
    this.zone = zone;
    this.input.value = zone?.label ?? "";
    this.close();
    this.changed(this);
  }

  typed() {
    this.zone = null;
    this.open();
    this.changed(this);
  }

  open() {
    this.shown = find(this.zones, this.input.value).slice(0, MOST);
    this.at = this.input.value.trim() && this.shown.length ? 0 : -1;
    this.list.replaceChildren(
      ...this.shown.map((zone, at) =>
        html("li", { role: "option", id: `${this.list.id}-${at}`, "data-at": at },
          html("span", {}, zone.name), " ", html("small", {}, `${zone.borough} ${zone.id}`))),
    );
    if (!this.shown.length) this.list.append(html("li", { role: "presentation" }, "no such zone"));
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.mark();
  }

  close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  mark() {
    this.list.querySelectorAll("[role=option]").forEach((option, at) => {
      option.setAttribute("aria-selected", String(at === this.at));
      if (at === this.at) option.scrollIntoView({ block: "nearest" });
    });
    if (this.at >= 0) {
      this.input.setAttribute("aria-activedescendant", `${this.list.id}-${this.at}`);
    } else this.input.removeAttribute("aria-activedescendant");
  }

  pressed(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      if (this.list.hidden) return this.open();
      const n = this.shown.length;
      this.at = n ? (this.at + step + n) % n : -1;
      this.mark();
    } else if (event.key === "Enter" && !this.list.hidden && this.at >= 0) {
      event.preventDefault(); // choosing is not yet asking
      this.choose(this.shown[this.at]);
    } else if (event.key === "Escape" && !this.list.hidden) {
      event.preventDefault();
      this.close();
    }
  }

  /** Take what was typed when it can mean one zone only. */
  left() {
    if (!this.zone && this.input.value.trim()) {
      const found = find(this.zones, this.input.value);
      const text = plain(this.input.value.trim());
      const exact = found.filter((zone) => plain(zone.name) === text || String(zone.id) === text);
      const only = found.length === 1 ? found[0] : exact.length === 1 ? exact[0] : null;
      if (only) this.choose(only);
    }
    this.close();
  }
}

const VIEWS = {
  city: [-74.27, 40.925, -73.69, 40.49],
  manhattan: [-74.06, 40.885, -73.885, 40.695],
};
const KM_EAST = 84.3, KM_NORTH = 111.1; // of a degree at 40.7° north
const place = (longitude, latitude) => [
  (longitude + 74.27) * KM_EAST,
  (40.925 - latitude) * KM_NORTH,
];
const BOROUGHS = [
  ["Manhattan", -74.045, 40.79], ["Bronx", -73.8, 40.9], ["Queens", -73.745, 40.81],
  ["Brooklyn", -74.0, 40.562], ["Staten Island", -74.197, 40.66], ["Newark", -74.2, 40.72],
];

/** A map with a disc as large as each zone; the zone nearest to a click is meant. */
export class ZoneMap {
  constructor(holder, zones, clicked, hovered) {
    this.zones = zones.filter((zone) => zone.longitude !== null);
    this.discs = new Map();
    // What can be done here can be done in the fields above: it is a picture to assistive tools.
    this.root = svg("svg", { role: "img", "aria-label": "Map of the taxi zones of New York City" });
    const large = [...this.zones].sort((a, b) => b.area_km2 - a.area_km2);
    for (const zone of large) {
      [zone.x, zone.y] = place(zone.longitude, zone.latitude);
      zone.r = Math.sqrt(zone.area_km2 / Math.PI) * 0.92;
      const disc = svg("circle", {
        cx: zone.x.toFixed(2), cy: zone.y.toFixed(2), r: zone.r.toFixed(2), "data-zone": zone.id,
      });
      this.discs.set(zone.id, disc);
      this.root.append(disc);
    }
    for (const [name, longitude, latitude] of BOROUGHS) {
      const [x, y] = place(longitude, latitude);
      this.root.append(svg("text", { x, y, class: "borough" }, name));
    }
    this.line = svg("path", { class: "route" });
    this.marks = ["A", "B"].map((letter) =>
      svg("g", { class: `mark mark-${letter}` }, svg("circle", { r: 1 }), svg("text", {}, letter)));
    this.root.append(this.line, ...this.marks);
    this.root.addEventListener("click", (event) => {
      const zone = this.nearest(event);
      if (zone) clicked(zone);
    });
    this.root.addEventListener("pointermove", (event) => hovered(this.nearest(event)));
    this.root.addEventListener("pointerleave", () => hovered(null));
    holder.append(this.root);
    this.view("city");
  }

  view(name) {
    const [west, north, east, south] = VIEWS[name];
    const [x, y] = place(west, north);
    const [right, bottom] = place(east, south);
    this.root.setAttribute("viewBox", `${x} ${y} ${right - x} ${bottom - y}`);
    this.root.dataset.view = name;
    this.show(...(this.shown ?? []));
  }

  /** The zone whose disc is nearest to a pointer, null in the open sea. */
  nearest(event) {
    const point = new DOMPoint(event.clientX, event.clientY);
    const at = point.matrixTransform(this.root.getScreenCTM().inverse());
    let best = null, least = 3; // km from the disc's edge
    for (const zone of this.zones) {
      const away = Math.hypot(zone.x - at.x, zone.y - at.y) - zone.r;
      if (away < least) [best, least] = [zone, away];
    }
    return best;
  }

  /** Mark where a ride goes from and to; either may be null. */
  show(from = null, to = null) {
    this.shown = [from, to];
    for (const [id, disc] of this.discs) {
      disc.setAttribute("class", id === from?.id ? "from" : id === to?.id ? "to" : "zone");
    }
    const ends = [from, to].map((zone) => (zone && this.discs.has(zone.id) ? zone : null));
    ends.forEach((zone, i) => {
      this.marks[i].setAttribute("visibility", zone ? "visible" : "hidden");
      if (!zone) return;
      const size = this.root.dataset.view === "city" ? 1 : 0.45;
      this.marks[i].setAttribute("transform", `translate(${zone.x} ${zone.y}) scale(${size})`);
    });
    const [a, b] = ends;
    this.line.setAttribute("d", a && b ? `M${a.x} ${a.y}L${b.x} ${b.y}` : "");
  }
}
