"""After a kill while a cache is filled, the next process finds no partial cache and waits for no dead process."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from offsft.demo import model
from offsft.demo.model import _intact, embedded_model
from offsft.models import download_model
from offsft.storage.paths import write_bytes

ROOT = Path(__file__).parents[3]

FETCHING = """
import os, signal, sys
from offsft import models

def half(place, target):
    (target / "config.json").write_text("{")
    os.kill(os.getpid(), signal.SIGKILL)

models.get_all = half
models.download_model(sys.argv[1])
"""

UNPACKING = """
import os, signal
from offsft.demo import model

def half(gguf, folder):
    folder.mkdir()
    (folder / "model.safetensors").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

model._save = half
model.embedded_model()
"""


def killed(code, *arguments):
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_model_of_which_a_half_was_fetched_is_fetched_again(s3, tmp_path, monkeypatch):
    import boto3

    monkeypatch.setenv("OFFSFT_HOME", str(tmp_path))
    for name in ("config.json", "model.safetensors"):
        boto3.resource("s3", region_name="us-east-1").Object("bucket", f"model/{name}").put(Body=b"{}")
    killed(FETCHING, f"{s3}/model")
    assert list((tmp_path / "models").glob(".s3-model-*.partial"))
    folder = Path(download_model(f"{s3}/model"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "config.json": b"{}",
        "model.safetensors": b"{}",
    }
    assert not list((tmp_path / "models").glob("*.partial"))


def test_the_embedded_model_of_which_a_half_was_unpacked_is_unpacked_again(tmp_path, monkeypatch):
    monkeypatch.setenv("OFFSFT_HOME", str(tmp_path))
    killed(UNPACKING)
    (left,) = (path for path in (tmp_path / "models").iterdir() if path.is_dir())
    assert (left / "model" / "model.safetensors").read_text() == "half"

    def save(_, folder):
        folder.mkdir()
        (folder / "model.safetensors").write_text("whole")

    monkeypatch.setattr(model, "_save", save)
    folder = embedded_model()
    assert _intact(folder)
    assert (folder / "model.safetensors").read_text() == "whole"
    assert [path for path in (tmp_path / "models").iterdir() if path.is_dir()] == [folder]


def test_a_shared_file_that_several_write_at_once_is_always_whole(tmp_path):
    path = tmp_path / "reply.json"
    contents = [bytes([65 + writer]) * 50_000 for writer in range(4)]

    def write(content):
        for _ in range(20):
            write_bytes(path, content, shared=True)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, contents))
    assert os.listdir(tmp_path) == ["reply.json"]
