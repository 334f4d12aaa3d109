#!/bin/sh
# Takes a turn of the loop every AUTO_SECONDS; trains the first model when none is deployed.
set -u

while :; do
  if [ -e "${DEPLOYMENT_DIR:-deployment}/deployment.json" ]; then
    python pipeline.py auto && touch /tmp/last-turn
  else
    python pipeline.py run && touch /tmp/last-turn
  fi
  # A turn that failed is tried again by the next; each act of it may be repeated.
  sleep "${AUTO_SECONDS:-3600}"
done
