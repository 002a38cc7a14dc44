"""Which files behind a path are read as problems: data files only, and never a split that nobody asked for."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from offsft.config import DataConfig, EvaluateConfig
from offsft.data.files import existing_files, read_rows, skipped_files
from offsft.data.splits import is_of_split, split_of
from offsft.errors import ConfigError, DataError


def rows_of(split, count=2):
    return [{"problem": f"{split} {number}", "solution": "\\boxed{1}"} for number in range(count)]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def names(path, section="data.path", settings=DataConfig, **more):
    return [os.path.basename(file) for file in existing_files(settings(path=str(path), **more), section)]


@pytest.fixture
def hub(tmp_path):
    """A data set's folder as the hub lays it out, downloaded with its metadata."""
    folder = tmp_path / "hub"
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        write(folder / "data" / f"{name}.parquet", rows_of(name.partition("-")[0]))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / ".gitattributes").write_text("*.parquet filter=lfs\n")
    write(folder / ".cache" / "huggingface" / "download" / "x.jsonl", [{"a": 1}])
    (folder / "dataset_infos.json").write_text("{}")
    return folder


def test_a_folder_with_train_and_test_takes_neither_unasked(hub):
    with pytest.raises(
        ConfigError, match=r"the splits test and train .*data/test-00000.*data\.split=train.*data\.files"
    ):
        names(hub)
    with pytest.raises(ConfigError, match=r"data\.split=train"):
        names(f"{hub}/data/*.parquet")
    with pytest.raises(ConfigError, match=r"evaluate\.split=test"):
        names(hub, "evaluate.path", EvaluateConfig)


def test_a_split_is_read_where_it_is_named(hub):
    train = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert names(hub, split="train") == names(hub, files=["train-*"]) == names(hub, files=["data/train*"]) == train
    assert names(f"{hub}/data/train-*.parquet") == train
    assert names(hub, "evaluate.path", EvaluateConfig, split="test") == ["test-00000-of-00001.parquet"]
    assert names(hub / "data" / "test-00000-of-00001.parquet") == ["test-00000-of-00001.parquet"]
    with pytest.raises(ConfigError, match=r"data\.split=dev: no file of .* it holds data/test-00000"):
        names(hub, split="dev")
    with pytest.raises(ConfigError, match=r"data\.files=none-\* fits no file"):
        names(hub, files=["none-*"])


def test_metadata_hidden_files_and_a_readme_are_no_rows(hub):
    skipped = [
        os.path.relpath(file, hub) for file in skipped_files(DataConfig(path=str(hub), split="train"), "data.path")
    ]
    assert skipped == [
        ".cache/huggingface/download/x.jsonl",
        ".gitattributes",
        "README.md",
        "data/test-00000-of-00001.parquet",
        "dataset_infos.json",
    ]


@pytest.mark.parametrize(
    "layout",
    [
        ["train.jsonl", "validation.jsonl"],
        ["train/a.jsonl", "test/a.jsonl"],
        ["main/train-00000-of-00001.parquet", "main/test-00000-of-00001.parquet"],
        ["gsm8k_train.jsonl", "gsm8k_test.jsonl"],
        ["math.jsonl", "math-dev.jsonl"],
        ["2024/eval.jsonl", "2024/train.jsonl"],
        ["train_sft-00000-of-00001.parquet", "test_sft-00000-of-00001.parquet"],
        ["test.jsonl"],
    ],
)
def test_no_test_split_of_a_folder_is_trained_on_silently(tmp_path, layout):
    for name in layout:
        write(tmp_path / name, rows_of(name))
    with pytest.raises(ConfigError, match=r"none is taken unasked: say which with data\.split="):
        names(tmp_path)


@pytest.mark.parametrize(
    "layout",
    [
        ["a.jsonl", "b.jsonl"],
        ["train.jsonl", "more.jsonl"],
        ["attest.jsonl", "latest.jsonl", "contest.jsonl", "devices.jsonl"],
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
    ],
)
def test_names_that_tell_no_held_out_split_are_all_read(tmp_path, layout):
    for name in layout:
        write(tmp_path / name, rows_of(name))
    assert names(tmp_path) == sorted(layout)


def test_a_held_out_folder_is_read_as_held_out(tmp_path):
    write(tmp_path / "test.jsonl", rows_of("test"))
    assert names(tmp_path, "evaluate.path", EvaluateConfig) == ["test.jsonl"]
    assert names(tmp_path, split="test") == ["test.jsonl"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("test/train.jsonl", "train"),
        ("validation/part-0.jsonl", "validation"),
        ("val.json", "validation"),
        ("gsm8k_test.jsonl.gz", "test"),
        ("TEST.csv", "test"),
        ("contest.jsonl", None),
        ("train_test.jsonl", None),
    ],
)
def test_the_split_that_a_name_tells(name, split):
    assert split_of(name) == split


