// Picking a zone by a text field with suggestions (the WAI-ARIA combobox).
import { html } from "./dom.js";

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
