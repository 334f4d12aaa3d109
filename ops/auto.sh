#!/bin/sh
# Takes a turn of the loop every AUTO_SECONDS, with --once one turn; trains the first model when none
# is deployed.
set -u

turn() {
  if [ -e "${DEPLOYMENT_DIR:-deployment}/deployment.json" ]; then
    python pipeline.py auto && touch /tmp/last-turn
  else
    python pipeline.py run && touch /tmp/last-turn
  fi
}

if [ "${1:-}" = --once ]; then
  turn
  exit
fi
while :; do
  turn
  # A turn that failed is tried again by the next; each act of it may be repeated.
  sleep "${AUTO_SECONDS:-3600}"
done
