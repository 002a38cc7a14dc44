"""The code verifier: passing and failing code with reasons, and every attack that we could think of, contained."""

import asyncio
import http.server
import json
import os
import re
import threading
import uuid
from pathlib import Path

import psutil
import pytest

from benchmarks.byte_tokenizer import byte_tokenizer
from offsft.config import Fields, VerifyConfig
from offsft.config.loading import load
from offsft.data.formats import parse
from offsft.data.rows import RawRow
from offsft.demo.code_problems import KINDS, generate_code
from offsft.errors import ConfigError
from offsft.inference.engines.scripted import ScriptedSampler
from offsft.prompts import Prompts
from offsft.records import Outcome, Problem
from offsft.rewrite.cascade import cascade_settings, rewrite
from offsft.rewrite.stages import open_stages
from offsft.verify import open_verifier
from offsft.verify.code import extract_code
from offsft.verify.system_calls import seccomp_filter

ROOT = Path(__file__).parents[3]
TESTS = "assert add(1, 2) == 3\nassert add(-1, 1) == 0"
needs_bwrap = pytest.mark.needs("bwrap")


def judged(code, tests=TESTS, **settings):
    async def run():
        async with open_verifier(
            VerifyConfig(**{"kind": "code", "timeout_s": 3, "memory_mb": 256, **settings})
        ) as verifier:
            return await verifier(f"Here it is:\n```python\n{code}\n```", Problem("", "", "", "", {"tests": tests}))

    return asyncio.run(run())


def outcome(code, tests=TESTS, **settings):
    verdict = judged(code, tests, **settings)
    return verdict.outcome, verdict.why


