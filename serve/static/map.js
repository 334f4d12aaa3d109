// The city as taxi zones in SVG: names, colours, zoom by wheel, fingers and keys; no tiles.
import { html, svg } from "./dom.js";

// Left, top, right and bottom in degrees.
const VIEWS = {
  city: [-74.27, 40.925, -73.69, 40.49],
  manhattan: [-74.045, 40.885, -73.89, 40.695],
};
const STEP = 1e-4; // degrees, of the corners in /zones/shapes
const KM_EAST = 84.3, KM_NORTH = 111.1; // of a degree at 40.7° north
const place = (longitude, latitude) => [(longitude + 74.27) * KM_EAST, (40.925 - latitude) * KM_NORTH];
const BOROUGHS = [
  ["Manhattan", -74.052, 40.79], ["Bronx", -73.79, 40.9], ["Queens", -73.735, 40.81],
  ["Brooklyn", -74.0, 40.562], ["Staten Island", -74.2, 40.667], ["Newark", -74.2, 40.725],
];
const CLOSEST = 14; // times the whole city
const STILL = 6; // pixels that a pointer may move within a click
const FINGER = 20; // pixels: a smaller zone is first brought nearer to a finger
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Zones and borders as texts for SVG's path, from what /zones/shapes gives. */
function outlines({ borders, zones }) {
  const lines = borders.map((steps) => {
    let x = 0, y = 0;
    const corners = [];
    for (let i = 0; i < steps.length; i += 2) {
      x += steps[i];
      y += steps[i + 1];
      corners.push(place(x * STEP, y * STEP).map((km) => km.toFixed(2)).join(" "));
    }
    return corners;
  });
  const owners = lines.map(() => new Set());
  const shapes = new Map();
  for (const [id, rings] of Object.entries(zones)) {
    const parts = rings.map((ring) => ring.flatMap((n) => {
      const number = n < 0 ? ~n : n;
      owners[number].add(Number(id));
      return n < 0 ? lines[number].toReversed() : lines[number];
    }));
    shapes.set(Number(id), parts.map((corners) => `M${corners.join("L")}Z`).join(""));
  }
  return { shapes, borders: lines.map((corners, i) => ({ d: `M${corners.join("L")}`, owners: [...owners[i]] })) };
}

/** A map on which zones can be chosen; `clicked` and `looked` are called with a zone. */
export class CityMap {
  constructor(holder, zones, shapes, clicked) {
    this.byId = new Map(zones.map((zone) => [zone.id, zone]));
    this.clicked = clicked;
    this.says = (zone) => zone.label;
    this.root = svg("svg", { role: "listbox", tabindex: 0, "aria-multiselectable": "true", "aria-describedby": "map-keys",
      "aria-label": "Map of the taxi zones of New York City" });
    this.paths = new Map();
    this.name = html("div", { class: "zone-name", "aria-hidden": "true", hidden: "" });
    this.draw(outlines(shapes));
    holder.append(this.root, this.name);
    this.view("city");
    this.listen();
  }

  draw({ shapes, borders }) {
    const group = svg("g", { role: "presentation" }), hidden = { "aria-hidden": "true" };
    for (const [id, d] of shapes) {
      const zone = this.byId.get(id);
      const twin = [...this.paths.values()].find((other) => other.getAttribute("d") === d);
      if (twin) continue; // three pairs of zones share an outline
      const path = svg("path", { d, role: "option", id: `zone-${id}`, "data-zone": id,
        "data-borough": zone.borough, "aria-label": zone.label, "aria-selected": "false" });
      this.paths.set(id, path);
      group.append(path);
    }
    const names = BOROUGHS.map(([name, ...at]) => {
      const [x, y] = place(...at);
      return svg("text", { x, y, class: "borough", ...hidden }, name);
    });
    this.line = svg("path", { class: "route", ...hidden });
    this.marks = ["A", "B"].map((letter) =>
      svg("g", { class: `mark mark-${letter}`, ...hidden }, svg("circle", { r: 1 }), svg("text", {}, letter)));
    this.borders = borders;
    const boroughs = ({ owners }) => new Set(owners.map((id) => this.byId.get(id).borough)).size;
    this.reached = svg("path", { class: "border reached", ...hidden });
    this.root.append(group, svg("path", { d: this.lines((one) => boroughs(one) === 1), class: "border", ...hidden }),
      svg("path", { d: this.lines((one) => boroughs(one) > 1), class: "border between", ...hidden }), this.reached,
      ...names, this.line, ...this.marks);
  }

