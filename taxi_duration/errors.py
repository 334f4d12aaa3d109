"""Errors a user can act on; each message says what was found and what was expected."""


class TaxiError(Exception):
    """Base of all errors that a user, not a programmer, can mend."""


class TagError(TaxiError, ValueError):
    """A month tag, or the order of the months, is not acceptable."""


class SettingError(TaxiError, ValueError):
    """A setting has a value outside what is allowed, or a name nobody knows."""


class MonthNotPublishedError(TaxiError):
    """The source answers, and does not have this month (yet)."""


class SourceUnreachableError(TaxiError):
    """No connection to the source could be made at all."""


class SourceError(TaxiError):
    """The source answered, but not with a usable file."""


class TripFileError(TaxiError, ValueError):
    """A file of trips cannot be read as what it claims to be."""


class BadMonthError(TaxiError):
    """Too large a share of a month's rows is bad for the month to be used."""


class BundleError(TaxiError):
    """A model bundle is damaged, unsigned, or holds what may not be loaded."""


class RegistryError(TaxiError):
    """The registry and the saved models contradict each other."""


class ContentError(TaxiError, ValueError):
    """A file's content is not as it must be; names the field, what was found and expected."""


class DeploymentError(TaxiError, ValueError):
    """deployment.json is not as it was written; says what is wrong and what writes it anew."""


class OvertakenError(TaxiError):
    """Who serves was changed by somebody else after it was decided what to change."""


class TrackingError(TaxiError):
    """MLflow's store does not answer, or not as it should; says why."""


class DeletedError(TrackingError):
    """MLflow's store answers, and the run, experiment or version asked about was deleted."""


class PipelineError(TaxiError):
    """A notebook of the chain failed; names the notebook, the cell and the error."""


class AtWorkError(TaxiError):
    """Another process does the same now; says what."""


class NotFoundError(TaxiError, LookupError):
    """A run, model or version that was asked for does not exist; says which do."""


class LogError(TaxiError):
    """The prediction log cannot be written or read; says why."""


class ClusterError(TaxiError):
    """A Dask cluster is not there, not made for this, or lost what was needed; says which."""


class ReplayError(TaxiError):
    """A running service does not answer what is asked of it; says where and why."""


class WouldActError(Exception):
    """A dry run came to what would be done now. Not a TaxiError: no handler may take it for one."""
