// The rider's page: a question, its answer, and how the day goes.
import { ask, byId, fixed, html, keepKey, say } from "./dom.js";
import { band, profile } from "./charts.js";
import { ZoneMap, ZonePicker, prepare } from "./zones.js";

const FIELDS = ["PULocationID", "DOLocationID", "pickup_datetime", "trip_distance"];
const NEAR_HOURS = 3; // a rider may shift a start by so much
const WORTH_MINUTES = 1; // less is not worth a word
const form = byId("ride");
const input = (field) => form.elements.namedItem(field);
let from, to, map;
let next = "from"; // what a click on the map sets
let predictionId = null;
let drawDay = () => {};

function showError(field, message) {
  const known = FIELDS.includes(field);
  say(known ? byId(`${field}-error`) : byId("form-error"), message);
  if (known && message) input(field).setAttribute("aria-invalid", "true");
}

function clearErrors() {
  for (const field of FIELDS) {
    say(byId(`${field}-error`), null);
    input(field).removeAttribute("aria-invalid");
  }
  say(byId("form-error"), null);
}

/** Show a refusal beside the field that the service names. */
function refuse(error) {
  if (error.status === 401) byId("key-field").hidden = false;
  showError(error.field, error.message);
  if (FIELDS.includes(error.field)) input(error.field).focus();
}

// --- the question ---------------------------------------------------------------------------

/** What is asked, or null when a zone is missing; the service judges everything else. */
function question() {
  const ride = {};
  let whole = true;
  for (const picker of [from, to]) {
    if (picker.zone) ride[picker.input.name] = picker.zone.id;
    else {
      const typed = picker.input.value.trim();
      const what = typed ? `“${typed}” is no zone; choose` : "Choose";
      showError(picker.input.name, `${what} one from the list or on the map.`);
      if (whole) picker.input.focus();
      whole = false;
    }
  }
  if (input("pickup_datetime").value) ride.pickup_datetime = input("pickup_datetime").value;
  const miles = input("trip_distance").value.trim().replace(",", ".");
  if (miles) ride.trip_distance = Number.isFinite(Number(miles)) ? Number(miles) : miles;
  return whole ? ride : null;
}

async function submit(event) {
  event.preventDefault();
  clearErrors();
  if (byId("key").value) keepKey(byId("key").value);
  const ride = question();
  if (!ride) return;
  form.setAttribute("aria-busy", "true");
  try {
    // The reasons come along: asking for them later would be a second prediction in the log.
    showAnswer(await ask("/predict?explain=true", ride), ride);
    remember(ride);
    if (!byId("model").textContent) showModel(); // it may need the key that there is now
    await showDay(ride);
  } catch (error) {
    refuse(error);
  } finally {
    form.removeAttribute("aria-busy");
  }
}

/** Keep the question in the address, so that it can be sent to somebody. */
function remember(ride) {
  const values = { from: ride.PULocationID, to: ride.DOLocationID,
    when: ride.pickup_datetime, miles: ride.trip_distance };
  const known = Object.entries(values).filter(([, value]) => value !== undefined);
  history.replaceState(null, "", `?${new URLSearchParams(known)}`);
}

function recall(zones) {
  const asked = new URLSearchParams(location.search);
  for (const [name, picker] of [["from", from], ["to", to]]) {
    const zone = zones.find(({ id }) => String(id) === asked.get(name));
    if (zone) picker.choose(zone);
  }
  if (asked.get("when")) input("pickup_datetime").value = asked.get("when");
  if (asked.get("miles")) input("trip_distance").value = asked.get("miles");
}

// --- the answer -----------------------------------------------------------------------------

/** Day and minute of the start in New York, whatever the browser's own time. */
function start(ride) {
  const given = ride.pickup_datetime;
  const parts = given ?? new Date().toLocaleString("sv-SE", { timeZone: "America/New_York" });
  const [day, time] = parts.split(/[T ]/);
  const [hour, minute] = time.split(":").map(Number);
  return { day, hour, minute };
}

const clock = (minutes) => {
  const rest = ((Math.round(minutes) % 1440) + 1440) % 1440;
  return `${String(Math.floor(rest / 60)).padStart(2, "0")}:${String(rest % 60).padStart(2, "0")}`;
};

function showAnswer(answer, ride) {
  const { duration, interval, support, used_distance: used } = answer;
  predictionId = answer.prediction_id;
  const { hour, minute } = start(ride);
  const begin = hour * 60 + minute;
  byId("minutes").textContent = duration.toFixed(0);
  byId("arrival").textContent =
    `${from.zone.name} → ${to.zone.name}: leave ${clock(begin)}, arrive about ${clock(begin + duration)}`;
  byId("band").replaceChildren(band(interval, duration));
  byId("interval").textContent =
    `Eight of ten such rides take ${interval.p10.toFixed(0)} to ${interval.p90.toFixed(0)} minutes.`;
  const trips = support === 0
    ? "No past trip between these zones: the answer rests on their neighbourhood."
    : `Like ${support.toLocaleString("en")} past trip${support === 1 ? "" : "s"} between these zones.`;
  const miles = used ? "Your distance was used."
    : ride.trip_distance === undefined ? "Asked without a distance."
      : "Your distance was left out: no ride is as long or as short.";
  const unlogged = answer.logged === false ? " It could not be logged." : "";
  byId("rests-on").textContent = `${trips} ${miles} Answered by ${answer.model} (${answer.arm}).${unlogged}`;
  byId("why").open = false;
  byId("reasons").replaceChildren(...reasonRows(answer.reasons ?? [], duration));
  byId("true-minutes").value = "";
  byId("thanks").textContent = "";
  say(byId("duration-error"), null);
  byId("truth").hidden = false;
  byId("answer").hidden = false;
}

