"""`verify.kind=code`: the response's Python passes the problem's tests, in two bubblewrap sandboxes.

The solution runs in a process that is asked for values and sees neither tests nor expected values; the tests run in
another one and compare. So a solution cannot forge a result by exiting, printing, or patching: the judging code is not
in its process. Each process has its own namespaces (no network, no other process, no home), a read-only file system
with a small private `/tmp`, limits, and a system call filter. When time is up, both are killed with all processes that
they started.
"""

import asyncio
import json
import math
import os
import random
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from offsft.config import VerifyConfig
from offsft.errors import ConfigError
from offsft.protocols import Verdict
from offsft.records import Outcome, Problem
from offsft.verify.code_tests import CodeTests, read_tests
from offsft.verify.packages import package_folders
from offsft.verify.python_code import extract_code
from offsft.verify.system_calls import seccomp_filter

_START_S = 60.0
"""Longest start-up of the two processes; it does not count towards the solution's time."""
_USERS = range(200_000, 2_000_000)
"""If root starts a sandbox, it runs as an unused user id of this range: the process limit counts per user."""
_VERDICT_BYTES = 1 << 16


class CodeVerifier:
    """Runs `check.tests` against the code of a response; `verify.timeout_s` limits both wall time and CPU time.

    Raises:
        ConfigError: bubblewrap is missing or cannot make namespaces here, or a package of `verify.code.packages` is not
            installed.
    """

    def __init__(self, settings: VerifyConfig) -> None:
        self._settings = settings
        self._free = asyncio.Semaphore(settings.workers)
        _check_bubblewrap()
        package_folders(settings.code.packages)

    async def __aenter__(self) -> "CodeVerifier":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: no process outlives a judgement."""

    async def __call__(self, response: str, problem: Problem) -> Verdict:
        try:
            tests = read_tests(problem.check)
        except ValueError as error:
            return Verdict(Outcome.ERROR, why=str(error))
        code, where = extract_code(response, tests.names, prompt=tests.prompt)
        if code is None:
            return Verdict(Outcome.NO_ANSWER, why="neither a fenced block nor a response that is Python")
        async with self._free:
            outcome, why = await asyncio.to_thread(run_tests, code, tests, self._settings)
        return Verdict(outcome, code[:300], where, why)


def run_tests(code: str, tests: CodeTests, settings: VerifyConfig) -> tuple[Outcome, str]:
    """Run the tests and wait for their end; none of their processes is left when this returns."""
    to_solution, from_solution = os.pipe(), os.pipe()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.append(_start_sandboxed("solution", settings, stdin=to_solution[0], stdout=from_solution[1]))
        channel = (to_solution[1], from_solution[0])
        processes.append(
            _start_sandboxed("tester", settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, channel=channel)
        )
        for descriptor in (*to_solution, *from_solution):
            os.close(descriptor)
        return _verdict(processes[1], {"code": code, **tests.job}, settings)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            process.wait()


def _verdict(tester: subprocess.Popen[bytes], job: dict[str, Any], settings: VerifyConfig) -> tuple[Outcome, str]:
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
    """Read the tester's next message; None if the tester ended.

    Raises:
        TimeoutError: there was none in time.
    """
    line, end = b"", time.monotonic() + timeout_s
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        if not readable:
            raise TimeoutError
        # Byte by byte, because lines could follow each other closely; they are few and short.
        read = os.read(descriptor, 1)
        if not read or len(line) > _VERDICT_BYTES:
            return None
        line += read
    return json.loads(line)


def _start_sandboxed(
    name: str, settings: VerifyConfig, *, stdin: int, stdout: int, channel: tuple[int, ...] = ()
) -> "subprocess.Popen[bytes]":
    """Start `offsft.verify.sandbox.<name>` in a separate sandbox."""
    limits = {
        "cpu_s": math.ceil(settings.timeout_s) + 1,
        "memory_bytes": settings.memory_mb * 2**20,
        "processes": settings.code.processes,
        "file_bytes": settings.code.file_mb * 2**20,
        "value_bytes": settings.code.value_mb * 2**20,
        "user": random.SystemRandom().choice(_USERS) if os.geteuid() == 0 else 0,
    }
    packages = package_folders(settings.code.packages)
    paths = "sys.path.insert(0, '/code')" + ("; sys.path.append('/packages')" if packages else "")
    start = f"import sys; {paths}; from offsft.verify.sandbox.{name} import main; main()"
    python = [_python(), "-I", "-S", "-B", "-c", start, json.dumps(limits), *map(str, channel)]
    with _filter() as refused:
        return subprocess.Popen(
            [*_bubblewrap(settings.code.file_mb, refused, packages), *python],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            pass_fds=(*channel, refused),
            # bubblewrap's own process is visible in the sandbox's /proc, and its environment with it.
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )


@contextmanager
def _filter() -> Iterator[int]:
    """A descriptor from which bubblewrap reads the system call filter."""
    read, write = os.pipe()
    try:
        os.write(write, seccomp_filter())  # less than a pipe holds
        os.close(write)
        yield read
    finally:
        os.close(read)


def _python() -> str:
    """Path in the sandbox of the interpreter itself, not of a virtual environment's."""
    real = Path(sys.executable).resolve()
    return str(real if _is_system(_base()) else Path("/python") / real.relative_to(_base()))


def _base() -> Path:
    return Path(sys.base_prefix).resolve()


def _is_system(base: Path) -> bool:
    return base == Path("/usr") or Path("/usr") in base.parents


def _bubblewrap(file_mb: int, refused: int, packages: tuple[Path, ...] = ()) -> list[str]:
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
        # Root's processes are not counted against any limit: the process inside becomes another user first.
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
        # Not under its own path: a home folder in it may be closed to the user that the solution runs as.
        command += ["--ro-bind", str(_base()), "/python", "--setenv", "LD_LIBRARY_PATH", "/python/lib"]
    command += ["--ro-bind", str(Path(__file__).parent / "sandbox"), "/code/offsft/verify/sandbox"]
    if packages:
        command += ["--perms", "0755", "--dir", "/packages"]  # otherwise closed to the user that the solution runs as
    for folder in packages:
        command += ["--ro-bind", str(folder), f"/packages/{folder.name}"]
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
