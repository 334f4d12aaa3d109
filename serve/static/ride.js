// The rider's page: a question, its answer, how far one gets, and when to leave.
import { ask, byId, fill, fixed, html, keepKey, put, say } from "./dom.js";
import { band, profile } from "./charts.js";
import { Reach, askForCity, minutesRow } from "./reach.js";
import { advise, between, clock, newYork, nextDay } from "./times.js";
import { inWords, milesOf, minutes } from "./words.js";
import { ZonePicker, prepare } from "./zones.js";

byId("silent").remove();
const FIELDS = ["PULocationID", "DOLocationID", "pickup_datetime", "trip_distance"];
const SAME_FIELD = { when: "pickup_datetime", date: "pickup_datetime", arrive: "pickup_datetime" };
// What an answer without past trips rests on, by kind.
const BY_PLACE = "trips from and to these zones and those around them, the way between the two, and the time";
const BY_MEAN = "the mean of all trips, and on a distance if one was given";
const OTHERS = { XGB: BY_PLACE, RF: BY_PLACE, LR: BY_MEAN, LASSO: BY_MEAN, RIDGE: BY_MEAN };
const WORTH_MINUTES = 1; // less is no news
const form = byId("ride");
const input = (field) => form.elements.namedItem(field);
const whenField = input("pickup_datetime"), milesField = input("trip_distance");
const wantsArrival = () => form.elements.namedItem("mode").value === "arrive";
const kinds = new Map(); // of the models that serve, by name:version
let from, to, reach;
const pickers = () => Object.entries({ from, to });
let next = "from"; // what a click on the map sets
let predictionId = null;
let serial = 0; // of questions: an answer to an older one is not shown
let drawDay = () => {};

function showError(field, message) {
  const known = FIELDS.includes(field);
  say(known ? `${field}-error` : "form-error", message);
  if (known && message) input(field).setAttribute("aria-invalid", "true");
}

function clearErrors() {
  for (const field of FIELDS) {
    say(`${field}-error`, null);
    input(field).removeAttribute("aria-invalid");
  }
  say("form-error", null);
}

/** Show a refusal in our words, beside the field that it is about. */
function refuse(error) {
  const field = SAME_FIELD[error.field] ?? error.field;
  if (error.status === 401) byId("key-field").hidden = false;
  showError(field, inWords(error));
  if (FIELDS.includes(field)) input(field).focus();
}

// --- the question ---------------------------------------------------------------------------

const wrongZone = ({ zone, input: { value } }) =>
  zone ? null : value.trim() ? `“${value.trim()}” is no zone; choose one from the list or on the map.`
    : "Choose a zone from the list or on the map.";

/** What can be seen to be wrong before asking: texts by field. */
function problems() {
  const incomplete = whenField.validity.badInput || (wantsArrival() && !whenField.value);
  return Object.entries({
    PULocationID: wrongZone(from),
    DOLocationID: wrongZone(to),
    pickup_datetime: incomplete ? "Choose a day and a time." : null,
    trip_distance: milesOf(milesField.value) === null ? inWords({ field: "trip_distance" }) : null,
  }).filter(([, text]) => text);
}

/** What is asked, or null when something is missing or wrong. */
function question() {
  const wrong = problems();
  for (const [field, text] of wrong) showError(field, text);
  if (wrong.length) {
    input(wrong[0][0]).focus();
    return null;
  }
  return { PULocationID: from.zone.id, DOLocationID: to.zone.id,
    pickup_datetime: whenField.value || undefined,
    trip_distance: milesOf(milesField.value) };
}

async function submit(event) {
  event?.preventDefault();
  if (!to) return; // the zones are still to come, and what keeps them is said
  clearErrors();
  if (byId("key").value) keepKey(byId("key").value);
  const ride = question();
  if (!ride) return;
  const own = ++serial;
  const isLast = () => own === serial;
  form.setAttribute("aria-busy", "true");
  try {
    await (wantsArrival() ? showLeave : showRide)(ride, { from: from.zone, to: to.zone }, isLast);
    if (!byId("model").textContent) showModel(); // it may need the key that there is now
    if (byId("reach-error").textContent) showReach();
  } catch (error) {
    if (isLast()) refuse(error);
  } finally {
    if (isLast()) form.removeAttribute("aria-busy");
  }
}

/** Ask for a ride between `ends`: the fields may have changed when the answer comes. */
async function showRide(ride, ends, isLast) {
  // With reasons: asking for them later would be a second prediction in the log.
  const answer = await ask("/predict?explain=true", ride);
  if (!kinds.has(answer.model)) await showModel(); // it serves since the page was opened
  if (!isLast()) return;
  showAnswer(answer, ride, ends);
  remember(ride);
  try {
    await showDay(ride, isLast);
  } catch (error) {
    if (isLast()) byId("day").hidden = true; // it is of the ride before
    throw error;
  }
}

