"""A process is killed during a compilation, and the next one is not affected."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here: apt-get install g++"),
]

# Writes half of an extension, or of a file that sampling loads, and waits, as long as nothing has been killed yet.
STUCK = """#!/bin/sh
target=
for argument; do
    if [ "$previous" = -o ]; then target=$argument; fi
    previous=$argument
done
case $target in
    tiny.o* | *.main.so*) if [ -e {killed} ]; then exec {real} "$@"; fi ;;
    *) exec {real} "$@" ;;
esac
printf half >"$target"
echo "$target" >{started}.new && mv {started}.new {started}
exec sleep 300
"""

EXTENSION = """
import sys
from offsft.train.extensions import prepare_extensions

prepare_extensions()
from torch.utils.cpp_extension import load

load("tiny", [sys.argv[1]], is_python_module=False)
print("DONE", flush=True)
"""

SAMPLING = """
from offsft.runtime.compiled_code import prepare_compiling

prepare_compiling(gpus=False)
import torch

compiled = torch.compile(lambda x: (x >= 1).sum(-1), dynamic=True)
assert compiled(torch.ones(3, 5)).tolist() == [5, 5, 5]
print("DONE", flush=True)
"""


class Machine:
    """A machine with empty caches, whose compiler hangs until `killed` exists."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.killed, self.started = folder, folder / "killed", folder / "started"
        compiler = folder / "bin" / "g++"
        compiler.parent.mkdir()
        compiler.write_text(STUCK.format(killed=self.killed, started=self.started, real=shutil.which("g++")))
        compiler.chmod(0o755)
        unwanted = {"CXX", "TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR", "TORCH_COMPILE_DISABLE"}
        self.environment = {name: value for name, value in os.environ.items() if name not in unwanted} | {
            "OFFSFT_HOME": str(folder / "home"),
            "TMPDIR": str(folder),
            # No probing of the processor and no precompiled header, which take most of the time.
            "TORCHINDUCTOR_VEC_ISA_OK": "1",
            "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0",
            "PYTHONPATH": str(ROOT),
            "PATH": f"{compiler.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def start(self, name: str, code: str, *arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a process in a new process group; returns it and the file with its output."""
        said = self.folder / name
        with said.open("wb") as out:
            command = [sys.executable, "-c", code, *arguments]
            return subprocess.Popen(command, stdout=out, stderr=out, env=self.environment, start_new_session=True), said


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def wait_for(condition, process, said):
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < end_s, said.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize("whole_group", [True, False], ids=["and its compiler", "alone"])
def test_a_process_that_is_killed_while_it_compiles_an_extension_holds_up_nobody(machine, tmp_path, whole_group):
    source = tmp_path / "tiny.cpp"
    source.write_text("int tiny() { return 1; }")
    first, said = machine.start("first", EXTENSION, str(source))
    try:
        wait_for(machine.started.exists, first, said)
        assert "tiny: compiling, once on this machine" in said.read_text()
        second, second_said = machine.start("second", EXTENSION, str(source))
        wait_for(lambda: "tiny: waiting for another process" in second_said.read_text(), second, second_said)
        machine.killed.touch()
        if whole_group:
            os.killpg(first.pid, signal.SIGKILL)
        first.kill()
        assert second.wait(PATIENCE_S) == 0, second_said.read_text()
        assert second_said.read_text().endswith("DONE\n")
    finally:
        first.kill()
        first.wait()
        if not whole_group:  # the compiler, which waits in vain
            os.killpg(first.pid, signal.SIGKILL)


def test_a_process_that_is_killed_while_it_compiles_for_sampling_leaves_nothing_that_the_next_one_takes(machine):
    first, said = machine.start("first", SAMPLING)
    wait_for(machine.started.exists, first, said)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    half = Path(machine.started.read_text().strip())
    assert half.read_text() == "half"
    machine.killed.touch()
    second, said = machine.start("second", SAMPLING)
    assert second.wait(PATIENCE_S) == 0, said.read_text()
    assert said.read_text().endswith("DONE\n")
