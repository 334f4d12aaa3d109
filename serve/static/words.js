// What went wrong, in words for people; the API's own are for programs.
const ZONE = "Choose a zone from the list or on the map.";
const TIME = "Choose a day and a time between the years 2000 and 2099.";
const BY_FIELD = {
  PULocationID: ZONE,
  DOLocationID: ZONE,
  pickup_datetime: TIME,
  when: TIME,
  date: TIME,
  arrive: TIME,
  trip_distance: "Miles are a number such as 2.5; leave the field empty when you do not know them.",
  duration: "Minutes are a number above 0, such as 18, up to 10,000.",
};
const BY_STATUS = {
  0: "The service cannot be reached. Is the connection up?",
  401: "This service wants a key; the one given, if any, is not one of its own.",
  408: "The question did not arrive in time. Please try again.",
  429: "Too many questions at once. Please try again in a moment.",
  503: "The service cannot answer at the moment. Please try again soon.",
};

/** What to tell a person of a refusal (`Refused` of dom.js). */
export const inWords = (error) =>
  BY_FIELD[error.field] ?? BY_STATUS[error.status] ??
  (error.status ? "Something went wrong in the service. Its operators find the reason in its log." : String(error.message));

/** Miles as a form has them: a number, undefined when empty, null when they are none. */
export function milesOf(text) {
  const typed = text.trim().replace(",", ".");
  if (!typed) return undefined;
  const miles = Number(typed);
  return Number.isFinite(miles) && miles >= 0 ? miles : null;
}

/** Whole minutes in words. */
export const minutes = (value) => `${value.toFixed(0)} minute${value.toFixed(0) === "1" ? "" : "s"}`;
