"""What lies outside of this machine: a proxy, the source of months, keys for S3."""

from __future__ import annotations

import email.utils
import http.client
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from taxi_duration import environment
from taxi_duration.data.addresses import check_source
from taxi_duration.doctor.examination import NOTE, OK, PROBLEM, Finding, one_line

WAIT_SECONDS = 1.2  # for a connection, and for each answer on it
SKEW_SECONDS = 300  # S3 refuses a request signed with a clock that is further off
LOOKUP = "/misc/taxi_zone_lookup.csv"
MOST_BYTES = 100_000


class Answer(NamedTuple):
    """What an address answered; `problem` says why nothing was."""

    status: int = 0
    text: str = ""
    date: str | None = None
    problem: str = ""


def ask(url: str, method: str = "GET") -> Answer:
    """Ask an address, by way of the proxy if one is set."""
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as response:
            text = response.read(MOST_BYTES).decode(errors="replace")
            return Answer(response.status, text, response.headers.get("Date"))
    except urllib.error.HTTPError as error:  # an answer all the same
        return Answer(error.code, "", error.headers.get("Date"))
    except urllib.error.URLError as error:
        return Answer(problem=one_line(error.reason))
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Answer(problem=one_line(error))


def reaches(host: str, port: int) -> str | None:
    """Return why no connection can be made there; None when one was."""
    try:
        socket.create_connection((host, port), WAIT_SECONDS).close()
    except (OSError, UnicodeError, OverflowError) as error:
        return one_line(error)
    return None


def knows_s3_keys() -> bool:
    """True when AWS's library finds keys in the environment, its files, or the machine's role."""
    import botocore.session

    return botocore.session.Session().get_credentials() is not None


def look_at_proxy(name: str) -> Iterator[Finding]:
    """Whether the proxies of the environment answer; this machine itself goes past them."""
    proxies = {k: v for k, v in urllib.request.getproxies().items() if k in ("http", "https")}
    if not proxies:
        yield Finding(name, OK, "none is set")
    for kind, url in proxies.items():
        try:
            address = urlsplit(url if "://" in url else f"http://{url}")
            host, port = address.hostname or "", address.port or 80
        except ValueError:
            host, port = "", 0
        problem = reaches(host, port) if host else "no address"
        if problem:
            yield Finding(name, PROBLEM, f"{kind.upper()}_PROXY {host}:{port} does not answer: "
                          f"{problem}", f"unset {kind.upper()}_PROXY, or mend it")  # fmt: skip
        else:
            yield Finding(name, OK, f"{kind} goes by way of {host}:{port}")


def look_at_cluster(name: str) -> Iterator[Finding]:
    """Whether anybody listens where a Dask scheduler is said to be; a wrong word is a setting's."""
    named, engine = environment.dask_scheduler(), environment.engine()
    if engine == "local":
        said = f"months are worked on in one process{', DASK_SCHEDULER is not asked' * bool(named)}"
        yield Finding(name, NOTE if named else OK, said, "ENGINE=dask to use it" * bool(named))
    elif named is None:
        yield Finding(name, OK, "a run starts a Dask worker on each of this machine's cores")
    else:
        address = urlsplit(named)
        if problem := reaches(address.hostname or "", address.port or 0):
            yield Finding(name, PROBLEM, f"nobody listens at DASK_SCHEDULER={named}: {problem}",
                          "start a scheduler there, or mend it (docs/dask.md)")  # fmt: skip
        else:
            yield Finding(name, OK, f"{named} listens; a run compares versions with its workers")


def look_at_months(name: str) -> Iterator[Finding]:
    """Whether months can be had from `TLC_URL`, and whether its clock and ours agree."""
    if environment.data_mode() == "sample":
        yield Finding(name, OK, "DATA=sample: nobody is asked")
        return
    check_source()
    base = environment.tlc_url()
    if not base.startswith(("http://", "https://")):
        yield _other_source(name, base)
        return
    answer = ask(base + LOOKUP, "HEAD")
    if answer.problem or answer.status >= 500:
        yield _no_months(name, base, answer.problem or f"it says {answer.status}")
        return
    yield Finding(name, OK, f"{base} answers")
    if answer.date and (sent := email.utils.parsedate_to_datetime(answer.date)):
        off = time.time() - sent.timestamp()
        if abs(off) > SKEW_SECONDS:
            yield Finding(name, PROBLEM, f"this clock is {abs(off) / 60:,.0f} minutes "
                          f"{'ahead of' if off > 0 else 'behind'} the source's",
                          "set the clock (`timedatectl set-ntp true`)")  # fmt: skip


def _other_source(name: str, base: str) -> Finding:
    """A folder, or a bucket, which is listed as a run would."""
    from taxi_duration.data.remote import check_layout
    from taxi_duration.data.sources import LAYOUTS

    try:
        check_layout(base, LAYOUTS)
    except Exception as error:  # of the file system's library, by the kind of address
        if base.startswith("s3://") and not knows_s3_keys():
            keys = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `aws configure`"
            return Finding(name, PROBLEM, f"there are no keys for {base}", keys)
        return _no_months(name, base, one_line(error))
    return Finding(name, OK, f"{base} holds months")


def _no_months(name: str, base: str, problem: str) -> Finding:
    said = f"no months from {base}: {problem}"
    if environment.data_mode() == "tlc" or not base.startswith("http"):
        return Finding(name, PROBLEM, said, "mend TLC_URL or the network, or DATA=sample")
    return Finding(name, NOTE, said,
                   "months in data/raw are used; a run without them takes the sample")  # fmt: skip
