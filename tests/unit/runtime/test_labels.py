"""Labels that Ray accepts, for runs with any name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsft.runtime import metrics
from offsft.runtime.metrics import ascii_label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("demo-7b_v1.2 (try 3)", "demo-7b_v1.2 (try 3)"),
        ("mein lauf \u00e9", "mein lauf =C3=A9"),
        ("\u8d70\u308b", "=E8=B5=B0=E3=82=8B"),
        ("\U0001f600", "=F0=9F=98=80"),
        ("100%", "100=25"),
        ("a\nb\x00", "a=0Ab=00"),
        ("a lone \udce9", "a lone =ED=B3=A9"),
        ("a/b=c", "a=2Fb=3Dc"),
        ("", ""),
    ],
)
def test_a_label_is_printable_ascii_whatever_the_run_is_called(text, label):
    assert ascii_label(text) == label


@given(st.text(), st.text())
def test_two_texts_never_have_one_label(one, other):
    assert ascii_label(one).isascii()
    assert not {"%", "/"} & set(ascii_label(one))
    assert (ascii_label(one) == ascii_label(other)) is (one == other)


def test_every_metric_takes_a_run_of_any_name(monkeypatch):
    sent = []
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    for metric in (metrics.PROBLEMS, metrics.TRAIN_STEP, metrics.VERIFICATION_SECONDS):
        monkeypatch.setattr(type(metric), "_create", lambda self: None)
        monkeypatch.setattr(type(metric), "_record", lambda self, value, labels: sent.append(labels))
    metrics.PROBLEMS.add(run="l\u00e4ufe", stage="rewrite", outcome="self")
    metrics.VERIFICATION_SECONDS.observe(1.0, run="l\u00e4ufe")
    metrics.TRAIN_STEP.set(3, run="l\u00e4ufe")
    assert [labels["run"] for labels in sent] == ["l=C3=A4ufe"] * 3
