"""`verify.kind=code`: the response's Python passes the problem's tests, in two sandboxes of bubblewrap.

The solution runs in a process that is asked for values and sees neither tests nor expected values; the tests run in
another one and compare. So a solution cannot forge a result: not by leaving, printing, or patching, for what judges is
not in its process. Each process has its own namespaces (no network, no other process, no home), a read-only file
system with a small private `/tmp`, limits, and a filter of system calls; both are killed, with all that they have
started, when time is up.
"""

import ast
import asyncio
import json
import math
import os
import random
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from offsft.config import Verify
from offsft.errors import ConfigError
from offsft.protocols import Verdict
from offsft.records import Outcome, Problem
from offsft.verify.system_calls import seccomp_filter

# Nothing is tried twice (`*+`): 100,000 backticks or spaces would hold up the engine that waits for this.
_FENCE = re.compile(r"(?<!`)`{3,}+[ \t]*+(?P<language>[A-Za-z0-9+#]*+)[^\n`]*+\n(?P<code>.*?)(?:```|\Z)", re.DOTALL)
_DEFINES = re.compile(r"^(?:async def|def|class)\s", re.MULTILINE)
_START_S = 60.0
"""Longest start of two processes; it does not count as time of the solution."""
_USERS = range(200_000, 2_000_000)
"""Where root starts a sandbox, it runs as a user of these that nobody else is: the limit of processes counts by user."""
_VERDICT_BYTES = 1 << 16