  lines = (wanted) => this.borders.filter(wanted).map(({ d }) => d).join("");

  // --- where one looks ----------------------------------------------------------------------

  view(name) {
    const [west, north, east, south] = VIEWS[name];
    const [left, top] = place(west, north), [right, bottom] = place(east, south);
    this.look([left, top, right - left, bottom - top]);
  }

  /** Show this part: left, top, width, height in km; never beyond the city. */
  look([left, top, width, height]) {
    const [whole, high] = this.whole ?? [width, height];
    this.whole = [whole, high];
    const part = Math.min(1, Math.max(width / whole, height / high, 1 / CLOSEST));
    const [x, y] = [left + width / 2, top + height / 2];
    const [w, h] = [whole * part, high * part];
    const within = (middle, size, most) => Math.min(Math.max(middle - size / 2, 0), most - size);
    this.box = [within(x, w, whole), within(y, h, high), w, h];
    this.root.setAttribute("viewBox", this.box.map((km) => km.toFixed(3)).join(" "));
    this.root.classList.toggle("near", part < 1);
    for (const text of this.root.querySelectorAll(".borough")) text.setAttribute("font-size", 1.5 * part ** 0.6);
    this.show(...(this.shown ?? []));
  }

  /** Bring what lies at a point of the screen nearer by a factor, or farther. */
  zoom(factor, clientX, clientY) {
    const [left, top, width, height] = this.box;
    const at = clientX === undefined ? { x: left + width / 2, y: top + height / 2 } : this.km(clientX, clientY);
    const [w, h] = [width / factor, height / factor];
    this.look([at.x - ((at.x - left) * w) / width, at.y - ((at.y - top) * h) / height, w, h]);
  }

  km(clientX, clientY) {
    return new DOMPoint(clientX, clientY).matrixTransform(this.root.getScreenCTM().inverse());
  }

  pan(dx, dy) {
    const km = this.box[2] / this.root.getBoundingClientRect().width;
    this.look([this.box[0] - dx * km, this.box[1] - dy * km, this.box[2], this.box[3]]);
  }

  // --- what is done to it -------------------------------------------------------------------

  listen() {
    const on = (name, act, options) => this.root.addEventListener(name, act.bind(this), options);
    this.fingers = new Map();
    on("pointerdown", this.down);
    on("pointermove", this.moved);
    on("pointerup", this.up);
    on("pointercancel", this.up);
    on("pointerleave", (event) => {
      this.fingers.delete(event.pointerId);
      this.point(null);
    });
    on("click", this.click);
    on("keydown", this.key);
    on("blur", () => this.point(null));
    on("focus", () => this.root.matches(":focus-visible") && this.point(this.here()));
    on("wheel", (event) => {
      const before = this.box.join();
      this.zoom(1.0015 ** -event.deltaY, event.clientX, event.clientY);
      if (this.box.join() !== before) event.preventDefault(); // else the page scrolls
    }, { passive: false });
    // Two fingers are for the map; one scrolls the page while the whole city is seen.
    on("touchmove", (event) => event.touches.length > 1 && event.preventDefault(), { passive: false });
  }

  zoneOf = (element) => this.byId.get(Number(element?.closest?.("[data-zone]")?.dataset.zone)) ?? null;

  down(event) {
    if (!this.fingers.size) this.travelled = 0;
    this.touches = event.pointerType === "touch";
    this.fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  }

