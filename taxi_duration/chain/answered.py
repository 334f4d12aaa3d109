"""Months answered row group by row group: what is answered is kept, a killed run goes on there.

Beside the file to be made lies a folder with the answers to each row group of the months, an
Arrow file that is whole or not there, and what they belong to. When all are there, trips and
answers are written to one Parquet file, which takes its name when it is whole.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from taxi_duration import environment
from taxi_duration.cores import usable_cores
from taxi_duration.data.engine import map_parts
from taxi_duration.data.prepared import TIMES
from taxi_duration.data.trips import COLUMNS
from taxi_duration.data.window import MonthPart
from taxi_duration.domain.rides import Answers
from taxi_duration.errors import AtWorkError
from taxi_duration.evaluation.metrics import sum_answers, take_answers
from taxi_duration.files import atomic_path, held, read_json, sync_folder, write_json
from taxi_duration.model.duration_model import DurationModel

log = logging.getLogger(__name__)

# Answered at once: their features take some 15 MB, and numpy's calls cost nothing beside them.
SLICE_ROWS = 100_000
MAX_THREADS = 4  # a row group each, at some 100 MB; reading and writing take a core of their own
OF_FILE, WHOLE_FILE = "of.json", "whole.parquet"
ANSWERS = {
    "predicted": pa.float32(), "p10": pa.float32(), "p50": pa.float32(), "p90": pa.float32(),
    "support": pa.int32(), "used_distance": pa.bool_(),
}  # fmt: skip
MODEL = pa.dictionary(pa.int8(), pa.large_string())
# Hardly an answer occurs twice: looking for equal ones would take half the time of writing.
ENCODING = {
    "use_dictionary": [*COLUMNS[2:], "support", "model"],
    "column_encoding": dict.fromkeys(TIMES, "DELTA_BINARY_PACKED"),
}


class Answered(NamedTuple):
    """The answers to a row group.

    Args:
        columns: ANSWERS, shape (n,).
        sums: `sum_answers` of all rides, and of those without a proven fault, (2, 6, 9).
    """

    columns: pa.Table
    sums: np.ndarray


@contextmanager
def alone_at(path: Path) -> Iterator[None]:
    """Keep other processes from answering to the same file while the block does.

    Raises:
        AtWorkError: another one does.
    """
    folder = _folder_of(path)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(held(folder, fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise AtWorkError(f"another process writes {path} now; let it end first") from error
        yield


def write_answered(
    model: DurationModel, parts: Sequence[MonthPart], about: Mapping[str, str], path: Path
) -> np.ndarray:
    """Answer every trip and write trips and answers to a Parquet file; return `Answered.sums`.

    Row groups that were answered before, by the same model for the same months with the same
    code, are taken from the folder beside the file. It stays until `forget_answers`.

    Args:
        parts: row groups, in the order of the file; at least one.
        about: goes to the file's key-value metadata; anything else begins anew. `model` is a
            column too.
    """
    folder, sums, schema = _folder(path, about), np.zeros(1), _schema(parts[0], about)
    with (
        pq.ParquetWriter(folder / WHOLE_FILE, schema, **ENCODING) as writer,
        closing(_answers(partial(answer_group, model), parts, folder)) as every,
    ):
        for part, answered in zip(parts, every, strict=True):
            writer.write_table(_joined(part, answered, about["model"], schema), len(part))
            sums = sums + answered.sums
    _name(folder / WHOLE_FILE, path)
    return sums


def forget_answers(path: Path) -> None:
    """Remove what `write_answered` kept beside a file: it is needed no more."""
    shutil.rmtree(_folder_of(path), ignore_errors=True)


def _answers(
    task: Callable[[MonthPart], Answered], parts: Sequence[MonthPart], folder: Path
) -> Generator[Answered]:
    """Yield the answers to each row group, from the folder where they are there."""
    pieces = [folder / f"{part.key}.arrow" for part in parts]
    kept = [_read(piece, part) is not None for piece, part in zip(pieces, parts, strict=True)]
    if any(kept):
        log.info("%s of %s row groups were answered before", sum(kept), len(parts))
    left = [part for part, there in zip(parts, kept, strict=True) if not there]
    with closing(_in_order(task, left)) as answering:
        for part, piece, there in zip(parts, pieces, kept, strict=True):
            if there:
                yield _read(piece, part) or task(part)
                continue
            answered = next(answering)
            _keep(answered, piece)
            yield answered


def answer_group(model: DurationModel, part: MonthPart) -> Answered:
    """Answer the rides of a row group."""
    suspect = part.suspects()
    found, sums, at = [], np.zeros(1), 0
    for rides, minutes in part.batches():
        for start in range(0, len(minutes), SLICE_ROWS):
            rows = slice(start, start + SLICE_ROWS)
            some, actual = rides.take(rows), minutes[rows]
            answers = model.answer(some)
            clean = ~suspect[at : at + len(actual)]
            both = [every := sum_answers(actual, answers, some), every]
            if not clean.all():
                kept = take_answers(answers, clean)
                both[1] = sum_answers(actual[clean], kept, some.take(clean))
            sums, at = sums + np.stack(both), at + len(actual)
            found.append(_columns(answers))
    return Answered(pa.concat_tables(found), sums)


def _columns(answers: Answers) -> pa.Table:
    values = (answers.duration, answers.p10, answers.p50, answers.p90, answers.support,
              answers.used_distance)  # fmt: skip
    return pa.table(dict(zip(ANSWERS, values, strict=True)), schema=pa.schema(ANSWERS))


def _in_order(task: Callable[[Any], Answered], parts: Sequence[MonthPart]) -> Generator[Answered]:
    """As `map_parts`; here, row groups are answered side by side, for most of it lets go of the
    interpreter's lock.
    """
    if environment.engine() != "local":
        yield from map_parts(task, parts)
        return
    threads, waiting = min(usable_cores(), MAX_THREADS), deque[Future[Answered]]()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for part in parts:
                if len(waiting) > threads:  # one more than are worked on
                    yield waiting.popleft().result()
                waiting.append(pool.submit(task, part))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


# --- what is kept ----------------------------------------------------------------------------


def _folder(path: Path, about: Mapping[str, str]) -> Path:
    """Return the folder of what is answered; what belongs to something else is removed."""
    folder = _folder_of(path)
    try:
        same = read_json(folder / OF_FILE) == dict(about)
    except (OSError, ValueError):
        same = False
    if not same:
        for left in folder.glob("*"):  # not the folder: it is what `alone_at` locks
            left.unlink()
        write_json(folder / OF_FILE, dict(about))
    return folder


def _folder_of(path: Path) -> Path:
    return path.parent / f".{path.name}.answered"


def _keep(answered: Answered, piece: Path) -> None:
    table = answered.columns.replace_schema_metadata({"sums": json.dumps(answered.sums.tolist())})
    with atomic_path(piece) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _read(piece: Path, part: MonthPart) -> Answered | None:
    """Return the answers to a row group that were kept; None where they are not, or not whole."""
    if not piece.exists():
        return None
    try:
        with pa.memory_map(str(piece)) as file, pa.ipc.open_file(file) as reader:
            table = reader.read_all()
        sums = np.array(json.loads(table.schema.metadata[b"sums"]))
        whole = len(table) == len(part)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        log.warning("%s is damaged (%r), its rides are answered again", piece.name, error)
        return None
    return Answered(table, sums) if whole else None


# --- the file --------------------------------------------------------------------------------


def _schema(part: MonthPart, about: Mapping[str, str]) -> pa.Schema:
    trips = part.schema(COLUMNS)
    fields = {name: trips.field(name).type for name in COLUMNS}
    return pa.schema({**fields, **ANSWERS, "model": MODEL}, metadata=dict(about))


def _joined(part: MonthPart, answered: Answered, model: str, schema: pa.Schema) -> pa.Table:
    trips = part.table(COLUMNS)
    name = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(len(trips), dtype="int8")), pa.array([model], MODEL.value_type)
    )
    columns: list[Any] = [*trips.columns, *answered.columns.columns, name]
    return pa.table(columns, names=schema.names).cast(schema)


def _name(part: Path, path: Path) -> None:
    """Give a file its name when its bytes are on disk, as `atomic_path` does."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)
