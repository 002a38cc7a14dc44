"""Runs and models on S3, with moto's server: atomic files, one job at a time, and a one-line message per error."""

import json
import subprocess
import sys

import pyarrow as pa
import pytest
import torch
from ray.data.checkpoint import checkpoint_filter

from offsft.config import DataConfig, EngineConfig, ModelConfig
from offsft.data.files import existing_files, read_rows
from offsft.data.intake_record import IntakeRecord, changed_files, stamp_files
from offsft.errors import ConfigError, ModelError, RunFolderError, StorageError
from offsft.inference.actor import EngineActor
from offsft.inference.batch_job import EngineJob
from offsft.models import MODEL_LAST, download_model, resolve_model
from offsft.storage import run_lock
from offsft.storage.faults import check_reachable, storage_fault
from offsft.storage.paths import (
    arrow,
    at,
    dataset,
    filling,
    is_filled,
    parquet_files,
    read_table,
    remove,
    write_bytes,
    write_table,
)
from offsft.storage.run_folder import RunFolder
from offsft.storage.run_lock import lock_run
from offsft.train.checkpoint import local_copy, rescue
from offsft.train.step_log import StepLog
from offsft.train.trackers import board


def test_a_table_written_through_failing_requests_is_the_table_that_is_read(s3, s3_proxy):
    table = pa.table({"id": [str(i) for i in range(200)]})
    s3_proxy.share = 0.3
    folder = at(f"{s3}/run/rows")
    for number in range(10):
        write_table(table, folder / f"{number}.parquet")
    assert read_table(folder / "3.parquet").equals(table)
    assert dataset(folder).count_rows() == 2000
    remove(folder)
    assert not folder.exists()
    assert s3_proxy.told["503"] > 0
    assert s3_proxy.told["dropped"] > 0


def test_problem_files_on_s3_are_listed_and_read(s3):
    place = at(f"{s3}/data")
    write_bytes(place / "b.jsonl", b'{"problem": "2"}\n')
    write_bytes(place / "a.jsonl", b'{"problem": "1"}\n\n{"problem": "3"}\n')
    write_bytes(place / "empty.jsonl", b"")
    files = existing_files(DataConfig(path=[f"{s3}/data"]), "data.path")
    assert files == [f"{s3}/data/a.jsonl", f"{s3}/data/b.jsonl"]
    assert [number for number, _ in read_rows(files[0])] == [1, 3]
    assert existing_files(DataConfig(path=[f"{s3}/data/*.jsonl", f"{s3}/data/a.jsonl"]), "data.path") == files
    with pytest.raises(ConfigError, match=r"data\.path=s3://bucket/none does not exist; give a JSONL"):
        existing_files(DataConfig(path=[f"{s3}/none"]), "data.path")
    with pytest.raises(ConfigError, match="no file matches this pattern"):
        existing_files(DataConfig(path=[f"{s3}/none/*"]), "data.path")
    with pytest.raises(ConfigError, match="on a disk and on S3"):
        existing_files(DataConfig(path=[f"{s3}/data", "here.jsonl"]), "data.path")


def test_a_change_of_problem_files_on_s3_is_seen(s3):
    place = at(f"{s3}/changing")
    write_bytes(place / "a.jsonl", b'{"problem": "1"}\n')
    rows = DataConfig(path=str(place))
    record = IntakeRecord(stamp_files(rows, "data.path"))
    assert changed_files(record, stamp_files(rows, "data.path", record)) == []
    write_bytes(place / "a.jsonl", b'{"problem": "2"}\n')
    assert changed_files(record, stamp_files(rows, "data.path", record)) == [f"{s3}/changing/a.jsonl changed"]


def test_a_folder_that_is_filled_by_half_is_not_there(s3, monkeypatch):
    folder = at(f"{s3}/run/model")
    with filling(folder, MODEL_LAST) as writing:
        (writing / MODEL_LAST).write_text("{}")
        (writing / "model.safetensors").write_bytes(b"old")
    assert is_filled(folder, MODEL_LAST)
    put = folder.fs.put_file

    def dies(local, remote):
        if "tokenizer" in remote:
            raise KeyboardInterrupt
        put(local, remote)

    monkeypatch.setattr(folder.fs, "put_file", dies)

    def fill_again():
        with filling(folder, MODEL_LAST) as writing:
            for name in (MODEL_LAST, "model.safetensors", "tokenizer.json"):
                (writing / name).write_text("new")

    with pytest.raises(KeyboardInterrupt):
        fill_again()
    assert (folder / "model.safetensors").read_bytes() == b"new"
    assert not is_filled(folder, MODEL_LAST)
    with pytest.raises(
        ModelError, match=r"model\.path=s3://bucket/run/model has no config\.json; give the folder .* whole"
    ):
        resolve_model(ModelConfig(path=str(folder)))
    with pytest.raises(ModelError, match=r"holds no config\.json: it is not a model, or an incomplete one"):
        download_model(str(folder))


