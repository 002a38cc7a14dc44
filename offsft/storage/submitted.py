"""Paths in the folder that was submitted with a job: Ray copies it to every node, each time into another place."""

import os
import re

_COPY = re.compile(r"(?P<root>.*/working_dir_files/_ray_pkg_[0-9a-f]+)(?P<below>/.*)?")


def on_this_node(path: str) -> str:
    """A path in another node's copy of the submitted folder, as the same path in this node's copy; any other as it is.

    A driver makes the relative paths of its settings absolute, below its own copy.
    """
    there, here = _COPY.fullmatch(path), _COPY.fullmatch(os.getcwd())
    return f"{here['root']}{there['below'] or ''}" if there and here else path
