"""Documentation pages are current: every file, module, link and message that they name exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "jobs" / "recipes" / "README.md"])
HISTORY = {"CHANGELOG.md", "LOG.md"}
"""Pages that name things that no longer exist."""
_ADDED = re.findall(r"^```\w+ (\S+)$", (ROOT / "docs" / "extending.md").read_text(), re.MULTILINE)
MADE = {"cluster/ray-token", *_ADDED, *(name.removesuffix(".py").replace("/", ".") for name in _ADDED)}
"""Files that a user creates."""
_FOLDERS = "offsft|jobs|services|cluster|benchmarks|tests|docs|requirements"
_PATH = re.compile(rf"(?<![\w/.$~<-])((?:{_FOLDERS})/[\w./-]*\w)")
_MODULE = re.compile(r"(?<![\w/.-])((?:offsft|jobs|services|benchmarks)(?:\.[A-Za-z_]\w*)+)(?![\w/-])")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)", re.DOTALL)

everywhere = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@everywhere
def test_every_relative_link_leads_somewhere(page):
    for first, second in _LINK.findall(page.read_text()):
        target, _, anchor = (first or second).partition("#")
        if "://" in target:
            continue
        place = (page.parent / target).resolve() if target else page
        assert place.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(place), f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in HISTORY], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_file_and_module_that_a_page_names_is_there(page):
    text = page.read_text()
    for path in set(_PATH.findall(text)) - MADE:
        assert (ROOT / path).exists(), f"{page.name} names {path}"
    for name in set(_MODULE.findall(text)) - MADE:
        assert is_there(name), f"{page.name} names {name}"


@pytest.mark.parametrize("path", ["offsft/rewrite/cascade.py", "tests/unit", "docs/images/system.svg"])
def test_a_path_in_a_page_is_seen(path):
    assert _PATH.findall(f"see `{path}`, and python -m x {path}.") == [path, path]


@pytest.mark.parametrize(
    ("name", "there"), [("offsft.records.Outcome", True), ("offsft.cascade", False), ("jobs.plan", True)]
)
def test_a_module_in_a_page_is_seen(name, there):
    assert _MODULE.findall(f"see `{name}`, (as {name}).") == [name, name]
    assert is_there(name) is there


@pytest.mark.parametrize(
    "said", re.findall(r"^\| `([^|]*)` \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M)
)
def test_the_messages_of_the_troubleshooting_page_are_said_by_the_code(said):
    for message in said.split("`, `"):
        pattern = ".*".join(re.escape(part.strip()) for part in message.split("..."))
        assert re.search(pattern, messages()), message


def test_every_page_of_the_documentation_is_in_its_index():
    index = (ROOT / "docs" / "index.md").read_text()
    missing = {page.name for page in ROOT.glob("docs/*.md")} - {"index.md"} - set(re.findall(r"\((\w+\.md)", index))
    assert not missing


def test_every_recipe_is_in_their_table():
    table = (ROOT / "jobs" / "recipes" / "README.md").read_text()
    listed = set(re.findall(r"^\| `([\w.-]+)` \|", table, re.M))
    assert listed == {path.stem for path in (ROOT / "jobs" / "recipes").glob("*.yaml")}


def test_the_figure_of_the_system_is_as_its_script_draws_it():
    script = ROOT / "docs" / "images" / "draw_system.py"
    names = {"__file__": str(script), "__name__": "draw_system"}
    exec(compile(script.read_text(), str(script), "exec"), names)
    assert script.with_name("system.svg").read_text() == names["draw"]()


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def is_there(name):
    """Whether a dotted name is a module or folder of the repository, or a name that a module defines or binds."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        stem = ROOT.joinpath(*parts[:count])
        for file in (stem.with_suffix(".py"), stem / "__init__.py"):
            if file.is_file():
                return count == len(parts) or parts[count] in names_of(file)
        if stem.is_dir() and count == len(parts):
            return True
    return False


@cache
def names_of(file):
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name)
    return found


@cache
def messages():
    """Every string in the code, one per line, with `_` for interpolated values."""
    files = [path for folder in ("offsft", "jobs", "services") for path in (ROOT / folder).rglob("*.py")]
    found = [(ROOT / "requirements" / "setup.sh").read_text()]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "_" for part in node.values]
                found.append("".join(parts).replace("\n", " "))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value.replace("\n", " "))
    return "\n".join(found)