def test_a_model_is_fetched_once_and_again_when_it_changes(s3, s3_proxy, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("OFFSFT_HOME", str(tmp_path / "cache"))
    place = at(f"{s3}/models/tiny")
    place.fs.put(f"{tiny_model}/", place.path, recursive=True)
    model = resolve_model(ModelConfig(path=f"{s3}/models/tiny"))
    first = download_model(model)
    s3_proxy.told.clear()
    assert download_model(model) == first
    assert s3_proxy.told["passed"] <= 3, "the listing alone says that it is there"
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(first).config.hidden_size == 64
    write_bytes(place / "generation_config.json", b'{"temperature": 1.0}')
    assert download_model(model) != first
    for shard in place.glob("*.safetensors"):
        shard.unlink()
    with pytest.raises(ModelError, match=r"holds no \*\.safetensors"):
        resolve_model(ModelConfig(path=f"{s3}/models/tiny"))


def test_an_object_whose_name_leads_out_of_the_folder_is_refused(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("OFFSFT_HOME", str(tmp_path / "cache"))
    place = at(f"{s3}/models/bad")
    write_bytes(place / MODEL_LAST, b"{}")
    place.fs.call_s3("put_object", Bucket="bucket", Key="models/bad/../../evil", Body=b"x")
    with pytest.raises(StorageError, match=r"holds an object named '\.\./\.\./evil', which is not a valid path"):
        download_model(str(place))
    assert not list(tmp_path.rglob("evil"))


def test_the_newest_whole_checkpoint_on_s3_is_taken_and_the_others_go(s3):
    storage = at(f"{s3}/run/checkpoints/train")
    for name in ("checkpoint_1", "checkpoint_2"):
        for shard in ("model", "optimizer-0", "optimizer-1", "process-0", "process-1"):
            with (storage / name / "step-1" / f"{shard}.pt").open("wb") as file:
                torch.save({"weights": torch.ones(3)}, file)
        write_bytes(storage / name / "latest", b"step-1")
    cut = storage / "checkpoint_2" / "step-1" / "model.pt"
    write_bytes(cut, cut.read_bytes()[:-30])
    write_bytes(storage / "checkpoint_manager_snapshot.json", b'{"half')
    whole = rescue(storage, workers=2, zero_stage=2)
    assert whole == storage / "checkpoint_1"
    assert not (storage / "checkpoint_2").exists()
    with local_copy(whole) as folder:
        assert torch.load(f"{folder}/step-1/model.pt")["weights"].tolist() == [1.0] * 3


def test_lines_of_steps_are_kept_and_those_done_again_replaced(s3):
    path = at(f"{s3}/run/metrics.jsonl")
    log = StepLog(path, 0, write=True)
    for step in (1, 2, 3):
        log.add({"step": step})
    again = StepLog(path, 2, write=True)
    again.add({"step": 3, "again": True})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1},
        {"step": 2},
        {"step": 3, "again": True},
    ]


def test_what_a_process_says_is_in_its_log_when_it_has_ended(s3):
    log = f"{s3}/run/logs/driver.log"
    code = (
        "import sys; from offsft.runtime.console import output_to_file, put_output; from offsft.storage.paths import at\n"
        "output_to_file(at(sys.argv[1])); print('said'); put_output()"
    )
    subprocess.run([sys.executable, "-c", code, log], check=True, timeout=60)
    assert at(log).read_text() == "said\n"


def test_the_board_of_a_training_is_put_to_s3_line_by_line(s3):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    write = board(at(f"{s3}/run/tensorboard"), 0)
    write({"step": 1, "steps": 2, "loss/nll": 0.5})
    (put,) = at(f"{s3}/run/tensorboard").glob("events*")
    with local_copy(put.parent) as folder:
        events = list(EventFileLoader(f"{folder}/{put.name}").Load())
    assert [value.tag for event in events for value in event.summary.value] == ["loss/nll"]


