"""The command `offsft`, as `python -m jobs` in a clone."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobs.__main__ import job_summaries
from jobs.cli import find_recipe, recipe_names
from offsft import __version__
from offsft.errors import ConfigError

ROOT = Path(__file__).parents[3]


def offsft(*arguments, **more):
    command = [sys.executable, "-m", "jobs", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, **more)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_job_in_a_line(arguments):
    done = offsft(*arguments)
    assert done.returncode == 0
    assert {line.split()[0] for line in done.stdout.split("Jobs:\n")[1].splitlines()} == set(job_summaries())
    assert all(len(line) < 120 for line in done.stdout.split("Jobs:\n")[1].splitlines())


def test_every_file_that_is_a_command_is_a_job():
    commands = {path.stem for path in (ROOT / "jobs").glob("[a-z]*.py") if '__name__ == "__main__"' in path.read_text()}
    assert set(job_summaries()) == commands


def test_help_answers_without_loading_anything_heavy():
    code = (
        "import sys; sys.argv = ['offsft', '--help']\n"
        "from jobs.__main__ import main\n"
        "main()\n"
        "heavy = {'ray', 'torch', 'vllm', 'deepspeed', 'transformers', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "hint"), [("rewirte", "did you mean rewrite?"), ("xyz", "there are check, compare, ")]
)
def test_an_unknown_job_is_refused_in_one_line(name, hint):
    done = offsft(name, "demo")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {name}: there is no such job; {hint}")
    assert len(done.stderr.splitlines()) == 1


def test_a_job_gets_its_arguments_and_ends_with_its_status():
    done = offsft("plan", "qwen2.5-math-7b", "plan.gpu=none")
    assert done.returncode == 2
    assert "plan.gpu='none'" in done.stderr
    done = offsft("plan", "qwen2.5-math-7b")
    assert done.returncode == 0, done.stderr
    assert "Qwen/Qwen2.5-Math-7B: 7.62 billion parameters" in done.stdout


def test_a_reader_that_leaves_early_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "rewrite", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    assert process.stderr.read() == b""
    assert process.wait() == 0


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_that_comes_with_offsft_is_given_by_its_name(name):
    assert find_recipe(name) == ROOT / "jobs" / "recipes" / f"{name}.yaml"


@pytest.mark.parametrize("text", ["mine.yaml", "demo.yaml", "./demo", "recipes/demo", "/nowhere/demo.yml"])
def test_what_looks_like_a_path_is_one(text):
    assert find_recipe(text) == Path(text)


def test_a_file_comes_before_a_recipe_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text("run: runs/mine\n")
    assert find_recipe("demo") == Path("demo")


def test_a_name_that_is_no_recipe_says_which_there_are():
    with pytest.raises(ConfigError, match=r"demoo: no recipe of this name comes with offsft; did you mean demo\?"):
        find_recipe("demoo")
    with pytest.raises(ConfigError, match="there are code, compare, demo"):
        find_recipe("zzz")


@pytest.mark.parametrize("folder", ["jobs", "services"])
def test_what_the_wheel_puts_elsewhere_is_imported_by_where_it_stands(folder):
    """`from services.errors import ...` fails if offsft is installed; `from .errors import ...` works in both."""
    absolute = re.compile(r"^\s*(?:from|import) (?:jobs|services)\b", re.MULTILINE)
    found = [path.name for path in (ROOT / folder).glob("*.py") if absolute.search(path.read_text())]
    assert not found


def test_the_version_stands_once():
    assert offsft("--version").stdout == f"offsft {__version__}\n"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