def test_a_split_with_a_name_of_its_own():
    shards = ["data/train_sft-00000-of-00003.parquet", "data/train_gen-00000-of-00003.parquet", "data/cot.jsonl"]
    assert [is_of_split(each, "train_sft") for each in shards] == [True, False, False]
    assert [is_of_split(each, "train") for each in shards] == [True, True, False]
    assert [is_of_split(each, "cot") for each in shards] == [False, False, True]


def test_a_folder_of_save_to_disk_has_a_split_too(tmp_path):
    datasets = pytest.importorskip("datasets")
    both = {split: datasets.Dataset.from_list(rows_of(split)) for split in ("train", "test")}
    datasets.DatasetDict(both).save_to_disk(tmp_path / "saved")
    with pytest.raises(ConfigError, match="the splits test and train"):
        names(tmp_path / "saved")
    (file,) = existing_files(DataConfig(path=str(tmp_path / "saved"), split="train"), "data.path")
    assert [json.loads(raw)["problem"] for _, raw in read_rows(file)] == ["train 0", "train 1"]
    assert names(tmp_path / "saved" / "train") == ["data-00000-of-00001.arrow"]


def test_a_data_set_of_the_hub_is_named_with_its_split(hub, monkeypatch, tmp_path):
    pytest.importorskip("datasets")
    hub.rename(tmp_path / "name")
    (tmp_path / "owner").mkdir()
    (tmp_path / "name").rename(tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)  # `datasets` takes a folder of that name for the data set
    with pytest.raises(ConfigError, match=r"hf://owner/name holds the splits train, test; .*data\.split="):
        existing_files(DataConfig(path="hf://owner/name"), "data.path")
    with pytest.raises(ConfigError, match=r"data\.split=dev: .* it has train, test"):
        existing_files(DataConfig(path="hf://owner/name", split="dev"), "data.path")
    files = existing_files(DataConfig(path="hf://owner/name", split="train"), "data.path")
    read = [json.loads(raw)["problem"] for file in files for _, raw in read_rows(file)]
    assert sorted(read) == ["train 0", "train 0", "train 1", "train 1"]


def test_a_wrong_name_of_a_hub_data_set_is_one_line(monkeypatch):
    with pytest.raises(ConfigError, match="write hf://owner/name"):
        existing_files(DataConfig(path="hf://name"), "data.path")


def test_home_and_patterns_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a.jsonl", "b.jsonl", "b.txt"):
        write(tmp_path / "d" / name, rows_of(name))
    assert names("~/d/*.jsonl") == names("~/d") == ["a.jsonl", "b.jsonl"]
    assert names("~/d/b.*") == ["b.jsonl"]
    assert names("~/d/*.txt") == ["b.txt"]
    monkeypatch.chdir(tmp_path)
    assert names("d/[ab].jsonl") == ["a.jsonl", "b.jsonl"]
    (tmp_path / "d=1").mkdir()
    write(tmp_path / "d=1" / "a.jsonl", rows_of("a"))
    assert names("d=1/*.jsonl") == ["a.jsonl"]


def test_a_folder_without_data_says_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds no data file .*but notes\.txt; .*data\.files=\[PATTERN\]"):
        names(tmp_path)
    assert names(tmp_path, files=["*.txt"]) == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        names(tmp_path / "empty")
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(DataError, match="is empty"):
        names(tmp_path / "none.jsonl")


def test_a_link_to_a_file_keeps_its_name(tmp_path):
    write(tmp_path / "blobs" / "abc", rows_of("a"))
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "train.jsonl").symlink_to(tmp_path / "blobs" / "abc")
    (tmp_path / "linked").symlink_to(tmp_path / "snapshot")
    assert names(tmp_path / "snapshot") == names(tmp_path / "linked") == ["train.jsonl"]


def test_two_configurations_of_a_data_set_are_not_mixed(tmp_path):
    for config in ("main", "socratic"):
        for split in ("train", "test"):
            write(tmp_path / config / f"{split}-00000-of-00001.parquet", rows_of(f"{config} {split}"))
    with pytest.raises(
        ConfigError, match=r"several configurations of a data set \(main, socratic\); .*data\.files=\[main/\*\]"
    ):
        names(tmp_path, split="train")
    files = existing_files(DataConfig(path=str(tmp_path), split="train", files=["main/*"]), "data.path")
    assert [os.path.relpath(file, tmp_path) for file in files] == ["main/train-00000-of-00001.parquet"]
    assert names(tmp_path / "socratic", split="train") == ["train-00000-of-00001.parquet"]
