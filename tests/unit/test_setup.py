"""Set-up refuses an incomplete machine with a one-line message, before anything is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "requirements" / "setup.sh"
TOOLS = ("bash", "cat", "sha256sum", "cut", "df", "awk", "dirname", "env", "grep", "tail", "rm")


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a PATH that contains only the test's programs."""
    folder = tmp_path / "checkout"
    (folder / "requirements").mkdir(parents=True)
    shutil.copy(SCRIPT, folder / "requirements" / "setup.sh")
    (folder / "requirements" / "cpu.lock").write_text("torch==2.13.0+cpu\n")
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).symlink_to(shutil.which(tool))
    return folder


def program(checkout, name, body):
    path = checkout.parent / "bin" / name
    path.unlink(missing_ok=True)
    path.write_text(f"#!{shutil.which('bash')}\n{body}\n")
    path.chmod(0o755)


def python(checkout):
    real = Path(sys.base_prefix) / "bin" / "python3.11"
    (checkout.parent / "bin" / "python3.11").symlink_to(real)


def fake_python(checkout):
    """An interpreter that reports 3.11, makes environments from itself, and records pip's arguments.

    The lookup of torch fails if a file no-torch lies next to the checkout, and the headers are missing if no-headers
    does; an environment has no pip while it contains a file no-pip.
    """
    cp, mkdir, here = shutil.which("cp"), shutil.which("mkdir"), checkout.parent
    program(
        checkout,
        "python3.11",
        f"""case "$*" in
*Python.h*) [ ! -e {here}/no-headers ] ;;
*"import pip"*) [ ! -e .venv/no-pip ] ;;
-c*) echo 3.11 ;;
*"venv --help"*) ;;
*"-m venv"*) rm -rf .venv; {mkdir} -p .venv/bin; {cp} "$0" .venv/bin/python ;;
*"pip download"*) [ ! -e {here}/no-torch ] ;;
*"pip install"*) echo "$*" >>{here}/installed; [ ! -e {here}/no-install ] || {{ echo reason; exit 1; }} ;;
esac""",
    )
    program(checkout, "g++", "exit 0")
    program(checkout, "df", "printf 'head\\nfs 10 9 99999 9%% /\\n'")


def run(checkout, **more):
    environment = {"PATH": str(checkout.parent / "bin"), "HOME": str(checkout.parent), **more}
    script = checkout / "requirements" / "setup.sh"
    return subprocess.run(["bash", str(script)], capture_output=True, text=True, env=environment, timeout=60)


def refused(done, checkout, message):
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (checkout / ".venv").exists()


def test_without_python_3_11(checkout):
    program(checkout, "python3", "echo 3.9")
    refused(run(checkout), checkout, "Python 3.11 is needed")


def test_a_machine_without_a_compiler_is_told_what_it_would_gain_and_set_up(checkout):
    fake_python(checkout)
    (checkout.parent / "bin" / "g++").unlink()
    done = run(checkout)
    assert done.returncode == 0
    assert "sampling on a CPU is slower" in done.stdout
    assert (checkout / ".venv" / ".complete").exists()


def test_with_too_little_disk(checkout):
    python(checkout)
    program(checkout, "df", "printf 'head\\nfs 10 9 1234 99%% /\\n'")
    refused(run(checkout), checkout, "1234 MB are free")


def test_nothing_is_done_when_nothing_changed(checkout):
    python(checkout)
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to(sys.executable)
    lock, script = checkout / "requirements" / "cpu.lock", checkout / "requirements" / "setup.sh"
    wanted = subprocess.run(["sha256sum"], input=lock.read_bytes() + script.read_bytes(), capture_output=True).stdout
    (checkout / ".venv" / ".complete").write_bytes(wanted.split()[0] + b"\n")
    done = run(checkout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(os.listdir(checkout / ".venv")) == [".complete", "bin"]


@pytest.mark.parametrize("headers", [True, False])
def test_a_compiler_is_of_no_use_without_the_headers(checkout, headers):
    fake_python(checkout)
    if not headers:
        (checkout.parent / "no-headers").touch()
    done = run(checkout)
    assert done.returncode == 0
    assert ("python3.11-dev" in done.stdout) is not headers


def test_a_named_interpreter_that_does_not_fit_is_refused(checkout):
    fake_python(checkout)
    program(checkout, "python3.9", "echo 3.9")
    refused(run(checkout, PYTHON="python3.9"), checkout, "PYTHON=python3.9 is not a Python 3.11")


@pytest.mark.parametrize("found", [True, False])
def test_the_extra_index_is_used_only_where_pip_does_not_find_torch(checkout, found):
    fake_python(checkout)
    if not found:
        (checkout.parent / "no-torch").touch()
    assert run(checkout).returncode == 0
    (line,) = (checkout.parent / "installed").read_text().splitlines()
    assert "--no-deps" in line
    assert ("--extra-index-url" in line) is not found


def test_a_failed_install_shows_its_end_and_the_next_call_finishes_it(checkout):
    fake_python(checkout)
    (checkout.parent / "no-install").touch()
    done = run(checkout)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "reason"
    assert not (checkout / ".venv" / ".complete").exists()
    (checkout.parent / "no-install").unlink()
    assert run(checkout).returncode == 0
    assert (checkout / ".venv" / ".complete").exists()


def test_an_environment_without_pip_is_made_anew(checkout):
    fake_python(checkout)
    assert run(checkout).returncode == 0
    (checkout / ".venv" / ".complete").unlink()
    (checkout / ".venv" / "no-pip").touch()
    assert run(checkout).returncode == 0
    assert not (checkout / ".venv" / "no-pip").exists()
