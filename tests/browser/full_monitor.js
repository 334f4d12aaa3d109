// The monitor as if it had met all that its tables can show, with long names, figures and reasons.
const real = window.fetch, at = "2026-11-27T04:53:31+00:00", line = Array(145).fill(1.04);
const model = "green-duration:12", version = { name: "green-duration", version: 12 };
const areas = ["Bronx", "Manhattan", "Staten Island", "elsewhere"].map((name) => ({ name, factor: 1.04, line }));
const full = {
  traffic: { trouble: null, said: `${model}, a line\nand another`, versions: [{ model, areas }, { model, areas }] },
  verdict: {
    at, verdict: "watch", model, source: "live log", rides: 4000, answered: 3000, truths: {}, reasons: [],
    last_ride_at: at, last_feedback_at: at, estimate: null,
    errors: ["without_distance", "manhattan_internal"].map((group) => ({
      by: "segment", group, rows: 123456, mae: 13.5, mae_low: 13.36, mae_high: 13.65, coverage: 0.761 })),
    drift: ["straight_distance", "missing_distance"].map((feature) => ({
      feature, measure: "share", value: 0.000313, unit: "minutes", watch: 0.015, alarm: 0.035, level: "unknown" })),
  },
  history: [{ at, action: "challenge", champion: version, challenger: version, reason: "the newest other version" }],
  decisions: [{ at, what: `A/B-test ${model}`, why: "farther off by 0.095 min (0.323 farther off to 0.059 nearer)" }],
};
window.fetch = async (path, ...rest) => {
  const response = await real(path, ...rest);
  if (!path.startsWith("/monitor/data")) return response;
  const body = await response.json();
  body.log.models = [{
    model, arm: "challenger", predictions: 123456, feedback: 123456, short: 3000, long: 3000, quarantined: {},
    mean_error: 13.5, error_low: 13.36, error_high: 13.65, coverage: 0.761, latency_ms: 10.38 }];
  return Response.json({ ...body, ...full });
};