function reasonRows(reasons, duration) {
  const signed = (minutes) => {
    const text = Math.abs(minutes).toFixed(1);
    return text === "0.0" ? text : `${minutes < 0 ? "−" : "+"} ${text}`;
  };
  const rows = reasons.map(({ name, minutes }, i) =>
    html("tr", {}, html("th", { scope: "row" }, name),
      html("td", { class: "number" }, i ? signed(minutes) : minutes.toFixed(1))));
  const sum = html("tr", { class: "sum" }, html("th", { scope: "row" }, "answer, minutes"),
    html("td", { class: "number" }, duration.toFixed(1)));
  return [...rows, sum];
}

async function tell(event) {
  event.preventDefault();
  const typed = byId("true-minutes").value.trim().replace(",", ".");
  const minutes = typed && Number.isFinite(Number(typed)) ? Number(typed) : typed;
  say(byId("duration-error"), null);
  byId("thanks").textContent = "";
  try {
    const told = await ask("/feedback", { prediction_id: predictionId, duration: minutes });
    byId("thanks").textContent = told.duplicate.length
      ? "This ride had its true duration already; the first one stays."
      : "Thank you: the monitor counts it.";
  } catch (error) {
    say(byId("duration-error"), error.message);
  }
}

// --- the day --------------------------------------------------------------------------------

async function showDay(ride) {
  const { day, hour, minute } = start(ride);
  const asked = { PULocationID: ride.PULocationID, DOLocationID: ride.DOLocationID, date: day };
  const { hours } = await ask(`/profile?${new URLSearchParams(asked)}`);
  const shortest = (list) => list.reduce((a, b) => (b.duration < a.duration ? b : a));
  const near = hours.filter((one) => Math.abs(one.hour - hour) <= NEAR_HOURS);
  const best = shortest(hours), around = shortest(near), own = hours[hour];
  const gain = own.duration - around.duration;
  const soon = gain < WORTH_MINUTES
    ? `Within ${NEAR_HOURS} hours of ${clock(hour * 60 + minute)} no other start is clearly quicker.`
    : `A start at ${clock(around.hour * 60)} instead of ${clock(hour * 60)} saves ${fixed(gain)} minutes.`;
  const longest = Math.max(...hours.map(({ duration }) => duration));
  byId("best").textContent = longest - best.duration < WORTH_MINUTES
    ? "The hour makes no difference to this model."
    : `${soon} Quickest of ${day}: ${clock(best.hour * 60)}, ${fixed(best.duration)} minutes.`;
  byId("day").hidden = false;
  drawDay = () => byId("profile").replaceChildren(
    profile(hours, hour + minute / 60, best, byId("profile").clientWidth));
  drawDay();
  byId("hours").replaceChildren(...hours.map((one) =>
    html("tr", {}, html("th", { scope: "row" }, clock(one.hour * 60)),
      html("td", {}, fixed(one.duration)),
      html("td", {}, `${fixed(one.interval.p10, 0)}–${fixed(one.interval.p90, 0)}`))));
}

// --- the map and the model ------------------------------------------------------------------

function picked() {
  map?.show(from?.zone, to?.zone);
  const name = next === "from" ? "From" : "To";
  byId("map-says").replaceChildren("The next click sets ", html("b", {}, name), ".");
}

function startMap(zones) {
  const clicked = (zone) => {
    const picker = next === "from" ? from : to;
    next = next === "from" ? "to" : "from";
    showError(picker.input.name, null);
    picker.choose(zone);
  };
  const hovered = (zone) => (zone ? (byId("map-says").textContent = zone.label) : picked());
  map = new ZoneMap(byId("map"), zones, clicked, hovered);
  const buttons = document.querySelectorAll("[data-view]");
  for (const button of buttons) {
    button.addEventListener("click", () => {
      map.view(button.dataset.view);
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    });
  }
}

async function showModel() {
  try {
    const { champion, trouble } = await ask("/model");
    const sample = champion.data_source === "sample";
    say(byId("source"), sample
      ? "This model learned from the built-in sample, not from real trips: it says nothing about New York."
      : null);
    const months = champion.train_data ? `, ${champion.train_data}` : "";
    byId("model").textContent = `Model ${champion.name}:${champion.version} (${champion.model_kind}), learned from ` +
      `${sample ? "the built-in sample" : "real TLC trips"}${months}.${trouble ? ` ${trouble}` : ""}`;
  } catch (error) {
    if (error.status !== 401) say(byId("source"), error.message);
  }
}

async function main() {
  form.addEventListener("submit", submit);
  addEventListener("resize", () => drawDay());
  byId("truth").addEventListener("submit", tell);
  showModel();
  const zones = prepare(await ask("/zones"));
  const changed = (picker) => {
    if (picker.zone) {
      showError(picker.input.name, null);
      picker.input.removeAttribute("aria-invalid");
    }
    picked();
  };
  from = new ZonePicker(byId("from"), zones, changed);
  to = new ZonePicker(byId("to"), zones, changed);
  for (const [name, picker] of [["from", from], ["to", to]]) {
    picker.input.addEventListener("focus", () => {
      next = name;
      picked();
    });
  }
  byId("swap").addEventListener("click", () => {
    const [a, b] = [from.zone, to.zone];
    from.choose(b);
    to.choose(a);
  });
  startMap(zones);
  recall(zones);
  picked();
  document.documentElement.dataset.ready = "true";
}

main().catch((error) => showError(null, error.message));
