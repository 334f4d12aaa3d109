"""What one turn of the loop does to the world: months, chain, registry, log and deployment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import pandas as pd

from taxi_duration.chain.run_settings import RunSettings
from taxi_duration.domain.months import Month
from taxi_duration.domain.version import Version
from taxi_duration.evaluation.bootstrap import Estimate
from taxi_duration.evaluation.gate import Decision
from taxi_duration.evaluation.health import Health


class Republished(NamedTuple):
    """A month that the source published anew.

    Args:
        before, after: SHA-256 of the old bytes and of the new ones.
        learned: the version in question was fitted on the old ones.
    """

    month: Month
    before: str
    after: str
    learned: bool


class World(Protocol):
    """What the loop can ask and do: for real in `PipelineWorld`, in memory in `SimulatedWorld`."""

    def now(self) -> float:
        """Unix seconds."""

    # --- months

    def months_of(self, version: Version) -> list[Month]:
        """Months that a version was trained and validated on."""

    def find_published(self, version: Version, months: Iterable[Month]) -> Iterator[Month]:
        """Those months of the version's service that can be had, in their order.

        Each is asked for when the one before it was taken; nothing is downloaded.

        Raises:
            SourceUnreachableError, SourceError: the source does not say.
        """

    def fetch_republished(self, version: Version, months: Iterable[Month]) -> list[Republished]:
        """Months of which the source has other bytes than the version knows; fetched beside.

        Of a month that the version does not know, other bytes than lie here.

        Raises:
            SourceError: the source cannot be used; one that cannot be reached says nothing.
        """

    def month_health(self, version: Version, month: Month) -> Health:
        """How the version does on a published month."""

    # --- the live log

    def live_health(self, champion: Version) -> Health:
        """How the champion does on the prediction log since it serves; kept for the pages."""

    def arm_health(self, challenger: Version) -> Health:
        """How a challenger does on the rides that it answered."""

    def live_rows(self, since: float, pair: tuple[Version, Version]) -> pd.DataFrame:
        """Rides that one of two versions answered, as `monitor.log_frame` with `failed_as`.

        A shadow answer is that of the other of the two; see `log_tables.tested`.
        """

    def compare_live(self, champion: Version, earlier: Version) -> tuple[Estimate, int]:
        """By how many minutes an earlier version would have been nearer, and on how many rides."""

    # --- a challenger

    def train(
        self, settings: RunSettings, run_id: str | None, remember: Callable[[str], None]
    ) -> Version:
        """Run the chain, or go on with it, and return the registered version.

        Raises:
            TrackingError: MLflow's store is not there to take a run.
            AtWorkError: somebody else goes on with that run now.
            TaxiError: the chain failed, or its model was not good enough to be registered.
        """

    def gate(self, champion: Version | None, challenger: Version, month: Month) -> Decision:
        """Judge the challenger on a month that neither has seen; tag the version.

        Without a champion there is nobody to be worse than.
        """

    def refit(
        self,
        judged: Version,
        months: list[Month],
        run_id: str | None,
        remember: Callable[[str], None],
    ) -> Version:
        """Fit the version anew on months that end with the one that judged it; register that.

        Raises:
            TrackingError, AtWorkError, TaxiError: as `train`.
        """

    def restore_bundle(self, version: Version) -> bool:
        """Pull the version's bundle when it is gone from disk; True when it was.

        Raises:
            BundleError: it is gone, and the registry does not give the very same one.
        """

    def check_bundle(self, version: Version) -> None:
        """Load the version as the service would.

        Raises:
            BundleError: it is not usable.
        """

    # --- MLflow; both raise a TrackingError when its store is not there

    def mirror(self) -> None:
        """Make the registry's aliases say what deployment.json says."""

    def log(self, line: dict[str, Any], version: Version | None) -> None:
        """Log a decision of the audit trail; one that is there already stays as it is."""
