"use strict";
const form = document.getElementById("ride");
const answer = document.getElementById("answer");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const fields = new FormData(form);
  const ride = {
    PULocationID: Number(fields.get("PULocationID")),
    DOLocationID: Number(fields.get("DOLocationID")),
  };
  if (fields.get("trip_distance")) ride.trip_distance = Number(fields.get("trip_distance"));
  if (fields.get("pickup_datetime")) ride.pickup_datetime = fields.get("pickup_datetime");
  try {
    const response = await fetch("/predict", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(ride),
    });
    const body = await response.json();
    if (!response.ok) {
      answer.textContent = body.error.message;
      return;
    }
    const { p10, p90 } = body.interval;
    answer.textContent =
      `${body.duration.toFixed(1)} minutes; eight of ten such rides take ` +
      `${p10.toFixed(0)} to ${p90.toFixed(0)} (${body.support} past trips, ${body.model})`;
  } catch (error) {
    answer.textContent = "the service does not answer";
  }
});
