"""The metrics that a running job exports to Prometheus through Ray, with their labels and meanings.

A process that has not joined Ray records nothing, at the cost of one check. Ray prefixes each name with `ray_`, and
adds its own labels to ours: `WorkerId` is the process (of an engine, or of a training worker), `NodeAddress` its
node. Labels are from closed sets: `run` is the name of the run's folder, the others are named with each metric. Ray
accepts only ASCII in labels and in the names of data sets: `ascii_label` encodes any text in it.
docs/metrics.md has the same as a table.
"""

import threading
import time
from typing import Any, ClassVar
from urllib.parse import quote

ALL: list["Metric"] = []
"""All declared metrics, in order."""

_RUN = "run"
_REFRESH_S = 1.0
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in "%=/")


def ascii_label(text: str) -> str:
    """Encode any text as printable ASCII, one to one.

    Characters that are not printable ASCII are written as their UTF-8 bytes, each as `=` and two hex digits; so are
    `=`, `/` and `%`. Ray Data puts a data set's name into a file's name, and into texts that it formats with `%`.
    """
    return quote(text, safe=_PRINTABLE, errors="surrogatepass").replace("%", "=")


class Metric:
    """A metric: name, meaning with its unit, and labels. `run` is a label of all but those of the services."""

    kind: ClassVar[str]

    def __init__(self, name: str, meaning: str, /, *, of_run: bool = True, **labels: str) -> None:
        self.name = f"offsft_{name}"
        self.meaning = meaning
        self.of_run = of_run
        self.labels = ({_RUN: "name of the run's folder"} if of_run else {}) | labels
        """Description of each label's values."""
        self._in_ray: Any = None
        ALL.append(self)

    def _send(self, labels: dict[str, str], value: float) -> None:
        assert labels.keys() == self.labels.keys(), (self.name, labels)
        import ray

        if not ray.is_initialized():
            return
        if self._in_ray is None:
            self._in_ray = self._create()
        self._record(value, {name: ascii_label(text) for name, text in labels.items()})

    def _create(self) -> Any:
        raise NotImplementedError

    def _record(self, value: float, labels: dict[str, str]) -> None:
        raise NotImplementedError


class Counter(Metric):
    """A metric that only grows; its name ends in `_total`."""

    kind = "counter"

    def add(self, amount: float = 1, /, **labels: str) -> None:
        if amount:
            self._send(labels, amount)

    def _create(self) -> Any:
        from ray.util import metrics

        return metrics.Counter(self.name, self.meaning, tag_keys=tuple(self.labels))

    def _record(self, value: float, labels: dict[str, str]) -> None:
        self._in_ray.inc(value, tags=labels)


class Gauge(Metric):
    """A metric that holds the current value.

    Ray drops a gauge that is not recorded again within two of its reports, so a thread records the last values again.
    """

    kind = "gauge"
    _thread: ClassVar[threading.Thread | None] = None

    def __init__(self, name: str, meaning: str, /, *, of_run: bool = True, **labels: str) -> None:
        super().__init__(name, meaning, of_run=of_run, **labels)
        self._last: dict[tuple[str, ...], tuple[dict[str, str], float]] = {}

    def set(self, value: float | None, /, **labels: str) -> None:
        """Record the current value; None, if there is none now, changes nothing."""
        if value is None:
            return
        self._send(labels, value)
        if self._in_ray is not None:
            self._last[tuple(labels.values())] = (labels, value)
            if Gauge._thread is None:
                Gauge._thread = threading.Thread(target=_resend_gauges, name="gauges", daemon=True)
                Gauge._thread.start()

    def _create(self) -> Any:
        from ray.util import metrics

        return metrics.Gauge(self.name, self.meaning, tag_keys=tuple(self.labels))

    def _record(self, value: float, labels: dict[str, str]) -> None:
        self._in_ray.set(value, tags=labels)


def _resend_gauges() -> None:
    while True:
        time.sleep(_REFRESH_S)
        for metric in ALL:
            if isinstance(metric, Gauge):
                for labels, value in list(metric._last.values()):
                    metric._send(labels, value)


class Histogram(Metric):
    """A metric that counts observations by size."""

    kind = "histogram"

    def __init__(self, name: str, meaning: str, bounds: list[float], /, *, of_run: bool = True, **labels: str) -> None:
        super().__init__(name, meaning, of_run=of_run, **labels)
        self.bounds = bounds

    def observe(self, value: float, /, **labels: str) -> None:
        self._send(labels, value)

    def _create(self) -> Any:
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
    outcome="rewriting: the source of what was kept, a stage's name or unsolved; evaluation: correct or wrong; scored; poison",
)
PROBLEMS_IN_WORK = Gauge("problems_in_work", "Problems that an engine is working on", stage=_STAGE)
SAMPLED_TOKENS = Counter(
    "sampled_tokens_total",
    "Tokens sampled or scored, counted when their problem is done; the rate is tokens/s",
    stage=_STAGE,
)
KEPT_TOKENS = Counter(
    "kept_tokens_total", "Response tokens that rewriting kept", source="name of the stage that gave them"
)
ATTEMPTS = Counter(
    "attempts_total",
    "Samples of the cascade; the share of correct is a stage's accept rate",
    source="the cascade's stage, by its name",
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
TRAIN_LOSS = Gauge("train_loss", "Objective of the last step, per token")
TRAIN_NLL = Gauge("train_nll", "Plain negative log-likelihood of the last step, nats per token")
TRAIN_HELD_OUT_NLL = Gauge(
    "train_held_out_nll",
    "Negative log-likelihood of the rows held out of training, nats per token",
    source="stage that gave the rows, or `all`",
)
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

_KEY = "name of the API key; empty without keys"
_SERVED = "name of the served model"
REQUESTS = Counter(
    "gateway_requests_total",
    "HTTP requests by their end; 499 is a client that went away",
    of_run=False,
    key=_KEY,
    route="the route's path, or `other`",
    status="HTTP status",
)
REQUEST_SECONDS = Histogram(
    "gateway_request_seconds",
    "Time of one HTTP request to its last byte",
    [0.03, 0.1, 0.3, 1, 3, 10, 30, 100],
    of_run=False,
    route="the route's path, or `other`",
)
QUEUE_SECONDS = Histogram(
    "gateway_queue_seconds",
    "Time that a request waited for its places",
    [0.001, 0.01, 0.1, 0.3, 1, 3, 10, 30, 100],
    of_run=False,
    key=_KEY,
    model=_SERVED,
)
SEQUENCES_IN_WORK = Gauge(
    "gateway_sequences_in_work", "Sequences that one gateway replica has in work", of_run=False, model=_SERVED
)
REQUESTS_WAITING = Gauge(
    "gateway_requests_waiting", "Requests that wait in the queue of one gateway replica", of_run=False, model=_SERVED
)
REQUEST_TOKENS = Counter(
    "gateway_tokens_total",
    "Tokens of the requests that are done",
    of_run=False,
    key=_KEY,
    model=_SERVED,
    kind="prompt or completion",
)
REWRITES_SERVED = Counter(
    "gateway_rewrites_total",
    "Problems rewritten over HTTP",
    of_run=False,
    source="the source of what was kept, a stage's name or unsolved; rejected, or failed",
)
LOG_LINES_DROPPED = Counter(
    "gateway_log_lines_dropped_total", "Lines of the access log that were dropped while its disk hung", of_run=False
)
