"""The posterior of a problem's pass rate, against Beta-distributed pass rates drawn at random."""

import random

import pytest

from offsft.rewrite.giving_up import PassRate


@pytest.mark.parametrize("mean", [0.1, 0.5, 0.9])
def test_the_chance_after_failures_is_the_share_found_by_drawing(mean):
    draw, rate = random.Random(0), PassRate()
    seen = {failures: [0, 0] for failures in (1, 3, 7)}
    for _ in range(40_000):
        passes = draw.betavariate(mean, 1 - mean)
        samples = [draw.random() < passes for _ in range(8)]
        rate.add_first_wave(1, int(samples[0]))
        for failures, (_, _) in seen.items():
            if not any(samples[:failures]):
                seen[failures][0] += samples[failures]
                seen[failures][1] += 1
    for failures, (correct, tried) in seen.items():
        assert rate.after(failures) == pytest.approx(correct / tried, abs=0.02), failures


def test_before_anything_was_seen_the_chance_is_that_of_the_plan():
    assert PassRate().after(0) == pytest.approx(0.4)
