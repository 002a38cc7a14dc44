"""Set-up refuses a machine that lacks something in one line, before anything is installed."""

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
    """A checkout with a PATH that holds only what is put there."""
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


def run(checkout):
    environment = {"PATH": str(checkout.parent / "bin"), "HOME": str(checkout.parent)}
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


def test_without_a_compiler(checkout):
    python(checkout)
    refused(run(checkout), checkout, "a C++ compiler is needed")


def test_with_too_little_disk(checkout):
    python(checkout)
    program(checkout, "c++", "exit 0")
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