@pytest.mark.parametrize(
    ("response", "code"),
    [
        ("```python\ndef f(): pass\n```\nUse it:\n```python\nf()\n```", "def f(): pass\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("def f():\n    return 1", "def f():\n    return 1"),
        ("```python\ndef f(): pass", "def f(): pass"),
        ("So: ````py title=`x`\n1\n````", None),
        ("````python\ndef f(): pass\n````", "def f(): pass\n"),
        ("```bash\nls\n```", None),
        ("The answer is 7.", None),
        ("7", None),
        ("", None),
    ],
)
def test_the_code_of_a_response_is_found(response, code):
    assert extract_code(response)[0] == code


@pytest.mark.parametrize("unit", ["`", "```a", "``` \t", "```\n", "` ", "```\ndef f(): pass\n"])
def test_a_million_characters_of_any_shape_are_searched_in_one_walk(unit):
    extract_code(unit * (1_000_000 // len(unit)))  # would take hours if each fence searched all the rest


@needs_bwrap
def test_tests_of_all_forms_pass_and_fail_with_their_line():
    code = """
class Full(ValueError): pass
class Box:
    def __init__(self, most): self.items, self.most = [], most
    def push(self, x):
        if len(self.items) == self.most: raise Full("full")
        self.items.append(x)
    def __len__(self): return len(self.items)
def tidy(xs): xs.sort()
def pairs(n):
    for i in range(n): yield (i, {i: str(i)})
def big(): return 2 ** 200, float("inf"), b"x", {1, 2}, None, 1j
"""
    tests = """
import unittest
from solution import Box
numbers = [3, 1, 2]
tidy(numbers)
assert numbers == [1, 2, 3]
assert list(pairs(2)) == [(0, {0: "0"}), (1, {1: "1"})]
assert big() == (2 ** 200, float("inf"), b"x", {1, 2}, None, 1j)
def test_box():
    box = Box(1)
    box.push("a")
    assert len(box) == 1 and box.items == ["a"]
class TestBox(unittest.TestCase):
    def test_full(self):
        with self.assertRaises(Full):
            Box(0).push(1)
        with self.assertRaises(ValueError):
            Box(0).push(1)
"""
    assert outcome(code, tests) == (Outcome.CORRECT, "all tests passed")
    assert outcome(code, tests + "assert numbers == [3]") == (
        Outcome.WRONG,
        "line 19, 'assert numbers == [3]': AssertionError:",
    )
    failing = tests + "    def test_more(self):\n        self.assertEqual(1, 2)\n"
    assert outcome(code, failing) == (Outcome.WRONG, "tests.TestBox.test_more: AssertionError: 1 != 2")


@needs_bwrap
def test_what_is_wrong_is_said():
    assert outcome("def add(a, b): return a - b") == (
        Outcome.WRONG,
        "line 1, 'assert add(1, 2) == 3': AssertionError:",
    )
    assert outcome("def add(a, b) return")[1].startswith("the solution itself: SyntaxError")
    assert outcome("def sub(a, b): return a - b")[1].endswith("NameError: name 'add' is not defined")
    assert outcome("def add(a, b): return a + b", "assert add(")[0] is Outcome.ERROR
    assert outcome("def add(a, b): return a + b", " ") == (Outcome.ERROR, "the problem has no check.tests")


FORGERIES = {
    "leaves with success": "import os\ndef add(a, b): os._exit(0)",
    "leaves while loading": "import sys\nsys.exit(0)",
    "raises SystemExit": "def add(a, b): raise SystemExit(0)",
    "prints the marker": """
import sys, os
def add(a, b):
    for f in (1, 2, 3, 4, 5, 6, 7):
        try: os.write(f, b'{"passed": true, "why": "all tests passed"}\\n' * 3)
        except OSError: pass
    os._exit(0)
""",
    "answers as the harness would": """
import gc, sys
for o in gc.get_objects():
    if hasattr(o, "objects") and hasattr(o, "answer"):
        type(o).answer = lambda self, message: {"value": True, "changed": [None, None], "passed": True}
def add(a, b): return True
""",
    "replaces the builtins": """
import builtins
class Same(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = int.__hash__
builtins.AssertionError = type("Fine", (Exception,), {})
def add(a, b): return Same(7)
""",
    "an object that is equal to all": """
class Same:
    def __eq__(self, other): return True
def add(a, b): return Same()
""",
    "patches unittest and exceptions": """
import unittest, sys
unittest.TestResult.wasSuccessful = lambda self: True
sys.excepthook = lambda *a: None
def add(a, b): raise AssertionError
""",
    "reads the tests from the callers": """
import sys, gc
def add(a, b):
    frame, seen = sys._getframe(), []
    while frame: seen.append(repr(frame.f_locals)); frame = frame.f_back
    text = " ".join(seen) + open("/proc/self/cmdline").read()
    return a + b if "assert add" in text else 0
""",
    "finds the tests in memory": """
import gc
def add(a, b):
    mark = "assert" + " add("
    return a + b if any(isinstance(o, str) and mark in o for o in gc.get_objects()) else 0
""",
}


@needs_bwrap
@pytest.mark.parametrize("attack", FORGERIES)
def test_success_cannot_be_forged(attack):
    assert outcome(FORGERIES[attack])[0] is Outcome.WRONG


@needs_bwrap
def test_a_solution_that_names_functions_like_builtins_does_not_judge_itself():
    code = "def all(xs): return True\ndef add(a, b): return 0\ndef sorted(x): return [1, 2]"
    assert outcome(code, "from solution import *\nassert all([add(1, 2) == 3])")[0] is Outcome.WRONG
    assert outcome(code, "import solution\nassert solution.sorted([2, 1]) == [1, 2]")[0] is Outcome.CORRECT


@needs_bwrap
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def add(a, b):\n    while True: pass", Outcome.TIMEOUT),
        ("while True: pass", Outcome.TIMEOUT),
        ("import time\ndef add(a, b): time.sleep(999)", Outcome.TIMEOUT),
        (
            "import signal, time\nfor s in (15, 2, 24): signal.signal(s, lambda *a: None)\ntime.sleep(99)",
            Outcome.TIMEOUT,
        ),
        ("def add(a, b): return len(bytearray(2**30))", Outcome.WRONG),
        ("x = []\nwhile True: x.append(bytearray(2**20))", Outcome.WRONG),
        ("def add(a, b): return 'x' * 2**25", Outcome.WRONG),
        ("def add(a, b):\n    for _ in range(10**5): print('x' * 10**4)\n    return 0", Outcome.WRONG),
        ("def add(a, b):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x", Outcome.WRONG),
    ],
)
def test_time_memory_and_output_are_limited(code, expected):
    limit_s = 2 if expected is Outcome.TIMEOUT else 20  # a busy machine may be slow to fill the memory
    assert outcome(code, timeout_s=limit_s)[0] is expected


@needs_bwrap
def test_a_fork_bomb_and_children_that_stay_are_all_gone():
    mark = f"bomb{uuid.uuid4().hex}"
    bomb = f"""
import os, subprocess, sys, threading
made = []
def add(a, b):
    import time
    for _ in range(200):
        try:
            pid = os.fork()
        except OSError as error:
            made.append(str(error)); break
        if pid == 0:
            os.setsid()
            os.execv(sys.executable, ["{mark}", "-c", "import time; time.sleep(600)"])
        made.append(pid)
    return len(made)
"""
    verdict = judged(bomb, "assert 2 < add(1, 2) <= 16\nassert made_too", timeout_s=5)
    assert verdict.outcome is Outcome.WRONG
    assert verdict.why.startswith("line 2"), verdict.why
    forever = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    assert outcome(forever, timeout_s=2)[0] is Outcome.TIMEOUT
    left = [mark, "offsft.verify.sandbox.solution"]
    processes = [
        p for p in psutil.process_iter(["cmdline"]) if any(m in " ".join(p.info["cmdline"] or []) for m in left)
    ]
    # The kernel takes a namespace down once its first process has been killed, which may be a moment later.
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert alive == []


@needs_bwrap
def test_nothing_outside_can_be_written_or_read(tmp_path, monkeypatch):
    monkeypatch.setenv("OFFSFT_TEST_SECRET", "hunter2")
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    tmp_path.chmod(0o777)
    code = f"""
import glob, os, pathlib
def tried(action):
    try: return str(action())
    except Exception as error: return type(error).__name__
def written():
    paths = ["/usr/x", "/x", "/etc/x", "/dev/x", "/dev/shm/x", "/code/x", "/proc/x", {str(tmp_path / "x")!r}, "/root/x"]
    return [path for path in paths if tried(lambda: open(path, "w").write("x")) == "1"]
def private(): return tried(lambda: open("/tmp/x", "w").write("x"))
def filled(): return tried(lambda: open("/tmp/y", "wb").write(bytes(2**25)))
def seen():
    texts = [tried(lambda: dict(os.environ))]
    for path in glob.glob("/proc/*/environ") + glob.glob("/proc/*/cmdline") + [{str(secret)!r}, {str(Path(__file__))!r}]:
        texts.append(tried(lambda: open(path).read()))
    return " ".join(texts)
def processes(): return len([p for p in os.listdir("/proc") if p.isdigit()])
def places(): return sorted(os.listdir("/")), tried(lambda: os.listdir("/root")), tried(lambda: os.listdir("/home"))
def me(): return os.getuid(), open("/proc/self/status").read()
"""
    tests = """
assert written() == [], written()
assert private() == "1"
assert filled() == "OSError", filled()
assert "hunter2" not in seen() and "FORGERIES" not in seen()
assert processes() <= 4, processes()
assert set(places()[0]) <= {"bin", "code", "dev", "lib", "lib64", "proc", "python", "tmp", "usr"}, places()
assert places()[1:] == ("FileNotFoundError", "FileNotFoundError")
uid, status = me()
assert uid != 0 or "CapEff:\\t0000000000000000" in status
assert "NoNewPrivs:\\t1" in status
"""
    assert outcome(code, tests, timeout_s=5) == (Outcome.CORRECT, "all tests passed")
    assert secret.read_text() == "hunter2"
    assert os.listdir(tmp_path) == ["secret"]


@needs_bwrap
def test_no_connection_leaves_not_even_to_loopback():
    hits = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = f"""
import socket, urllib.request
def reach(host, port):
    try:
        socket.create_connection((host, port), timeout=1).close()
        return "connected"
    except OSError as error: return type(error).__name__
def interfaces(): return [name for _, name in socket.if_nameindex()]
def get():
    try: return urllib.request.urlopen("http://127.0.0.1:{server.server_port}/").status
    except OSError as error: return "no"
"""
    tests = f"""
assert reach("127.0.0.1", {server.server_port}) != "connected"
assert reach("192.0.2.1", 80) == "OSError"
assert get() == "no"
assert interfaces() == ["lo"], interfaces()
"""
    try:
        assert outcome(code, tests, timeout_s=5) == (Outcome.CORRECT, "all tests passed")
    finally:
        server.shutdown()
        server.server_close()
    assert hits == []


@needs_bwrap
def test_other_processes_can_be_neither_killed_nor_traced():
    code = """
import ctypes, os, signal
def killed(pids):
    done = []
    for pid in pids:
        try: os.kill(pid, signal.SIGKILL); done.append(pid)
        except OSError: pass
    return done
def traced(pids):
    libc = ctypes.CDLL(None, use_errno=True)
    return [pid for pid in pids if libc.ptrace(16, pid, 0, 0) == 0]
def limits_raised():
    import resource
    try: resource.setrlimit(resource.RLIMIT_NPROC, (10**6, 10**6)); return True
    except (ValueError, OSError): return False
"""
    here = [os.getpid(), os.getppid()]
    tests = f"assert traced({here} + [1]) == []\nassert killed({here}) == []\nassert not limits_raised()"
    assert outcome(code, tests, timeout_s=5) == (Outcome.CORRECT, "all tests passed")


@needs_bwrap
def test_what_no_limit_counts_is_refused():
    code = """
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
def refused(call, *arguments):
    return (getattr(libc, call)(*arguments), ctypes.get_errno()) == (-1, 1)
def shared_memory(): return refused("shmget", 0, 2**26, 0o1600)  # stays in memory when it is mapped no more
def new_namespaces(): return refused("unshare", 0x10000000 | 0x20000)  # in one's own, a file system has any size
def mounted(): return refused("mount", b"none", b"/tmp", b"tmpfs", 0, b"size=4G")
def key(): return refused("syscall", {"x86_64": 248, "aarch64": 217}[platform.machine()], b"user", b"x", b"y", 1, -3)
def cloned():
    pid = libc.syscall({"x86_64": 56, "aarch64": 220}[platform.machine()], 0x10000000 | 17, 0, 0, 0, 0)
    if pid == 0: os._exit(0)
    return pid == -1 and ctypes.get_errno() == 1
def forked():
    import subprocess, threading
    thread = threading.Thread(target=int)
    thread.start(), thread.join()
    return subprocess.run(["/bin/true"]).returncode
def ends_all_it_can():
    os.kill(-1, 9)
"""
    tests = """
assert shared_memory() and new_namespaces() and mounted() and key() and cloned()
assert forked() == 0
try: ends_all_it_can()
except ProcessLookupError: pass
"""
    assert outcome(code, tests, timeout_s=5) == (Outcome.CORRECT, "all tests passed")


def test_a_machine_whose_calls_are_unknown_is_refused():
    assert len(seccomp_filter("x86_64")) % 8 == len(seccomp_filter("aarch64")) % 8 == 0
    with pytest.raises(ConfigError, match="runs on x86_64 and aarch64, not on riscv64"):
        seccomp_filter("riscv64")


def test_a_missing_bubblewrap_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="apt-get install bubblewrap"):
        open_verifier(VerifyConfig(kind="code"))


