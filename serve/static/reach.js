// How far one gets: the map coloured by the minutes to every zone, and the same as a table.
import { ask, byId, fill, fixed, html, put, say } from "./dom.js";
import { CityMap } from "./map.js";
import { clock, newYork } from "./times.js";
import { inWords, minutes } from "./words.js";

const STEPS = [10, 20, 30, 40, 50]; // minutes where colours change
const PAUSE_MS = 150; // a slider asks when it has rested so long
const KEPT = 48; // answers: two days of hours
const RETRY_MS = 3000; // until the service has given the zones

const step = (value) => STEPS.filter((most) => value >= most).length;

/** Words of a name that may begin a new line: “Governor's Island/Ellis Island/Liberty Island”. */
const breakable = (name) => name.split("/").flatMap((part, i) => (i ? ["/", html("wbr"), part] : [part]));

/** A row of a table of answers. */
export const minutesRow = (name, { duration, interval }) => html("tr", {}, html("th", { scope: "row" }, ...breakable(name)),
  html("td", {}, fixed(duration, 0)), html("td", {}, `${fixed(interval.p10, 0)}–${fixed(interval.p90, 0)}`));

/** The zones, asked for until they are there, and their shapes, null without; `failed` is told of errors. */
export async function askForCity(failed) {
  for (;;) {
    try {
      const found = await Promise.all([ask("/zones"), ask("/zones/shapes").catch(() => null)]);
      failed(null);
      return found;
    } catch (error) {
      failed(error);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

/** The map with its sliders; `clicked` is called with a zone, `timed` with a slider's start. */
export class Reach {
  constructor(zones, shapes, clicked, timed) {
    this.zones = new Map(zones.map((zone) => [zone.id, zone]));
    this.map = shapes && new CityMap(byId("map"), zones, shapes, clicked); // null without shapes
    for (const id of ["map", "map-says", "map-keys", "map-parts"]) byId(id).hidden = !shapes;
    byId("no-map").hidden = Boolean(shapes);
    this.answers = new Map();
    this.serial = 0;
    for (const button of document.querySelectorAll("[data-view]")) {
      button.addEventListener("click", () => this.map.view(button.dataset.view));
    }
    for (const button of document.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => this.map.zoom(Number(button.dataset.zoom)));
    }
    byId("hour").addEventListener("input", () => {
      this.sayHour(`at ${clock(60 * byId("hour").value)}`);
      clearTimeout(this.resting);
      this.resting = setTimeout(() => timed(`${this.day}T${clock(60 * byId("hour").value)}`), PAUSE_MS);
    });
    byId("within").addEventListener("input", () => this.count());
    byId("legend").append(...[0, ...STEPS].map((from, i) =>
      html("li", { "data-reach": i }, i < STEPS.length ? `${from}–${STEPS[i]} min` : `${from} and more`)));
  }

  /** Colour the map by the minutes from a zone at a time, of now without one. */
  async show(from, when) {
    const serial = ++this.serial;
    byId("reach").hidden = !from;
    if (!from) return this.map?.colour();
    const { day, minute } = newYork(when);
    this.day = day;
    byId("hour").value = Math.floor(minute / 60);
    this.sayHour(when ? `at ${clock(minute)}` : `now, ${clock(minute)}`);
    try {
      const found = await this.answer(from, `${day}T${clock(minute)}`);
      if (serial !== this.serial) return; // asked anew meanwhile
      say("reach-error", null);
      Object.assign(this, { from, at: clock(minute), found });
      this.count();
    } catch (error) {
      if (serial !== this.serial) return;
      this.map?.colour();
      put("reach-says", "");
      fill("zones", );
      this.found = null;
      say("reach-error", inWords(error));
      if (error.status === 401) byId("key-field").hidden = false;
    }
  }

  sayHour(text) {
    put("hour-says", text);
    byId("hour").setAttribute("aria-valuetext", text);
  }

  async answer(from, when) {
    const key = `${from.id} ${when}`;
    if (!this.answers.has(key)) {
      const { zones } = await ask(`/reach?${new URLSearchParams({ PULocationID: from.id, when })}`);
      if (this.answers.size >= KEPT) this.answers.delete(this.answers.keys().next().value);
      this.answers.set(key, new Map(zones.map((one) => [one.DOLocationID, one])));
    }
    return this.answers.get(key);
  }

  /** Show what was found, with the zones within the slider's minutes counted and brought out. */
  count() {
    const most = Number(byId("within").value);
    put("within-says", `${most} minutes`);
    byId("within").setAttribute("aria-valuetext", `${most} minutes`);
    if (!this.found) return;
    const others = [...this.found.values()].filter(({ DOLocationID: id }) => id !== this.from.id);
    const near = others.filter(({ duration }) => duration <= most).length;
    fill("reach-says", `From ${this.from.name} at ${this.at}, `,
      html("b", {}, `${near} of ${others.length}`), ` other zones are within ${most} minutes.`);
    const to = (id) => this.found.get(id).duration;
    this.map?.colour((id) => step(to(id)), (id) => to(id) <= most, (zone) => `${zone.label}: ${minutes(to(zone.id))}`);
    const sorted = [...this.found.values()].sort((a, b) => a.duration - b.duration);
    fill("zones", ...sorted.map((one) => minutesRow(this.zones.get(one.DOLocationID).label, one)));
  }
}