class CodeVerifier:
    """Runs `check.tests` against the code of a response. `verify.timeout_s` is the limit in wall time and of CPU time.

    Raises:
        ConfigError: bubblewrap is missing, or cannot make namespaces here.
    """

    def __init__(self, settings: Verify) -> None:
        self._settings = settings
        self._free = asyncio.Semaphore(settings.workers)
        _check_bubblewrap()

    async def __aenter__(self) -> "CodeVerifier":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing outlives a judgement."""

    async def __call__(self, response: str, problem: Problem) -> Verdict:
        code, where = extract_code(response)
        if code is None:
            return Verdict(Outcome.NO_ANSWER, why="neither a fenced block nor a response that is Python")
        tests = problem.check.get("tests")
        if not isinstance(tests, str) or not tests.strip():
            return Verdict(Outcome.ERROR, code[:300], where, "the problem has no check.tests")
        async with self._free:
            outcome, why = await asyncio.to_thread(run_tests, code, tests, self._settings)
        return Verdict(outcome, code[:300], where, why)


def extract_code(response: str) -> tuple[str | None, str]:
    """The solution: the last fenced block that defines something (or the last one), else a response that is Python."""
    blocks = [
        match for match in _FENCE.finditer(response) if match["language"].lower() in ("", "python", "py", "python3")
    ]
    defining = [block for block in blocks if _DEFINES.search(block["code"])]
    chosen = (defining or blocks)[-1:]
    if chosen:
        return chosen[0]["code"], "fenced block"
    try:
        tree = ast.parse(response)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None, ""
    return (response, "response") if tree.body and _DEFINES.search(response) else (None, "")


def run_tests(code: str, tests: str, settings: Verify) -> tuple[Outcome, str]:
    """Run the tests and wait for their end; nothing of them is left when this returns."""
    to_solution, from_solution = os.pipe(), os.pipe()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.append(_sandboxed("solution", settings, stdin=to_solution[0], stdout=from_solution[1]))
        channel = (to_solution[1], from_solution[0])
        processes.append(_sandboxed("tester", settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, channel=channel))
        for descriptor in (*to_solution, *from_solution):
            os.close(descriptor)
        return _verdict(processes[1], {"code": code, "tests": tests}, settings)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            process.wait()


def _verdict(tester: subprocess.Popen[bytes], job: dict[str, str], settings: Verify) -> tuple[Outcome, str]:
    assert tester.stdin is not None
    assert tester.stdout is not None
    try:
        tester.stdin.write(json.dumps(job).encode() + b"\n")
        tester.stdin.flush()
    except BrokenPipeError:
        return Outcome.ERROR, "the sandbox did not start"
    try:
        started = _message(tester.stdout.fileno(), _START_S)
    except TimeoutError:
        started = None
    if started is None:
        return Outcome.ERROR, "the sandbox did not start"
    try:
        result = _message(tester.stdout.fileno(), settings.timeout_s)
    except TimeoutError:
        return Outcome.TIMEOUT, f"not done within verify.timeout_s={settings.timeout_s:g}"
    if result is None:
        return Outcome.ERROR, "the process of the tests ended before they did"
    if result.get("broken"):
        return Outcome.ERROR, result["why"]
    return (Outcome.CORRECT if result["passed"] is True else Outcome.WRONG), result["why"]


def _message(descriptor: int, timeout_s: float) -> dict[str, Any] | None:
    """The tester's next line; None where it ended.

    Raises:
        TimeoutError: there was none in time.
    """
    line, end = b"", time.monotonic() + timeout_s
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        if not readable:
            raise TimeoutError
        # Byte by byte where lines could follow each other closely; they are few and short.
        read = os.read(descriptor, 1)
        if not read or len(line) > _VERDICT_BYTES:
            return None
        line += read
    return json.loads(line)


def _sandboxed(
    name: str, settings: Verify, *, stdin: int, stdout: int, channel: tuple[int, ...] = ()
) -> "subprocess.Popen[bytes]":
    """Start `offsft.verify.sandbox.<name>` in a sandbox of its own."""
    limits = {
        "cpu_s": math.ceil(settings.timeout_s) + 1,
        "memory_bytes": settings.memory_mb * 2**20,
        "processes": settings.code.processes,
        "file_bytes": settings.code.file_mb * 2**20,
        "value_bytes": settings.code.value_mb * 2**20,
        "user": random.SystemRandom().choice(_USERS) if os.geteuid() == 0 else 0,
    }
    start = f"import sys; sys.path.insert(0, '/code'); from offsft.verify.sandbox.{name} import main; main()"
    python = [_python(), "-I", "-S", "-B", "-c", start, json.dumps(limits), *map(str, channel)]
    with _filter() as refused:
        return subprocess.Popen(
            [*_bubblewrap(settings.code.file_mb, refused), *python],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            pass_fds=(*channel, refused),
            # bubblewrap's own process stands in the sandbox's /proc, and its environment with it.
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        )


@contextmanager
def _filter() -> Iterator[int]:
    """A descriptor from which bubblewrap reads the filter of system calls."""
    read, write = os.pipe()
    try:
        os.write(write, seccomp_filter())  # less than a pipe holds
        os.close(write)
        yield read
    finally:
        os.close(read)


def _python() -> str:
    """The interpreter itself, not that of a virtual environment, as the sandbox names it."""
    real = Path(sys.executable).resolve()
    return str(real if _is_system(_base()) else Path("/python") / real.relative_to(_base()))


def _base() -> Path:
    return Path(sys.base_prefix).resolve()


def _is_system(base: Path) -> bool:
    return base == Path("/usr") or Path("/usr") in base.parents


def _bubblewrap(file_mb: int, refused: int) -> list[str]:
    command = [
        "bwrap",
        "--seccomp",
        str(refused),
        "--die-with-parent",
        "--new-session",
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
    ]
    command += ["--unshare-uts", "--unshare-cgroup-try", "--hostname", "sandbox", "--cap-drop", "ALL"]
    if os.geteuid() == 0:
        # Root's processes are not counted against any limit: what runs inside becomes another user first.
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user", "--disable-userns"]
    command += ["--ro-bind", "/usr", "/usr"]
    for folder in ("/lib", "/lib64", "/bin"):
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            command += ["--ro-bind", folder, folder]
    if not _is_system(_base()):
        # Not under its own path: a home on the way may be closed to the user that the solution runs as.
        command += ["--ro-bind", str(_base()), "/python", "--setenv", "LD_LIBRARY_PATH", "/python/lib"]
    command += ["--ro-bind", str(Path(__file__).parent / "sandbox"), "/code/offsft/verify/sandbox"]
    command += [
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--perms",
        "1777",
        "--size",
        str(file_mb * 2**20),
        "--tmpfs",
        "/tmp",
    ]
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]


def _check_bubblewrap() -> None:
    if shutil.which("bwrap") is None:
        raise ConfigError(
            "verify.kind=code needs bubblewrap, and there is no bwrap on the PATH; install it (Debian and Ubuntu:"
            " apt-get install bubblewrap) on every node that holds an engine"
        )
    with _filter() as refused:
        command = [*_bubblewrap(1, refused), _python(), "-I", "-S", "-c", ""]
        tried = subprocess.run(command, capture_output=True, text=True, env={}, pass_fds=(refused,))
    if tried.returncode:
        said = " ".join(tried.stderr.split())[:300]
        raise ConfigError(
            f"verify.kind=code: bubblewrap cannot make a sandbox here ({said}); it needs user namespaces"
            " (sysctl kernel.unprivileged_userns_clone=1; in a container: seccomp and AppArmor profiles that allow them)"
        )
