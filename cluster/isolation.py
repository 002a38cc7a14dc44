"""Nodes that share nothing but the storage: each has a home, a temporary folder and a working disk of its own.

Each node runs in a mount namespace, made by bubblewrap. In place of this user's home, the temporary folder and this
repository it sees its own empty folders; the Python environment is there, as an image would bring it.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

CACHES = (
    "HF_HOME",
    "OFFSFT_HOME",
    "TMPDIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCH_EXTENSIONS_DIR",
    "TRITON_CACHE_DIR",
    "VLLM_CACHE_ROOT",
    "XDG_CACHE_HOME",
)
"""Variables that would lead all nodes into one folder."""


@dataclass(frozen=True)
class Isolation:
    """Where the nodes' own folders lie, what takes their place on each node, and what all of them see."""

    disks: Path
    hidden: tuple[Path, ...]
    shared: tuple[Path, ...]
    visible: tuple[Path, ...]
    """Programs and the token, which a node may read."""

    @classmethod
    def of(cls, state: Path, repository: Path, storage: Path) -> "Isolation":
        storage.mkdir(parents=True, exist_ok=True)
        hidden = (Path.home(), Path(tempfile.gettempdir()), repository)
        python = (Path(sys.prefix), Path(sys.base_prefix))
        return cls(state / "disks", hidden, (storage,), (*python, state / "token"))

    def home(self, node: str) -> Path:
        """The folder that a node sees as this user's home."""
        return self.disks / node / "home"

    def inside(self, node: str) -> list[str]:
        """The prefix of a node's command; makes the node's folders."""
        command = ["bwrap", "--dev-bind", "/", "/", "--chdir", "/"]
        own = zip(("home", "temporary", "disk"), self.hidden, strict=True)
        # Outer folders first: what is bound last lies on top.
        for name, place in sorted(own, key=lambda pair: len(pair[1].parts)):
            folder = self.disks / node / name
            folder.mkdir(parents=True, exist_ok=True)
            command += ["--bind", str(folder), str(place)]
        for option, places in (("--bind", self.shared), ("--ro-bind", self.visible)):
            for place in places:
                if any(place.is_relative_to(folder) for folder in self.hidden):
                    command += [option, str(place.resolve()), str(place)]
        return command


def why_not() -> str | None:
    """Why nodes cannot be isolated on this machine, with what to do; None if they can."""
    if shutil.which("bwrap") is None:
        return "isolated nodes need bubblewrap, and there is no bwrap on the PATH (apt-get install bubblewrap)"
    tried = subprocess.run(
        ["bwrap", "--dev-bind", "/", "/", "--tmpfs", tempfile.gettempdir(), "true"], capture_output=True, text=True
    )
    if tried.returncode:
        return f"isolated nodes need mount namespaces, which this machine refuses: {tried.stderr.strip()}"
    return None


def is_wrapper(process: psutil.Process) -> bool:
    """Whether a process is bubblewrap's own, which passes no signal on to its node."""
    return process.name() == "bwrap"


def without_shared_caches(environment: dict[str, str]) -> dict[str, str]:
    """The environment of an isolated node."""
    return {key: value for key, value in environment.items() if key not in CACHES} | {"TMPDIR": tempfile.gettempdir()}
