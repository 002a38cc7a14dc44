"""The floors of the house: which module may import what. Read from the source, so that imports inside functions count."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"ray", "vllm", "deepspeed", "torch", "transformers", "fastapi"}

FLOOR_0 = {"errors", "ray_token", "records", "protocols", "strict", "disk_full", "s3", "storage", "storage_fault", "config", "recipes", "run_folder", "submitted"}  # fmt: skip
FLOOR_1 = {"model_files", "gap", "quarantine", "stopping", "problem_files", "contamination", "evaluate.suites", "evaluate.metrics", "run_lock", "boxed", "problems", "prompts", "cascade", "batching", "verify", "console", "demo", "train.zero", "train.schedule", "plan"}  # fmt: skip
FLOOR_1T = {"objectives", "fused_head"}
FLOOR_2 = {"compare", "sampling", "rewrite", "train", "evaluate", "report", "progress", "engine_actor", "engine_job", "ray_session", "foreman", "pipeline", "placement", "metrics", "metered"}  # fmt: skip

ALLOWED_HEAVY = {
    **{name: set() for name in FLOOR_0 | FLOOR_1},
    **{name: {"torch"} for name in FLOOR_1T},
    "prompts": {"transformers"},  # a tokenizer, loaded inside a function
    "demo.model": {"torch", "transformers"},  # to unpack the embedded model, inside a function
    "demo.code_problems": set(),
    "demo.problems": set(),
    "demo.templates": set(),
    "sampling": {"vllm"},
    "sampling.scripted": set(),
    "sampling.handle": {"ray"},
    "rewrite": {"ray"},
    "evaluate": {"ray"},
    "evaluate.suites": set(),
    "evaluate.metrics": set(),
    "evaluate.table": set(),
    "evaluate.contamination": set(),
    "evaluate.problems": set(),
    "report": set(),
    "compare": set(),
    "progress": {"ray"},
    "foreman": {"ray"},
    "placement": {"ray"},
    "engine_actor": {"ray"},
    "engine_job": {"ray"},
    "metrics": {"ray"},
    "ray_session": {"ray"},
    "pipeline": {"transformers"},
    "train": {"ray", "torch", "deepspeed", "transformers", "peft"},
}


def modules():
    for path in sorted((ROOT / "offsft").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "offsft").with_suffix("").parts)
        yield name.removesuffix(".__init__").replace("__init__", ""), path


def owner(name, table):
    """The longest entry of a table that a module is, or lies in."""
    parts = name.split(".")
    found = [".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in table]
    return found[0] if found else None


def floor(name):
    for number, names in (
        (0, FLOOR_0),
        (1, FLOOR_1),
        (1, FLOOR_1T),
        (2, FLOOR_2),
    ):
        if owner(name, names):
            return number
    return None


def is_module(name):
    stem = ROOT.joinpath(*name.split("."))
    return stem.with_suffix(".py").exists() or stem.is_dir()


def imports(path, source=None):
    """(absolute name, line) of every import of a file, relative ones and `from offsft import module` included."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(source or path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield base, node.lineno
            names = (f"{base}.{alias.name}" for alias in node.names)
            yield from ((name, node.lineno) for name in names if base.split(".")[0] == "offsft" and is_module(name))


@pytest.mark.parametrize(
    "line",
    [
        "import offsft.rewrite",
        "from offsft import rewrite",
        "from offsft.rewrite import pipeline",
        "from ..rewrite import pipeline",
        "from .. import rewrite",
    ],
)
def test_every_way_to_write_an_import_is_seen(line):
    found = {name for name, _ in imports(ROOT / "offsft" / "verify" / "math.py", f"def f():\n    {line}\n")}
    assert any(name == "offsft.rewrite" or name.startswith("offsft.rewrite.") for name in found), found


@pytest.mark.parametrize(("name", "path"), [pair for pair in modules() if pair[0]], ids=lambda v: str(v)[-40:])
def test_no_import_breaks_a_floor(name, path):
    assert floor(name) is not None, f"{name} stands on no floor; put it on one in this test"
    for imported, line in imports(path):
        where = f"{path.relative_to(ROOT)}:{line} imports {imported}"
        top = imported.split(".")[0]
        assert top not in {"jobs", "services"}, f"{where}: nobody imports the entry points"
        if top == "offsft" and imported != "offsft":
            above = floor(imported.removeprefix("offsft."))
            assert above is not None, f"{where}, which stands on no floor"
            assert above <= floor(name), f"{where}: floor {floor(name)} may not use floor {above}"
        if top in HEAVY:
            allowed = ALLOWED_HEAVY.get(owner(name, ALLOWED_HEAVY) or "", set())
            assert top in allowed, f"{where}: floor {floor(name)} does without {top}"


def test_only_one_file_imports_vllm():
    users = [
        str(path.relative_to(ROOT)) for _, path in modules() if any(i.split(".")[0] == "vllm" for i, _ in imports(path))
    ]
    assert users == ["offsft/sampling/vllm.py"]


@pytest.mark.parametrize(
    ("names", "blocked"), [(FLOOR_0 | FLOOR_1, HEAVY), (FLOOR_1T, HEAVY - {"torch"})], ids=["0-1", "1t"]
)
def test_the_lower_floors_import_without_the_frameworks(names, blocked):
    code = (
        "import sys, importlib\n"
        f"for name in {sorted(blocked)!r}: sys.modules[name] = None\n"
        f"for name in {sorted(names)!r}: importlib.import_module('offsft.' + name)\n"
        "print('ok')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "ok", done.stderr