/** Ask for a start at a time, whatever the form asked for before. */
function startAt(when) {
  whenField.value = when;
  form.elements.namedItem("mode").value = "leave";
  chooseMode();
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
  if (asked.get("when")) whenField.value = asked.get("when");
  if (asked.get("miles")) milesField.value = asked.get("miles");
  for (const [name, picker] of pickers()) {
    const zone = zones.find(({ id }) => String(id) === asked.get(name));
    if (zone) picker.choose(zone);
  }
}

function chooseMode() {
  const arrive = wantsArrival();
  put("when-label", arrive ? "Arrive by" : "Leave at");
  put("when-hint", arrive ? "(New York)" : "(New York; now if empty)");
  byId("sure-field").hidden = !arrive;
  byId("miles-field").hidden = arrive;
  clearErrors();
  showReach();
}

// --- the answer -----------------------------------------------------------------------------

function showAnswer(answer, ride, ends) {
  const { duration, interval } = answer;
  predictionId = answer.prediction_id;
  const begin = newYork(ride.pickup_datetime).minute;
  put("minutes", duration.toFixed(0));
  put("arrival", `${ends.from.name} → ${ends.to.name}: leave ${clock(begin)}, arrive about ${clock(begin + duration)}`);
  fill("band", band(interval, duration));
  put("interval", `Eight of ten such rides take ${interval.p10.toFixed(0)} to ${interval.p90.toFixed(0)} minutes.`);
  const unlogged = answer.logged === false ? " It could not be logged." : "";
  put("rests-on", `${restsOn(answer, ride, ends)} Answered by ${answer.model} (${answer.arm}).${unlogged}`);
  byId("why").open = false;
  fill("reasons", ...reasonRows(answer.reasons ?? [], duration));
  byId("true-minutes").value = "";
  put("thanks", "");
  say("duration-error", null);
  byId("leave").hidden = true;
  byId("answer").hidden = false;
}

function restsOn({ model, support, used_distance: used, traffic = 1 }, ride, ends) {
  const trips = support === 0
    ? `No past trip went from ${ends.from.name} to ${ends.to.name}; the answer rests on ${OTHERS[kinds.get(model)] ?? "other trips of the city"}.`
    : `Like ${support.toLocaleString("en")} past trip${support === 1 ? "" : "s"} between these zones.`;
  const miles = used ? "Your distance was used."
    : ride.trip_distance === undefined ? "Asked without a distance."
      : "Your distance was left out: no ride between these zones is as long or as short.";
  const share = Math.round(100 * Math.abs(traffic - 1));
  const now = share ? ` The traffic of this hour makes it ${share} % ${traffic > 1 ? "longer" : "shorter"}.` : "";
  return `${trips} ${miles}${now}`;
}

function reasonRows(reasons, duration) {
  const signed = (part) => {
    const text = Math.abs(part).toFixed(1);
    return text === "0.0" ? text : `${part < 0 ? "−" : "+"} ${text}`;
  };
  const row = (kind, name, text) =>
    html("tr", { class: kind }, html("th", { scope: "row" }, name), html("td", { class: "number" }, text));
  return [...reasons.map(({ name, minutes: part }, i) => row(null, name, i ? signed(part) : part.toFixed(1))),
    row("sum", "answer, minutes", duration.toFixed(1))];
}

async function tell(event) {
  event.preventDefault();
  const typed = byId("true-minutes").value.trim().replace(",", "."), id = predictionId;
  say("duration-error", null);
  put("thanks", "");
  try {
    const duration = typed && Number.isFinite(Number(typed)) ? Number(typed) : typed;
    const told = await ask("/feedback", { prediction_id: id, duration });
    if (id !== predictionId) return; // the next ride is shown meanwhile
    put("thanks", told.duplicate.length
      ? "This ride had its true duration already; the first one stays."
      : told.unknown.length ? "This answer is not in the log, so its true duration is not counted."
        : "Thank you: the monitor counts it.");
  } catch (error) {
    if (id === predictionId) say("duration-error", inWords(error));
  }
}

// --- when to leave --------------------------------------------------------------------------

async function showLeave({ PULocationID, DOLocationID, pickup_datetime: arrive }, ends, isLast) {
  const sure = byId("sure").selectedOptions[0];
  const asked = new URLSearchParams({ PULocationID, DOLocationID, arrive, p: sure.value });
  const found = await ask(`/leave-by?${asked}`);
  if (!isLast()) return;
  const end = newYork(found.arrive), start = newYork(found.leave_by), late = between(start, newYork());
  put("leave-by", clock(start.minute));
  const aim = `to be at ${ends.to.name} by ${clock(end.minute)}, ${sure.textContent}`;
  put("leave-why", late >= 1
    ? `Too late ${aim}: that start has passed. The ride takes up to ${minutes(found.minutes)}.`
    : `${start.day === end.day ? "" : `On ${start.day}, `}${aim}. The ride takes up to ${minutes(found.minutes)}.`);
  byId("leave-ask").hidden = late >= 1;
  byId("leave-ask").onclick = () => {
    startAt(found.leave_by.slice(0, 16));
    submit();
  };
  byId("answer").hidden = byId("day").hidden = true;
  byId("leave").hidden = false;
}

