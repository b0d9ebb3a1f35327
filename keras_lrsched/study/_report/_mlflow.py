"""Each run of a study as a run of MLflow (extra `mlflow`)."""

import contextlib
import hashlib
import importlib.util
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlparse

from keras_lrsched.study._report._numbers import thinned
from keras_lrsched.study.trial import Outcome

TAG = "keras_lrsched.trial"
POINTS = 500
BATCH = 1000
"""The largest number of values that MLflow takes at once."""


def log(outcomes: Iterable[Outcome], uri: str, experiment: str, settings: Mapping[str, Any]) -> int:
    """Log each trial that is not there yet.

    Args:
        outcomes: Of the trials.
        uri: The tracking URI: a server, a database such as `sqlite:///mlflow.db`, or a folder.
        experiment: The name of MLflow's experiment, which is made if it is missing.
        settings: Those of the study, which distinguish its trials from those of another.

    Returns:
        The number of runs that were added.

    Raises:
        ImportError: If MLflow is not installed.
    """
    require()
    from mlflow import MlflowClient

    with _file_store_allowed(uri):
        client = MlflowClient(tracking_uri=uri)
        where = _experiment(client, experiment)
        study = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]
        known = _logged(client, where)
        new = [outcome for outcome in outcomes if _identity(outcome, study) not in known]
        for outcome in new:
            _log_one(client, where, outcome, _identity(outcome, study))
    return len(new)


def require() -> None:
    """Refuse to go on without MLflow, before anything is written."""
    if importlib.util.find_spec("mlflow") is None:
        raise ImportError("Logging to MLflow needs mlflow-skinny: pip install 'keras-lrsched[mlflow]'")


@contextlib.contextmanager
def _file_store_allowed(uri: str) -> Iterator[None]:
    """MLflow from 3.7 on takes a folder only with this variable set; whoever gives one has chosen it."""
    name = "MLFLOW_ALLOW_FILE_STORE"
    if name in os.environ or urlparse(uri).scheme not in ("", "file"):
        yield
        return
    os.environ[name] = "true"
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return client.create_experiment(name) if found is None else found.experiment_id


def _logged(client: Any, experiment: str) -> set[str]:
    """The trials whose run was ended; one that a kill left open is logged once more."""
    trials: set[str] = set()
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        trials |= {run.data.tags[TAG] for run in page if TAG in run.data.tags and run.info.status in ("FINISHED", "FAILED")}
        token = page.token
        if not token:
            return trials


def _identity(outcome: Outcome, study: str) -> str:
    trial = outcome.trial
    return f"{study}: {trial.optimizer}, {trial.schedule}, {trial.learning_rate!r}, {trial.budget}, {trial.seed}"


def _log_one(client: Any, experiment: str, outcome: Outcome, identity: str) -> None:
    from mlflow.entities import Param, RunTag

    trial, end = outcome.trial, round(1000 * time.time())
    start = end - round(1000 * outcome.seconds)
    made = client.create_run(experiment, start_time=start, run_name=str(trial)[:250]).info.run_id
    params = {"optimizer": trial.optimizer, "schedule": trial.schedule, "learning_rate": f"{trial.learning_rate!r}"}
    params |= {"budget": str(trial.budget), "seed": str(trial.seed)}
    tags = {TAG: identity, "status": outcome.status} | ({"error": outcome.error} if outcome.error else {})
    client.log_batch(
        made,
        params=[Param(name, value[:6000]) for name, value in params.items()],
        tags=[RunTag(name, value[:5000]) for name, value in tags.items()],
    )
    metrics = list(_metrics(outcome, start))
    for first in range(0, len(metrics), BATCH):
        client.log_batch(made, metrics=metrics[first : first + BATCH])
    client.set_terminated(made, "FINISHED" if outcome.status == "finished" else "FAILED", end_time=end)


def _metrics(outcome: Outcome, start: int) -> Iterator[Any]:
    from mlflow.entities import Metric

    each = 1000 * outcome.seconds / max(1, len(outcome.loss))
    for index in thinned(min(len(outcome.loss), len(outcome.learning_rate)), POINTS).tolist():
        for name, values in (("loss", outcome.loss), ("learning_rate", outcome.learning_rate)):
            yield Metric(name, float(values[index]), start + round(each * (index + 1)), index + 1)
    for name, values in outcome.evaluations.items():
        for step, value in zip(outcome.evaluated_at, values, strict=False):
            yield Metric(name, float(value), start + round(each * int(step)), int(step))
