"""What a running job tells Prometheus, through Ray: every metric, its labels and its meaning, in one place.

A process that has not joined Ray tells nothing, at the price of one look. Ray puts `ray_` before each name, and
labels of its own beside ours: `WorkerId` is the process (of an engine, or of a training worker), `NodeAddress` its
node. Labels are from closed sets: `run` is the name of the run's folder, the others are named with each metric.
docs/metrics.md is this as a table.
"""

import threading
import time
from typing import Any, ClassVar

ALL: list["Metric"] = []
"""Every metric that is declared, in order."""

_RUN = "run"
_REFRESH_S = 1.0


class Metric:
    """A name, a meaning with its unit, and labels. `run` is a label of every metric."""

    kind: ClassVar[str]

    def __init__(self, name: str, meaning: str, **labels: str) -> None:
        self.name = f"offsft_{name}"
        self.meaning = meaning
        self.labels = {_RUN: "name of the run's folder", **labels}
        """What each label's values are."""
        self._in_ray: Any = None
        ALL.append(self)

    def _tell(self, labels: dict[str, str], value: float) -> None:
        assert labels.keys() == self.labels.keys(), (self.name, labels)
        import ray

        if not ray.is_initialized():
            return
        if self._in_ray is None:
            self._in_ray = self._made()
        self._record(value, labels)

    def _made(self) -> Any:
        raise NotImplementedError

    def _record(self, value: float, labels: dict[str, str]) -> None:
        raise NotImplementedError


class Counter(Metric):
    """Only grows; its name ends in `_total`."""

    kind = "counter"

    def add(self, amount: float = 1, /, **labels: str) -> None:
        if amount:
            self._tell(labels, amount)

    def _made(self) -> Any:
        from ray.util import metrics

        return metrics.Counter(self.name, self.meaning, tag_keys=tuple(self.labels))

    def _record(self, value: float, labels: dict[str, str]) -> None:
        self._in_ray.inc(value, tags=labels)


class Gauge(Metric):
    """The value as it is now.

    Ray forgets a gauge that is not told again within two of its reports, so a thread tells the last values again.
    """

    kind = "gauge"
    _thread: ClassVar[threading.Thread | None] = None

    def __init__(self, name: str, meaning: str, **labels: str) -> None:
        super().__init__(name, meaning, **labels)
        self._last: dict[tuple[str, ...], tuple[dict[str, str], float]] = {}

    def set(self, value: float | None, /, **labels: str) -> None:
        """None, for what has no value just now, changes nothing."""
        if value is None:
            return
        self._tell(labels, value)
        if self._in_ray is not None:
            self._last[tuple(labels.values())] = (labels, value)
            if Gauge._thread is None:
                Gauge._thread = threading.Thread(target=_tell_gauges_again, name="gauges", daemon=True)
                Gauge._thread.start()

    def _made(self) -> Any:
        from ray.util import metrics

        return metrics.Gauge(self.name, self.meaning, tag_keys=tuple(self.labels))

    def _record(self, value: float, labels: dict[str, str]) -> None:
        self._in_ray.set(value, tags=labels)


def _tell_gauges_again() -> None:
    while True:
        time.sleep(_REFRESH_S)
        for metric in ALL:
            if isinstance(metric, Gauge):
                for labels, value in list(metric._last.values()):
                    metric._tell(labels, value)


class Histogram(Metric):
    """Counts by size."""

    kind = "histogram"

    def __init__(self, name: str, meaning: str, bounds: list[float], **labels: str) -> None:
        super().__init__(name, meaning, **labels)
        self.bounds = bounds

    def observe(self, value: float, /, **labels: str) -> None:
        self._tell(labels, value)

    def _made(self) -> Any:
        from ray.util import metrics

        return metrics.Histogram(self.name, self.meaning, boundaries=self.bounds, tag_keys=tuple(self.labels))

    def _record(self, value: float, labels: dict[str, str]) -> None:
        self._in_ray.observe(value, tags=labels)


_STAGE = "rewrite, evaluate or score"
_RESPONSES = "expert, or kept by rewriting"
_WHEN = "rewriting (an engine's own rows so far), or before or after training (a sample)"

PROBLEMS = Counter(
    "problems_total",
    "Problems that are done",
    stage=_STAGE,
    outcome="rewriting: self, guided or expert, the source of what was kept; evaluation: correct or wrong; scored; poison",
)
PROBLEMS_IN_WORK = Gauge("problems_in_work", "Problems that an engine is working on", stage=_STAGE)
SAMPLED_TOKENS = Counter(
    "sampled_tokens_total",
    "Tokens sampled or scored, counted when their problem is done; the rate is tokens/s",
    stage=_STAGE,
)
KEPT_TOKENS = Counter("kept_tokens_total", "Response tokens that rewriting kept", source="self, guided or expert")
ATTEMPTS = Counter(
    "attempts_total",
    "Samples of the cascade; the share of correct is a stage's accept rate",
    source="self or guided, the cascade's stage",
    outcome="what became of it: offsft.records.Outcome",
)
VERIFICATION_SECONDS = Histogram(
    "verification_seconds",
    "Time of one verification, waiting for a free process included",
    [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30],
)
VERDICTS = Counter(
    "verdicts_total", "Verifications by their end, time-outs among them", outcome="offsft.records.Outcome"
)
GAP_MEAN_LOG_RATIO = Gauge(
    "gap_mean_log_ratio", "Mean token log-ratio of policy to behaviour, nats", responses=_RESPONSES, when=_WHEN
)
GAP_ESS = Gauge(
    "gap_ess_share",
    "Effective sample size of the tokens' importance weights, share of 1",
    responses=_RESPONSES,
    when=_WHEN,
)
TRAIN_STEP = Gauge("train_step", "Optimizer steps done")
TRAIN_STEPS = Gauge("train_steps", "Optimizer steps that are planned")
TRAIN_LOSS = Gauge("train_loss", "Objective of the last step, a token")
TRAIN_NLL = Gauge("train_nll", "Plain negative log-likelihood of the last step, nats a token")
TRAIN_GRAD_NORM = Gauge("train_grad_norm", "Gradient norm of the last step, before clipping")
TRAIN_LEARNING_RATE = Gauge("train_learning_rate", "Learning rate of the last step")
TRAIN_WEIGHT_ESS = Gauge(
    "train_weight_ess_share", "Effective sample size of the objective's token weights in the last step, share of 1"
)
TRAIN_TOKENS = Counter("train_tokens_total", "Prompt and response tokens trained on; the rate is tokens/s")
TRAIN_SKIPPED = Counter("train_skipped_steps_total", "Steps left out because loss or gradient was not finite")
CHECKPOINT_SECONDS = Histogram(
    "checkpoint_seconds", "Time of one checkpoint, handing it to storage included", [1, 3, 10, 30, 100, 300, 1000]
)
EVALUATED_SAMPLES = Counter(
    "evaluated_samples_total",
    "Held-out samples judged",
    model="base or trained",
    outcome="offsft.records.Outcome",
)
EVALUATION_ACCURACY = Gauge(
    "evaluation_accuracy",
    "Accuracy on the held-out problems, share of 1, when the evaluation is done",
    model="base or trained",
)