  moved(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return this.point(this.zoneOf(event.target), event);
    const now = { x: event.clientX, y: event.clientY };
    const others = [...this.fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    this.travelled += Math.hypot(now.x - before.x, now.y - before.y);
    if (others.length) {
      const away = (at) => Math.hypot(at.x - others[0].x, at.y - others[0].y);
      this.zoom(away(now) / Math.max(away(before), 1), (now.x + others[0].x) / 2, (now.y + others[0].y) / 2);
    } else if (this.travelled > STILL) {
      this.root.setPointerCapture(event.pointerId);
      this.point(null);
      this.pan(now.x - before.x, now.y - before.y);
    }
    this.fingers.set(event.pointerId, now);
  }

  up(event) {
    this.fingers.delete(event.pointerId);
  }

  click(event) {
    const zone = this.zoneOf(event.target);
    if (!zone || this.travelled > STILL) return;
    const { width, height } = event.target.getBoundingClientRect();
    this.point(zone, event);
    if (this.touches && Math.min(width, height) < FINGER) this.zoom(3, event.clientX, event.clientY);
    else this.clicked(zone);
  }

  key(event) {
    const arrow = ARROWS[event.key];
    if (arrow) this.point(this.beside(arrow) ?? this.at);
    else if (["Enter", " "].includes(event.key)) this.at && this.clicked(this.at);
    else if (event.key === "+" || event.key === "=") this.zoom(1.6);
    else if (event.key === "-") this.zoom(1 / 1.6);
    else if (event.key === "0") this.view("city");
    else return;
    event.preventDefault();
    if (this.at && !this.sees(this.at)) {
      const { x, y } = this.middle(this.at);
      this.look([x - this.box[2] / 2, y - this.box[3] / 2, this.box[2], this.box[3]]);
    }
  }

  /** Where keys begin: at the last zone named, the start of the ride, or Midtown. */
  here() {
    return [this.at, this.shown[0], this.byId.get(161)].find((zone) => zone && this.paths.has(zone.id));
  }

  middle(zone) {
    const [x, y] = place(zone.longitude, zone.latitude);
    return { x, y };
  }

  sees(zone) {
    const { x, y } = this.middle(zone), [left, top, width, height] = this.box;
    return x > left && x < left + width && y > top && y < top + height;
  }

  /** The zone next to the present one in a direction: near, and not far off the line. */
  beside([east, south]) {
    const from = this.middle(this.here());
    let best = null, least = Infinity;
    for (const id of this.paths.keys()) {
      const zone = this.byId.get(id), to = this.middle(zone);
      const along = (to.x - from.x) * east + (to.y - from.y) * south;
      const aside = Math.abs((to.x - from.x) * south) + Math.abs((to.y - from.y) * east);
      const away = along + 2 * aside;
      if (along > 0.05 && along >= aside / 2 && away < least) [best, least] = [zone, away];
    }
    return best;
  }

  // --- what it shows ------------------------------------------------------------------------

  /** Name a zone beside the pointer, or above it when it was reached by keys; null for none. */
  point(zone, event = null) {
    this.paths.get(this.at?.id)?.classList.remove("at");
    this.name.hidden = !zone;
    this.root.removeAttribute("aria-activedescendant");
    if (!zone) return;
    this.at = zone;
    const path = this.paths.get(zone.id);
    path.classList.add("at");
    this.root.setAttribute("aria-activedescendant", path.id);
    this.name.textContent = this.says(zone);
    const holder = this.root.parentElement.getBoundingClientRect(), box = path.getBoundingClientRect();
    const x = (event ? event.clientX : box.x + box.width / 2) - holder.x;
    const y = (event ? event.clientY : box.y) - holder.y;
    const half = this.name.offsetWidth / 2;
    this.name.style.left = `${Math.min(Math.max(x, half), holder.width - half)}px`;
    this.name.style.top = `${Math.max(y - 14, this.name.offsetHeight)}px`;
  }

  /**
   * Colour the zones by a step from 0 to 5 and draw a line around those that are within.
   *
   * All three take a zone's id or zone; without them the map is plain.
   */
  colour(stepOf = null, isWithin = () => false, says = (zone) => zone.label) {
    this.says = says;
    for (const [id, path] of this.paths) {
      path.dataset.reach = stepOf?.(id) ?? "";
      path.setAttribute("aria-label", says(this.byId.get(id)));
    }
    this.reached.setAttribute("d", this.lines(({ owners }) => {
      const sides = owners.filter((id) => this.paths.has(id)), inside = sides.filter(isWithin).length;
      return inside === 1; // of two: an edge; of one: a coast
    }));
  }

  /** Mark where a ride goes from and to; either may be null. */
  show(from = null, to = null) {
    this.shown = [from, to];
    for (const [id, path] of this.paths) {
      path.setAttribute("aria-selected", String(id === from?.id || id === to?.id));
    }
    const ends = [from, to].map((zone) => (zone && zone.longitude !== null ? this.middle(zone) : null));
    const size = 1.1 * (this.box[2] / this.whole[0]) ** 0.8;
    ends.forEach((end, i) => {
      this.marks[i].setAttribute("visibility", end ? "visible" : "hidden");
      if (end) this.marks[i].setAttribute("transform", `translate(${end.x} ${end.y}) scale(${size})`);
    });
    const [a, b] = ends;
    this.line.setAttribute("d", a && b ? `M${a.x} ${a.y}L${b.x} ${b.y}` : "");
  }
}
