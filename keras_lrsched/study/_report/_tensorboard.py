"""Event files for TensorBoard: curves of each run, and its settings for the HParams dashboard.

A run has one file of a fixed name, so that a second report replaces the first one's. Runs that differ in the seed only are
one session group, over which HParams shows the mean.
"""

import io
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_lrsched.study._report import _files
from keras_lrsched.study._report._numbers import thinned
from keras_lrsched.study.trial import Outcome, Trial

EVENTS = "events.out.tfevents.0.study"
POINTS = 200
"""The largest number of steps of a run whose training loss and learning rate are written."""


def write(outcomes: Iterable[Outcome], directory: Path) -> None:
    """Write `directory/RUN/SEED/` for each trial, and what HParams shows of them into `directory`."""
    outcomes, now = list(outcomes), time.time()
    _write_file(directory, [(0, now, _experiment(outcomes))])
    for outcome, folder in zip(outcomes, folders(outcome.trial for outcome in outcomes), strict=True):
        _write_file(directory / folder, _events(outcome, now))


def folders(trials: Iterable[Trial]) -> Iterator[str]:
    """Return a relative path for each trial, which differ whatever the labels are."""
    trials = list(trials)
    groups = _files.distinct_names(_group(trial) for trial in trials)
    return (f"{groups[_group(trial)]}/seed{trial.seed}" for trial in trials)


def _group(trial: Trial) -> str:
    return f"{trial.optimizer}, {trial.schedule}, {trial.learning_rate:.6g}, {trial.budget}"


def _write_file(directory: Path, events: Iterable[tuple[int, float, Any]]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    directory.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    records = RecordWriter(buffer)
    records.write(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
    for step, wall_time, summary in events:
        records.write(Event(wall_time=wall_time, step=step, summary=summary).SerializeToString())
    _files.replace(directory / EVENTS, buffer.getvalue())


def _experiment(outcomes: list[Outcome]) -> Any:
    from tensorboard.plugins.hparams import api

    trials = [outcome.trial for outcome in outcomes]
    domains = {
        "optimizer": api.Discrete(sorted({trial.optimizer for trial in trials})),
        "schedule": api.Discrete(sorted({trial.schedule for trial in trials})),
        "learning_rate": api.Discrete(sorted({float(trial.learning_rate) for trial in trials})),
        "budget": api.Discrete(sorted({trial.budget for trial in trials})),
    }
    metrics = dict.fromkeys(name for outcome in outcomes for name in outcome.evaluations)
    hparams = [api.HParam(name, domain) for name, domain in domains.items() if domain.values]
    return api.hparams_config_pb(hparams, [api.Metric(name) for name in metrics], time_created_secs=time.time())


def _events(outcome: Outcome, now: float) -> Iterator[tuple[int, float, Any]]:
    """Steps, times and summaries. The run is dated as if it had just ended."""
    from tensorboard.plugins.hparams import api

    trial, start = outcome.trial, now - outcome.seconds
    each = outcome.seconds / max(1, len(outcome.loss))
    yield 0, start, api.hparams_pb(_settings(trial), trial_id=_group(trial), start_time_secs=start)
    for step, scalars in _scalars(outcome):
        yield step, start + each * step, _summary(scalars)
    yield len(outcome.loss), now, _end(outcome, now)


def _settings(trial: Trial) -> dict[str, Any]:
    return {
        "optimizer": trial.optimizer,
        "schedule": trial.schedule,
        "learning_rate": float(trial.learning_rate),
        "budget": float(trial.budget),
    }


def _scalars(outcome: Outcome) -> Iterator[tuple[int, Mapping[str, float]]]:
    """Training values by the steps that are done, then those of evaluations."""
    for index in thinned(min(len(outcome.loss), len(outcome.learning_rate)), POINTS).tolist():
        yield index + 1, {"loss": float(outcome.loss[index]), "learning_rate": float(outcome.learning_rate[index])}
    for index, step in enumerate(np.asarray(outcome.evaluated_at).tolist()):
        yield int(step), {name: float(values[index]) for name, values in outcome.evaluations.items() if index < len(values)}


def _summary(scalars: Mapping[str, float]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()])


def _end(outcome: Outcome, now: float) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_SUCCESS if outcome.status == "finished" else api_pb2.STATUS_FAILURE
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=now)
    data = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=info))
    summary = Summary()
    summary.value.add(tag=metadata.SESSION_END_INFO_TAG, metadata=data, tensor=metadata.NULL_TENSOR)
    return summary
