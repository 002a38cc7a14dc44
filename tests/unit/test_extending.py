"""docs/extending.md and docs/rewriting.md are correct: their files, changes and trials run on a copy of the library."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
REWRITING = (ROOT / "docs" / "rewriting.md").read_text()
_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Section:
    """One extension: its files, its changes to the library, and its trial with the expected output."""

    title: str
    files: dict[str, str]
    changes: str
    trial: str
    printed: str

    @property
    def touched(self):
        """The library's files that it changes or adds."""
        added = {name for name in self.files if name.startswith("offsft/")}
        return added | set(re.findall(r"^\+\+\+ b/(\S+)$", self.changes, re.M))


def sections(page=PAGE):
    for part in page.split("\n## ")[1:]:
        blocks = _BLOCK.findall(part)
        if page is not PAGE and not any(kind == "python" for kind, *_ in blocks):
            continue
        only = {kind: text for kind, name, text in blocks if not name}
        files = {name: text for _, name, text in blocks if name}
        yield Section(part.splitlines()[0], files, only.get("diff", ""), only["python"], only["text"])


def apply(changes, root):
    """Apply each change of a diff at its old lines, which must occur exactly once."""
    for name, body in re.findall(r"^\+\+\+ b/(\S+)\n(.*?)(?=^--- a/|\Z)", changes, re.MULTILINE | re.DOTALL):
        text = (root / name).read_text()
        for hunk in re.split(r"^@@.*\n", body, flags=re.MULTILINE)[1:]:
            lines = [line if line.strip() else " \n" for line in hunk.splitlines(keepends=True)]
            old = "".join(line[1:] for line in lines if line[0] in " -")
            new = "".join(line[1:] for line in lines if line[0] in " +")
            assert text.count(old) == 1, f"{name}: these lines are not there once:\n{old}"
            text = text.replace(old, new)
        (root / name).write_text(text)


@pytest.mark.parametrize("section", [*sections(), *sections(REWRITING)], ids=lambda section: section.title)
def test_what_the_page_adds_works(section, tmp_path):
    library = ROOT
    if section.touched:
        library = tmp_path
        shutil.copytree(ROOT / "offsft", tmp_path / "offsft", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in section.files.items():
        (tmp_path / name).write_text(text)
    apply(section.changes, tmp_path)
    (tmp_path / "trial.py").write_text(section.trial)
    done = subprocess.run(
        [sys.executable, "trial.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(library), str(ROOT)])},
        capture_output=True,
        text=True,
    )
    assert done.stdout == section.printed, done.stderr


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.title)
def test_nothing_needs_more_than_three_files_of_the_library(section):
    assert len(section.touched) <= 3


def test_the_page_shows_each_thing_that_can_be_added():
    listed = re.findall(r"^\| an? \[([^\]]*)\]", PAGE, re.M)
    assert sorted(title.split(" ", 1)[1] for title in (section.title for section in sections())) == sorted(listed)
