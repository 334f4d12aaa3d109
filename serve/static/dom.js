// Elements, and questions to the service: what every page needs.
const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

function make(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** An HTML element. Texts become text nodes: nothing that comes from outside is markup. */
export const html = (tag, attributes = {}, ...children) =>
  make(document.createElement(tag), attributes, children);

/** An SVG element. */
export const svg = (tag, attributes = {}, ...children) =>
  make(document.createElementNS(SVG, tag), attributes, children);

export const fill = (id, ...children) => byId(id).replaceChildren(...children);
export const put = (id, text) => { byId(id).textContent = text; };

/** Show a text in an element, or hide it when there is none. */
export function say(id, text) {
  put(id, text ?? "");
  byId(id).hidden = !text;
}

/** A request that was refused; `field` names what it is about. */
export class Refused extends Error {
  constructor(status, { message, field = null }) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

const KEY = "taxi-api-key";
export const keepKey = (key) => sessionStorage.setItem(KEY, key);

/** Return the JSON of an answer; throws Refused when it is none. */
export async function ask(path, content) {
  const headers = { Accept: "application/json" };
  if (sessionStorage.getItem(KEY)) headers["X-API-Key"] = sessionStorage.getItem(KEY);
  const options = { headers };
  if (content !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(content) });
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refused(0, { message: "The service cannot be reached." });
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  throw new Refused(
    response.status,
    body?.error ?? { message: `The service answered with status ${response.status}.` },
  );
}

/** A number with so many decimals, a dash where there is none. */
export const fixed = (value, digits = 1) =>
  value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(digits);