async function hoursOf({ PULocationID, DOLocationID }, date) {
  return (await ask(`/profile?${new URLSearchParams({ PULocationID, DOLocationID, date })}`)).hours;
}

async function showDay(ride, isLast) {
  const { day, minute } = newYork(ride.pickup_datetime);
  const hours = await hoursOf(ride, day);
  // Near midnight the next hours are tomorrow's.
  const later = minute >= 20 * 60 && day < "2099-12-31" ? await hoursOf(ride, nextDay(day)) : [];
  if (!isLast()) return;
  const starts = [...hours, ...later].map(({ duration }, i) => ({ at: 60 * i, duration }));
  const now = between({ day, minute: 0 }, newYork());
  const advice = advise(starts, minute, now);
  put("best", inAdvice(advice, ride.pickup_datetime ? clock(minute) : "now", day, hours));
  byId("day").hidden = false;
  drawDay = () => fill("profile",
    profile(hours, minute / 60, advice.best, now / 60, byId("profile").clientWidth));
  drawDay();
  fill("hours", ...hours.map((one) => minutesRow(clock(one.hour * 60), one)));
}

function inAdvice({ passed, own, best }, asked, day, hours) {
  const all = hours.map(({ duration }) => duration);
  if (Math.max(...all) - Math.min(...all) < WORTH_MINUTES) return "The hour makes no difference to this model.";
  if (passed) return `This start has passed. The quickest of ${day} was ${clock(best.at)}: ${minutes(best.duration)}.`;
  const within = asked === "now" ? "the next 3 hours" : `3 hours of ${asked}`;
  if (!best || own - best.duration < WORTH_MINUTES) return `No other start within ${within} is clearly quicker.`;
  return `A start at ${clock(best.at)}${best.at >= 1440 ? " the next day" : ""} instead of ${asked} saves about ` +
    `${minutes(own - best.duration)}: ${fixed(best.duration, 0)} instead of ${fixed(own, 0)}.`;
}

// --- the map and the model ------------------------------------------------------------------

function showReach() {
  const start = wantsArrival() ? "" : whenField.value;
  return reach.show(from.zone?.longitude === null ? null : from.zone, start);
}

function picked(picker) {
  reach?.map?.show(from?.zone, to?.zone);
  if (reach && picker === from) showReach();
  const name = next === "from" ? "From" : "To";
  fill("map-says", "The next click sets ", html("b", {}, name), ".");
}

function startMap(zones, shapes) {
  const clicked = (zone) => {
    const picker = next === "from" ? from : to;
    next = next === "from" ? "to" : "from";
    showError(picker.input.name, null);
    picker.choose(zone);
    if (picker === to && from.zone) submit();
  };
  reach = new Reach(zones, shapes, clicked, startAt);
  whenField.addEventListener("change", showReach);
}

async function showModel() {
  try {
    const { champion, challenger, trouble } = await ask("/model");
    for (const card of [champion, challenger]) if (card) kinds.set(`${card.name}:${card.version}`, card.model_kind);
    const sample = champion.data_source === "sample";
    say("source", sample
      ? "This model learned from the built-in sample, not from real trips: it says nothing about New York."
      : null);
    const months = champion.train_data ? `, ${champion.train_data}` : "";
    put("model", `Model ${champion.name}:${champion.version} (${champion.model_kind}), learned from ` +
      `${sample ? "the built-in sample" : "real TLC trips"}${months}.${trouble ? ` ${trouble}` : ""}`);
  } catch (error) {
    if (error.status !== 401) say("source", inWords(error));
  }
}

async function main() {
  form.addEventListener("submit", submit);
  for (const mode of form.elements.namedItem("mode")) mode.addEventListener("change", chooseMode);
  addEventListener("resize", () => drawDay());
  byId("truth").addEventListener("submit", tell);
  const [listed, shapes] = await askForCity((error) => showError(null, error && inWords(error)));
  showModel();
  const zones = prepare(listed);
  const changed = (picker) => {
    if (picker.zone) {
      showError(picker.input.name, null);
      picker.input.removeAttribute("aria-invalid");
    }
    picked(picker);
  };
  from = new ZonePicker(byId("from"), zones, changed);
  to = new ZonePicker(byId("to"), zones, changed);
  for (const [name, picker] of pickers()) {
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
  startMap(zones, shapes);
  chooseMode(); // a browser may keep a form's choice over a reload
  recall(zones);
  if (from.zone && !to.zone) next = "to";
  picked();
  document.documentElement.dataset.ready = "true";
}

main().catch((error) => showError(null, inWords(error)));