HOLDER = """
import sys, time
from offsft.storage.run_lock import lock_run
from offsft.storage.paths import at
with lock_run(at(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(s3):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, f"{s3}/run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_job_on_s3_is_told_who_holds_the_folder_until_that_one_is_dead(s3, s3_proxy, holder):
    folder = at(f"{s3}/run")
    told = rf"s3://bucket/run is in use by process {holder.pid} on .+ since .+; wait for it or end it"
    with pytest.raises(RunFolderError, match=told), lock_run(folder):
        pass
    holder.kill()
    holder.wait()
    s3_proxy.share = 0.3
    with lock_run(folder):
        assert (folder / "lock.json").exists()
    assert not (folder / "lock.json").exists()


class Beats:
    """A stop signal that comes after `beats` beats."""

    def __init__(self, beats):
        self._left = beats

    def wait(self, _):
        self._left -= 1
        return self._left < 0

    def is_set(self):
        return False


def test_a_lock_of_another_machine_is_taken_over_when_it_is_stale_and_its_job_then_leaves(s3, monkeypatch):
    folder = at(f"{s3}/run")
    left: list[str] = []
    monkeypatch.setattr(run_lock, "_place", lambda: "another machine")
    first = run_lock._ObjectLock(folder)
    first.acquire()
    monkeypatch.setattr(run_lock, "_place", lambda: "this machine")
    second = run_lock._ObjectLock(folder)
    with pytest.raises(RunFolderError, match="a dead job's folder is free again 60 s after"):
        second.acquire()
    first.beat(Beats(2), left.append)
    assert json.loads((folder / "lock.json").read_text())["beat"] == 3
    assert not left

    monkeypatch.setattr(run_lock, "STALE_S", -1.0)
    second.acquire()
    first.beat(Beats(1), left.append)
    assert "another job has taken over s3://bucket/run" in left[0]
    first.release()
    assert (folder / "lock.json").exists(), "who was taken over from may not let go of it"
    second.release()
    assert not (folder / "lock.json").exists()


def test_a_bucket_that_may_only_be_read_holds_no_run(s3, s3_proxy):
    s3_proxy.denied = {"PUT"}
    with (
        pytest.raises(StorageError, match=r"^run=s3://bucket/run: S3 refuses these credentials; .*$"),
        lock_run(at(f"{s3}/run")),
    ):
        pass


def test_a_commit_that_a_kill_cut_in_two_is_taken_for_done(s3):
    """Uses Ray Data's own cleanup, which would consider pending files uncommitted, although their ids are there."""
    run = RunFolder(f"{s3}/run")
    for name in ("done.parquet", "done.pending.parquet", "open.pending.parquet"):
        write_bytes(run.rewrites_done / name, b"")
    for name in ("done_000.parquet", "open_000.parquet"):
        write_bytes(run.rewrites / name, b"")
    job = EngineJob(
        "rewrite", EngineActor, run.problems, run.rewrites, run.rewrites_done, run.quarantine, 1, EngineConfig()
    )
    job._end_half_commits()
    (files, ids), (_, rows) = arrow(run.rewrites_done), arrow(run.rewrites)
    checkpoint_filter._clean_pending_checkpoints_task._function(ids, files, rows, files)
    assert [path.name for path in parquet_files(run.rewrites)] == ["done_000.parquet"]
    assert [path.name for path in parquet_files(run.rewrites_done)] == ["done.parquet"]


@pytest.mark.parametrize(
    ("setting", "change", "run", "told"),
    [
        ("run", {}, "s3://nowhere/run", "run=s3://nowhere/run: there is no such bucket; make it, or name another"),
        ("data.path", {}, "s3://nowhere/p.jsonl", "data.path=s3://nowhere/p.jsonl: there is no such bucket"),
        (
            "run",
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
            "s3://bucket/run",
            "run=s3://bucket/run: there are no credentials for S3; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        (
            "model.path",
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            "s3://bucket/run",
            "model.path=s3://bucket/run: S3 cannot be reached, also after several tries; are AWS_ENDPOINT_URL and the network",
        ),
    ],
    ids=["bucket", "data", "credentials", "endpoint"],
)
def test_what_is_wrong_with_s3_is_one_line_before_ray_starts(s3, monkeypatch, setting, change, run, told):
    for name, value in change.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    at(run).fs.clear_instance_cache()
    look = {
        "run": lambda: check_reachable(RunFolder(run).path, "run"),
        "data.path": lambda: existing_files(DataConfig(path=[run]), "data.path"),
        "model.path": lambda: resolve_model(ModelConfig(path=run)),
    }[setting]
    with pytest.raises(StorageError) as error:
        look()
    assert str(error.value).startswith(told)
    assert "\n" not in str(error.value)


def test_an_url_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match=r"run=gs://bucket/run is not a place that offsft can use"):
        RunFolder("gs://bucket/run")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "When reading information for key 'k' in bucket 'b': AWS Error NO_SUCH_BUCKET during HeadObject",
            "no such bucket",
        ),
        (
            "When uploading: AWS Error ACCESS_DENIED during PutObject operation: Access Denied",
            "refuses these credentials",
        ),
        ("AWS Error NETWORK_CONNECTION during PutObject operation: curlCode: 7", "cannot be reached"),
        ("An error occurred (SlowDown) when calling the PutObject operation", "turns requests away"),
        ("Access Denied by the model", None),
    ],
)
def test_what_pyarrow_and_botocore_say_is_understood_wherever_it_is_wrapped(text, told):
    try:
        try:
            raise OSError(text)
        except OSError as error:
            raise RuntimeError("a worker failed") from error
    except RuntimeError as error:
        found = storage_fault(error)
    assert (found is None) if told is None else (told in str(found))
