"""Months are answered row group by row group, and go on where they were when they were killed."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from taxi_duration.chain import answered
from taxi_duration.chain.answered import alone_at, forget_answers, write_answered
from taxi_duration.data import prepared, window
from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import MonthPart, Window
from taxi_duration.domain.months import parse_months
from taxi_duration.domain.rides import Rides
from taxi_duration.errors import AtWorkError
from taxi_duration.evaluation.metrics import sum_answers
from taxi_duration.training.fit import fit_model

ABOUT = {"model": "green-duration:1", "model_sha256": "0" * 64}


@pytest.fixture
def months(monkeypatch, home):
    monkeypatch.setattr(prepared, "GROUP_ROWS", 2000)
    monkeypatch.setenv("SAMPLE_ROWS", "5000")
    return prepare_months("green", parse_months("2021-01:2021-02"), mode="sample")


@pytest.fixture
def groups(months):
    return [group for month in months for group in MonthPart.of(month, True).groups()]


@pytest.fixture
def model(months):
    return fit_model("LR", Window.scored(months))


@pytest.fixture
def asked(monkeypatch):
    """The row groups that are answered, by their keys."""
    keys, answer = [], answered.answer_group

    def counted(model, part):
        keys.append(part.key)
        return answer(model, part)

    monkeypatch.setattr(answered, "answer_group", counted)
    return keys


def stop_at(monkeypatch, n):
    """Let the process end when the n-th row group is to be kept."""
    keep, kept = answered._keep, []

    def ending(found, piece):
        if len(kept) == n:
            raise KeyboardInterrupt
        kept.append(piece)
        keep(found, piece)

    monkeypatch.setattr(answered, "_keep", ending)


def frame_of(model, months):
    """What the plain way with frames makes of the same months."""
    trips = pd.concat([month.trips() for month in months], ignore_index=True)
    answers = model.answer(Rides.from_frame(trips))
    return trips.assign(
        predicted=answers.duration, p10=answers.p10, p50=answers.p50, p90=answers.p90,
        support=answers.support, used_distance=answers.used_distance,
        model=pd.Categorical([ABOUT["model"]]).repeat(len(trips)),
    )  # fmt: skip


def test_file_holds_what_frames_would(model, months, groups, tmp_path):
    assert len(groups) == 6  # of three a month
    path = tmp_path / "out.parquet"
    sums = write_answered(model, groups, ABOUT, path)
    expected = frame_of(model, months)
    pd.testing.assert_frame_equal(pd.read_parquet(path), expected)
    rides, minutes = Window.scored(months).whole()
    whole = sum_answers(minutes, model.answer(rides), rides)
    np.testing.assert_allclose(sums, [whole, whole], rtol=1e-12)
    with pq.ParquetFile(path) as file:
        said = {k.decode(): v.decode() for k, v in file.metadata.metadata.items()}
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert said.items() >= ABOUT.items()
    assert sizes == [len(group) for group in groups]


def test_slices_change_nothing(model, months, groups, tmp_path, monkeypatch):
    monkeypatch.setattr(answered, "SLICE_ROWS", 300)
    monkeypatch.setattr(window, "BATCH_ROWS", 700)
    write_answered(model, groups, ABOUT, tmp_path / "out.parquet")
    expected = frame_of(model, months)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), expected)


@pytest.mark.parametrize("n", [0, 1, 4])
def test_killed_run_goes_on_with_the_first_group_that_is_not_kept(
    model, groups, tmp_path, monkeypatch, asked, n
):
    path = tmp_path / "out.parquet"
    expected = write_answered(model, groups, ABOUT, path)
    whole = pd.read_parquet(path)
    forget_answers(path)
    path.write_bytes(b"of before")
    with monkeypatch.context() as killed:
        stop_at(killed, n)
        with pytest.raises(KeyboardInterrupt):
            write_answered(model, groups, ABOUT, path)
    assert path.read_bytes() == b"of before"  # never half
    asked.clear()
    sums = write_answered(model, groups, ABOUT, path)
    assert sorted(asked) == sorted(group.key for group in groups[n:])
    pd.testing.assert_frame_equal(pd.read_parquet(path), whole)
    np.testing.assert_array_equal(sums, expected)
    forget_answers(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", path.name]


def test_two_processes_do_not_write_one_file(model, groups, tmp_path):
    """Both would write the same bytes' places, and the file would hold a mixture."""
    path = tmp_path / "out.parquet"
    with alone_at(path):
        write_answered(model, groups[:1], {**ABOUT, "more": "of before"}, path)
        write_answered(model, groups[:1], ABOUT, path)  # begins anew, and still holds the lock
        with pytest.raises(AtWorkError, match=r"out\.parquet"), alone_at(path):
            pass
        with alone_at(tmp_path / "another.parquet"):
            pass
    with alone_at(path):
        forget_answers(path)
    with alone_at(path):
        pass


