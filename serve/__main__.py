"""`python -m serve`: the service on port 9696, here and in the container."""

from __future__ import annotations

import sys
from pathlib import Path

from serve import settings
from taxi_duration import environment
from taxi_duration.errors import TaxiError


def main() -> int:
    """Run gunicorn with our settings; further arguments go to gunicorn."""
    try:
        if not settings.wait_for_model() and not _is_deployed():
            from serve.core.served_models import HOW_TO_DEPLOY

            print(HOW_TO_DEPLOY, file=sys.stderr)
            return 1
        from gunicorn.app.wsgiapp import WSGIApplication

        conf = Path(__file__).with_name("gunicorn_conf.py")
        sys.argv = ["gunicorn", "-c", str(conf), *sys.argv[1:]]
        WSGIApplication("%(prog)s [OPTIONS]", prog="serve").run()
    except TaxiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _is_deployed() -> bool:
    """True when there is something to serve, good or bad."""
    from taxi_duration.live.deployment import DEPLOYMENT_FILE
    from taxi_duration.model.bundle import CARD_FILE

    models = environment.models_dir()
    places = [environment.deployment_dir() / DEPLOYMENT_FILE, models / CARD_FILE]
    return any(place.exists() for place in places) or any(models.glob(f"*/*/{CARD_FILE}"))


if __name__ == "__main__":
    sys.exit(main())
