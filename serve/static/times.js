// Times of New York, whatever the browser's own, and what they mean for a start.
const DAY = 1440; // minutes
const SHIFT = 180; // minutes by which a rider may shift a start
const LATE = 5; // minutes: a start so long ago is still now

/** The day and its minute of a form's `2021-02-15T08:30`, of now without one. */
export function newYork(given) {
  const text = given || new Date().toLocaleString("sv-SE", { timeZone: "America/New_York" });
  const [day, time] = text.split(/[T ]/);
  const [hour, minute] = time.split(":").map(Number);
  return { day, minute: 60 * hour + minute };
}

/** Minutes from one moment to another. */
export const between = (a, b) => (Date.parse(b.day) - Date.parse(a.day)) / 60_000 + b.minute - a.minute;

export const nextDay = (day) => new Date(Date.parse(day) + DAY * 60_000).toISOString().slice(0, 10);

export const clock = (minutes) => {
  const rest = ((Math.round(minutes) % DAY) + DAY) % DAY;
  return `${String(Math.floor(rest / 60)).padStart(2, "0")}:${String(rest % 60).padStart(2, "0")}`;
};

const shortest = (starts) => starts.reduce((a, b) => (b.duration < a.duration ? b : a));

/** Minutes of a ride that starts at a minute of the day, on a line between its full hours. */
function duringHour(starts, minute) {
  const after = starts.findIndex(({ at }) => at > minute);
  if (after <= 0) return starts.at(after).duration;
  const [a, b] = [starts[after - 1], starts[after]];
  return a.duration + ((b.duration - a.duration) * (minute - a.at)) / (b.at - a.at);
}

/**
 * The quickest start that can still be made, near the one asked for.
 *
 * `starts` are {at, duration}, `at` in minutes of the asked day; `asked` and `now` as well.
 * `best` is null when none is left; `passed` says that the start asked for is one of the past.
 */
export function advise(starts, asked, now) {
  const own = duringHour(starts, asked);
  if (asked < now - LATE) return { passed: true, own, best: shortest(starts.filter(({ at }) => at < DAY)) };
  const near = starts.filter(({ at }) => at > now && Math.abs(at - asked) <= SHIFT);
  return { passed: false, own, best: near.length ? shortest(near) : null };
}
