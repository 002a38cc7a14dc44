"""The command line that all jobs share: paths, settings, and error messages."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import split_arguments
from offsft.errors import ConfigError

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("arguments", "path", "settings"),
    [
        (["r.yaml", "a.b=1"], "r.yaml", ["a.b=1"]),
        (["a.b=1"], None, ["a.b=1"]),
        (["a=b/my recipe.yaml", "seed=1"], "a=b/my recipe.yaml", ["seed=1"]),
        (["./x=y/r.yaml"], "./x=y/r.yaml", []),
        (["data.path=a=b/p.jsonl"], None, ["data.path=a=b/p.jsonl"]),
        (["data.path=/x/y.yaml"], None, ["data.path=/x/y.yaml"]),
        (["model="], None, ["model="]),
    ],
)
def test_a_path_may_hold_an_equals_sign(tmp_path, monkeypatch, arguments, path, settings):
    (tmp_path / "a=b").mkdir()
    (tmp_path / "a=b" / "my recipe.yaml").write_text("run: r\n")
    monkeypatch.chdir(tmp_path)
    assert split_arguments(arguments) == (path, settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["a.yaml", "b.yaml"], "more than one file: a.yaml, b.yaml"), (["-v"], "-v: there are no options but --help")],
)
def test_what_does_not_belong_on_a_command_line_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        split_arguments(arguments)


@pytest.mark.parametrize(
    ("job", "arguments", "message"),
    [
        ("deploy", ["modle=x"], "error: modle=x: there is no such setting; did you mean model?"),
        ("serve", ["prot=1"], "error: prot=1: there is no such setting; did you mean port?"),
        ("serve", ["zzz=1"], "error: zzz=1: there is no such setting; there are host, ingress, model, port"),
        ("serve", ["--port", "1"], "error: --port: there are no options but --help"),
        ("rewrite", ["--seed"], "error: --seed: there are no options but --help"),
        ("rewrite", ["run=a", "sed=1"], "error: sed=1: there is no such setting; did you mean seed?"),
    ],
)
def test_a_mistake_is_one_line_and_status_2_for_every_job(job, arguments, message):
    done = subprocess.run([sys.executable, "-m", f"jobs.{job}", *arguments], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
