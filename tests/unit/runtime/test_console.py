"""The console of a job whose reader exits early: `| head -1`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_a_job_goes_on_after_its_reader_has_left(tmp_path):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from offsft.runtime.console import Console\n"
        "console = Console()\n"
        "console.say('first')\n"
        "sys.stdin.readline()\n"
        f"console.quiet(Path({str(tmp_path / 'log')!r}))\n"
        "for line in ('second', 'third'): console.say(line)\n"
        "console.progress('on and on')\n"
        "console.rich.print('a table')\n"
        "console.done()\n"
        f"Path({str(tmp_path / 'done')!r}).touch()\n"
    )
    job = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert job.stdin
    assert job.stdout
    assert job.stderr
    assert job.stdout.readline() == b"first\n"
    job.stdout.close()
    job.stdin.write(b"\n")
    job.stdin.close()
    assert job.stderr.read() == b""
    assert job.wait() == 0
    assert (tmp_path / "done").exists()
    assert (tmp_path / "log").read_text().splitlines() == [
        "nothing reads this job's output any more; it goes on, and what it says stands here",
        "second",
        "third",
    ]