@pytest.mark.parametrize("changed", ["model", "model_sha256", "more"])
def test_answers_of_anything_else_are_not_taken(model, groups, tmp_path, asked, changed):
    path = tmp_path / "out.parquet"
    write_answered(model, groups[:2], ABOUT, path)
    asked.clear()
    write_answered(model, groups[:2], {**ABOUT, changed: "another"}, path)
    assert sorted(asked) == sorted(group.key for group in groups[:2])


def test_damaged_answers_are_made_again(model, groups, tmp_path, asked, caplog):
    path = tmp_path / "out.parquet"
    write_answered(model, groups, ABOUT, path)
    whole = pd.read_parquet(path)
    pieces = sorted(answered._folder_of(path).glob("*.arrow"))
    pieces[1].write_bytes(pieces[1].read_bytes()[:-20])
    pieces[2].write_bytes(pieces[3].read_bytes()[:0])
    pieces[4].write_bytes(pieces[5].read_bytes())  # of another group, with other rows
    asked.clear()
    write_answered(model, groups, ABOUT, path)
    again = [pieces[i].stem for i in (1, 2)]
    again += [pieces[4].stem] if len(groups[4]) != len(groups[5]) else []
    assert sorted(asked) == sorted(again)
    pd.testing.assert_frame_equal(pd.read_parquet(path), whole)
    assert "are answered again" in caplog.text


def test_rides_of_a_proven_fault_are_summed_apart(model, months, groups, tmp_path, monkeypatch):
    rides, minutes = Window.scored(months).whole()
    suspect = np.arange(len(minutes)) % 7 == 3
    edges = np.cumsum([0, *map(len, groups)])
    masks = {g.key: suspect[a:b] for g, a, b in zip(groups, edges, edges[1:], strict=False)}
    monkeypatch.setattr(MonthPart, "suspects", lambda part: masks[part.key])
    sums = write_answered(model, groups, ABOUT, tmp_path / "out.parquet")
    clean = rides.take(~suspect)
    for found, (asked, actual) in zip(sums, [(rides, minutes), (clean, minutes[~suspect])],
                                      strict=True):  # fmt: skip
        np.testing.assert_allclose(found, sum_answers(actual, model.answer(asked), asked), 1e-12)


def test_dask_answers_the_groups_that_are_left(model, groups, tmp_path, monkeypatch):
    path, sent = tmp_path / "out.parquet", []
    write_answered(model, groups, ABOUT, path)
    whole = pd.read_parquet(path)
    piece = answered._folder_of(path) / f"{groups[3].key}.arrow"
    piece.unlink()
    monkeypatch.setenv("ENGINE", "dask")
    monkeypatch.setattr(
        answered, "map_parts", lambda task, parts: (sent.extend(parts), map(task, parts))[1]
    )
    write_answered(model, groups, ABOUT, path)
    assert sent == [groups[3]]
    pd.testing.assert_frame_equal(pd.read_parquet(path), whole)


def test_no_more_is_answered_ahead_than_is_worked_on(model, groups, tmp_path, monkeypatch):
    """The writer holds the others up: memory does not grow with the months."""
    monkeypatch.setattr(answered, "MAX_THREADS", 1)
    started, ahead, kept = [], [], answered._keep
    answer = answered.answer_group
    monkeypatch.setattr(
        answered, "answer_group", lambda m, part: (started.append(part), answer(m, part))[1]
    )
    monkeypatch.setattr(
        answered, "_keep", lambda *args: (ahead.append(len(started)), kept(*args))[1]
    )
    write_answered(model, groups, ABOUT, tmp_path / "out.parquet")
    assert all(n <= done + 2 for done, n in enumerate(ahead, 1))


def test_what_is_kept_says_what_it_belongs_to(model, groups, tmp_path):
    path = tmp_path / "out.parquet"
    write_answered(model, groups[:1], ABOUT, path)
    said = answered._folder_of(path) / answered.OF_FILE
    assert json.loads(said.read_text()) == ABOUT