@needs_bwrap
def test_generated_problems_of_code_are_solved_by_their_solutions_only():
    rows = generate_code(200, split="train", seed=0)
    assert generate_code(200, split="train", seed=0) == rows
    held_out = {row["problem"] for row in generate_code(100, split="held_out", seed=0)}
    assert held_out.isdisjoint({row["problem"] for row in rows})
    for kind in KINDS:
        mine = [row for row in rows if f"function {kind.name}_" in row["problem"]]
        namespaces = [{} for _ in mine]
        for row, space in zip(mine, namespaces, strict=True):
            exec(row["solution"].removeprefix("```python\n").removesuffix("\n```"), space)
            exec(row["tests"], space)
    code = "\n".join(row["solution"].removeprefix("```python\n").removesuffix("\n```") for row in rows[:20])
    assert outcome(code, "\n".join(row["tests"] for row in rows[:20]))[0] is Outcome.CORRECT
    assert outcome(code, rows[-1]["tests"])[0] is Outcome.WRONG


def adder(prompt, number):
    """A solution that always adds, right for `add_...` only; copies a shown solution; gives up on `at_most_...`."""
    asked = re.search(r"function ((?!double)\w+?)_(\d+)\(x\)", prompt)
    assert asked is not None, prompt
    if asked[1] == "at_most":
        return "I do not know."
    blocks = re.findall(r"```python\n.*?```", prompt, re.DOTALL)
    if len(blocks) == 2:  # the example, and the expert's solution
        return f"Here it is:\n{blocks[1]}"
    return f"```python\ndef {asked[1]}_{asked[2]}(x):\n    return x + {asked[2]}\n```"


