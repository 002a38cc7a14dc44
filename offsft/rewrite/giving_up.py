"""When a stage stops asking for a problem: the posterior of its pass rate after the samples that failed."""

_STRENGTH = 1.0
"""a + b of the Beta distribution of pass rates over problems, as in `jobs.plan`: most problems are easy or hopeless."""
_PRIOR_RATE, _PRIOR_SAMPLES = 0.4, 10.0
"""Mean pass rate before anything was seen, and the samples that it counts for."""


class PassRate:
    """One stage's pass rate over the problems of this process, and what a problem's failures leave of it.

    Pass rates differ between problems; they are taken as Beta distributed with the mean of the problems' first waves so
    far. After k samples of a problem that all failed, the posterior's mean is `mean / (1 + k)` for a + b = 1.
    """

    def __init__(self) -> None:
        self._samples = _PRIOR_SAMPLES
        self._correct = _PRIOR_RATE * _PRIOR_SAMPLES

    def add_first_wave(self, samples: int, correct: int) -> None:
        """Count a problem's first wave. Later ones are of problems that failed, so they would make the mean too low."""
        self._samples += samples
        self._correct += correct

    def after(self, failures: int) -> float:
        """The chance that the next sample of a problem is correct, after this many that were not."""
        return _STRENGTH * self._correct / self._samples / (_STRENGTH + failures)
