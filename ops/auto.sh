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
# A sleep that fails would take turn upon turn without one.
read -r seconds <<END
${AUTO_SECONDS:-3600}
END
case $seconds in
  *[!0-9]* | 0* | ??????????*)
    echo "AUTO_SECONDS is '$seconds'; it must be a whole number of seconds, 1 or above" >&2
    exit 1
    ;;
esac
while :; do
  turn
  # A turn that failed is tried again by the next; each act of it may be repeated.
  sleep "$seconds"
done
