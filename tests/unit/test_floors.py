"""Layers: which module may import which. Read from the source, so that imports inside functions count."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"ray", "vllm", "deepspeed", "torch", "transformers", "fastapi"}

FLOORS = {
    0: {"", "errors", "records", "protocols", "config"},
    1: {"storage", "verify", "measures", "losses", "gap", "models", "prompts", "plan", "demo", "chat"},
    2: {"runtime", "data", "inference"},
    3: {"rewrite", "train", "evaluate"},
    4: {"report", "pipeline", "compare", "probe", "export"},
}
SIBLINGS = FLOORS[3]
"""Stages of a run, which never import each other."""

ALLOWED_HEAVY = {
    "losses": {"torch"},
    "prompts": {"transformers"},  # a tokenizer, loaded inside a function
    "models": {"transformers"},  # a configuration, loaded inside a function
    "demo.model": {"torch", "transformers"},  # to unpack the embedded model, inside a function
    "runtime": {"ray"},
    "runtime.auth": set(),
    "runtime.compiled_code": set(),
    "runtime.console": set(),
    "runtime.shutdown": set(),
    "data.intake": {"ray"},
    "data.suite_intake": {"ray"},
    "inference": {"ray"},
    "inference.engines": set(),
    "inference.engines.serve": {"ray"},
    "inference.engines.vllm": {"vllm"},
    "rewrite": {"ray"},
    "rewrite.cascade": set(),
    "rewrite.stages": set(),
    "train": {"ray", "torch", "deepspeed", "transformers", "peft"},
    "train.batching": set(),
    "train.schedule": set(),
    "train.zero": set(),
    "evaluate": {"ray"},
    "evaluate.statistics": set(),
    "evaluate.table": set(),
}
"""The frameworks that a folder or file may import; one without an entry imports none."""


def modules():
    for path in sorted((ROOT / "offsft").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "offsft").with_suffix("").parts)
        yield name.removesuffix(".__init__").replace("__init__", ""), path


def owner(name, table):
    """The longest entry of a table that is the module or contains it."""
    parts = name.split(".")
    found = [".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in table]
    return found[0] if found else None


def floor(name):
    return next((number for number, names in FLOORS.items() if owner(name, names) is not None), None)


def is_module(name):
    stem = ROOT.joinpath(*name.split("."))
    return stem.with_suffix(".py").exists() or stem.is_dir()


def imports(path, source=None):
    """(absolute name, line) of every import in a file, including relative ones and `from offsft import module`."""
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
            room, other = name.split(".")[0], imported.split(".")[1]
            assert room == other or not {room, other} <= SIBLINGS, f"{where}: the stages never import each other"
        if top in HEAVY:
            allowed = ALLOWED_HEAVY.get(owner(name, ALLOWED_HEAVY) or "", set())
            assert top in allowed, f"{where}: floor {floor(name)} does without {top}"


def test_only_one_file_imports_vllm():
    users = [
        str(path.relative_to(ROOT)) for _, path in modules() if any(i.split(".")[0] == "vllm" for i, _ in imports(path))
    ]
    assert users == ["offsft/inference/engines/vllm.py"]


def test_no_import_runs_in_a_circle():
    edges = {name: set() for name, _ in modules()}
    for name, path in modules():
        for imported, _ in imports(path):
            target = imported.removeprefix("offsft.")
            if imported.startswith("offsft.") and target in edges and target != name:
                edges[name].add(target)
    order = TopologicalSorter(edges)
    try:
        order.prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1]))


@pytest.mark.parametrize(
    ("folders", "blocked"),
    [({0, 1}, HEAVY - {"torch"}), ({0, 1}, HEAVY)],
    ids=["with torch alone", "with no framework"],
)
def test_the_lower_floors_import_without_the_frameworks(folders, blocked):
    names = [
        name
        for name, _ in modules()
        if name and floor(name) in folders and (owner(name, {"losses"}) is None or "torch" not in blocked)
    ]
    code = (
        "import sys, importlib\n"
        f"for name in {sorted(blocked)!r}: sys.modules[name] = None\n"
        f"for name in {names!r}: importlib.import_module('offsft.' + name)\n"
        "print('ok')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "ok", done.stderr
