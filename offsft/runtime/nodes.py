"""Proves, before anything is paid for, that each node which may get work sees the run's folder and the models."""

import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from offsft.demo.model import is_embedded
from offsft.errors import ModelError, RunFolderError
from offsft.models import fingerprint
from offsft.runtime.console import Console
from offsft.storage.faults import storage_fault
from offsft.storage.paths import StoragePath, at, make, remove
from offsft.storage.submitted import on_this_node

ANSWER_S = 120.0
"""Seconds that a node has to answer; one that has not is only noted."""
_MARKS = ".nodes"
_SHOWN = 5
_SHARED = "give it on storage that every node has mounted, or as s3://bucket/path"


@dataclass(frozen=True, slots=True)
class Sight:
    """What one node says: whether it sees the driver's mark and wrote its own, and the models' fingerprints."""

    sees_run: bool
    refused: str
    """Why the run's folder could not be read or written; empty if it could."""
    models: dict[str, str | None]
    """By setting; None where there is no such folder."""


def check_nodes(folder: StoragePath, models: Mapping[str, str], console: Console) -> None:
    """Have each node that may get work, other than this one, write into the run's folder and look for the models.

    `models` maps settings to what this node loads; only folders on a disk are looked for. Nodes that join later are not
    checked.

    Raises:
        RunFolderError: a node does not see the run's folder, or cannot write to it; names the nodes.
        ModelError: a node does not see a model's folder, or sees other files in it; names the nodes.
    """
    nodes = _other_nodes()
    if not nodes:
        return
    console.progress(f"asking {_count(nodes, 'node')} whether the run's folder is seen there")
    models = {key: path for key, path in models.items() if Path(path).is_dir() and not is_embedded(path)}
    marks, token = folder / _MARKS, uuid4().hex
    make(marks)
    try:
        (marks / token).write_text(token, encoding="utf-8")
        sights = _ask(nodes, str(marks), token, models)
        written = {node for node in sights if (marks / node).exists()}
    finally:
        remove(marks)
    if silent := [name for node, name in nodes.items() if node not in sights]:
        console.say(f"note: whether the run's folder is seen on {_listed(silent)} was not answered in {ANSWER_S:g} s")
    named = {nodes[node]: replace(sight, sees_run=sight.sees_run and node in written) for node, sight in sights.items()}
    check_sights(folder, {key: (path, fingerprint(path)) for key, path in models.items()}, named)


def check_sights(folder: StoragePath, models: Mapping[str, tuple[str, str]], sights: Mapping[str, Sight]) -> None:
    """Compare what the nodes see, by name, with the run's folder, and the path and fingerprint of each model.

    Raises:
        RunFolderError, ModelError: see `check_nodes`.
    """
    if refused := {name: sight.refused for name, sight in sights.items() if sight.refused}:
        reason = next(iter(refused.values()))
        raise RunFolderError(
            f"run={folder} cannot be read and written on {_listed(refused)}, which may get work: {reason}"
        )
    if blind := [name for name, sight in sights.items() if not sight.sees_run]:
        raise RunFolderError(
            f"run={folder} is not seen on {_listed(blind)}, which may get work; {_SHARED} (run=..., or cluster.storage for all"
            " runs)"
        )
    for setting, (path, expected) in models.items():
        seen = {name: sight.models[setting] for name, sight in sights.items()}
        if without := [name for name, found in seen.items() if found is None]:
            raise ModelError(
                f"{setting}={path} is not there on {_listed(without)}, which may get work; {_SHARED}, or put it into the"
                " folder that you submit and give its relative path"
            )
        if other := [name for name, found in seen.items() if found != expected]:
            raise ModelError(f"{setting}={path} holds other files on {_listed(other)} than here; {_SHARED}")


def _other_nodes() -> dict[str, str]:
    """Names of the living nodes with resources for work, by id, except the one of this process."""
    own = ray.get_runtime_context().get_node_id()
    return {
        node["NodeID"]: f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})"
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] != own and any(node["Resources"].get(each) for each in ("CPU", "GPU"))
    }


def _ask(nodes: Mapping[str, str], marks: str, token: str, models: dict[str, str]) -> dict[str, Sight]:
    """What each node sees, by id; a node that has not answered in time, or was lost, is left out."""
    look: Any = ray.remote(look_around)
    asked = {
        look.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(marks, token, node, models): node
        for node in nodes
    }
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S)
    sights: dict[str, Sight] = {}
    for answer in ready:
        try:
            sights[asked[answer]] = ray.get(answer)
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.RaySystemError):
            continue
    return sights


def look_around(marks: str, token: str, node: str, models: dict[str, str]) -> Sight:
    """What this node sees; it writes its mark only beside the driver's, so that it makes no folder of its own."""
    place, sees_run, refused = at(marks), False, ""
    try:
        sees_run = (place / token).exists()
        if sees_run:
            (place / node).write_text(socket.gethostname(), encoding="utf-8")
    except Exception as error:  # of many kinds, from a disk or from S3: each is this node's answer
        refused = str(storage_fault(error, marks) or error)
    here = {setting: on_this_node(path) for setting, path in models.items()}
    found = {setting: fingerprint(path) if Path(path).is_dir() else None for setting, path in here.items()}
    return Sight(sees_run, refused, found)


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{'the node' if len(names) == 1 else 'the nodes'} {shown}{more}"


def _count(things: Collection[Any], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
