"""Made-up trials of a probe, for tests of its rule and its table."""

import numpy as np

from offsft.config.objective import Dft
from offsft.probe.figures import OWN, TRAINED, Trial, describe_text, text_change, weights_of
from offsft.probe.rule import decide

ROWS = 40
DFT = Dft()
POLARISED = [0.99] * 14 + [0.02] * 3 + [0.5]
"""Short answers that are nearly determined but for a few tokens."""
OPEN = [0.6, 0.4, 0.7, 0.3, 0.5, 0.8, 0.2, 0.9]


def text_of(probabilities, rows=ROWS):
    return describe_text({f"{i:02d}": np.log(probabilities) for i in range(rows)})


def changed(mean, rows=ROWS, noise=0.01, seed=0):
    """A text whose responses changed by exactly this much on average, each a little differently."""
    apart = np.random.default_rng(seed).standard_normal(rows)
    changes = mean + noise * (apart - apart.mean())
    before = {f"{i:02d}": np.full(3, -1.0 - i / rows) for i in range(rows)}
    return text_change(before, {key: row - change for (key, row), change in zip(before.items(), changes, strict=True)})


def trial(objective, mean, own=None, probabilities=POLARISED, **more):
    texts = {TRAINED: changed(mean, **more)} | ({} if own is None else {OWN: changed(own, **more)})
    return Trial(
        objective,
        texts,
        nll=[2.0, 1.5],
        loss=[2.0, 1.5],
        held_out=[(0, 2.0), (2, 1.4)],
        grad_norm=1.0,
        grad_norm_spread=0.1,
        mean_weight=0.5,
        ess_share=0.9,
        weights=weights_of(objective, np.array(probabilities)),
        step_s=1.0,
        seconds=10.0,
    )


def decided(trials, current=DFT, probabilities=POLARISED):
    return decide(trials, current, text_of(probabilities))