@needs_bwrap
def test_the_recipe_for_code_keeps_what_its_tests_pass():
    settings = [
        "rewrite.stages.self.waves=[1]",
        "rewrite.max_tokens=400",
        "model.context_tokens=2048",
    ]  # one token per byte
    recipe = load(ROOT / "jobs" / "recipes" / "code.yaml", settings)
    tokenizer = byte_tokenizer()
    prompts = Prompts(tokenizer, recipe.prompt)
    sampler = ScriptedSampler(adder, encode=prompts.response, decode=tokenizer.decode)
    problems = [
        parse(RawRow("f", n, json.dumps(row).encode()), "own", Fields(tests="tests"), recipe.domain)
        for n, row in enumerate(generate_code(6, split="train", seed=0))
    ]

    async def rewritten():
        async with open_verifier(recipe.verify) as verifier:
            stages = open_stages(recipe.rewrite.stages, prompts)
            of = {"prompts": prompts, "stages": stages, "sampler": sampler, "verifier": verifier}
            return [
                await rewrite(p, **of, settings=cascade_settings(recipe.rewrite, recipe.model.context_tokens))
                for p in problems
            ]

    sources = {}
    for done in asyncio.run(rewritten()):
        name = done.problem.partition("function ")[2].rpartition("(")[0].rpartition("_")[0]
        sources.setdefault(name, set()).add(str(done.source))
    kinds = {"add": {"self"}, "at_most": {"expert"}, "add_to_all": {"guided"}, "subtract": {"guided"}}
    assert sources == kinds
