"""The folders of compiled code, and the effects of a compiler that is killed or missing."""

import os
import shutil
import signal
import subprocess
import sysconfig
import time

import pytest

from offsft.runtime.compiled_code import (
    compiled_folder,
    drop_half_written,
    is_compiled,
    prepare_compiling,
    whole_file_compiler,
)

SLOW = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
printf half >"$2"
touch {started}
sleep 60
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for compiled code in a separate cache, without compiler variables in the environment."""
    monkeypatch.setenv("OFFSFT_HOME", str(tmp_path / "home"))
    for name in ("CXX", "TORCH_COMPILE_DISABLE", "TORCHINDUCTOR_CACHE_DIR", "VLLM_CACHE_ROOT"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")  # so that what the test sets is undone
        monkeypatch.delenv(name)
    return compiled_folder()


@pytest.fixture
def compiler(folder):
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ here")
    return whole_file_compiler(folder)


def compile_with(compiler, source, *options):
    return subprocess.run([compiler, *options, str(source)], capture_output=True, text=True, timeout=60)


def test_the_folder_names_versions_and_machine(folder, monkeypatch):
    assert folder.name.startswith("torch-2.13.0")
    assert "-deepspeed-" in folder.name
    assert "-py311-" in folder.name
    monkeypatch.setattr("offsft.runtime.compiled_code._machine", lambda: "another")
    assert compiled_folder() != folder


def test_a_program_is_compiled_under_its_name_and_nothing_else_is_left(compiler, tmp_path):
    source, target = tmp_path / "a b.cpp", tmp_path / "out" / "pro gram"
    source.write_text("int main() { return 3; }")
    target.parent.mkdir()
    assert compile_with(compiler, source, "-o", str(target)).returncode == 0
    assert subprocess.run([target]).returncode == 3
    assert os.listdir(target.parent) == [target.name]


def test_dependencies_name_the_target(compiler, tmp_path):
    source, target = tmp_path / "a.cpp", tmp_path / "a.o"
    source.write_text("int a;")
    assert compile_with(compiler, source, "-MMD", "-MF", f"{target}.d", "-c", "-o", str(target)).returncode == 0
    assert (tmp_path / "a.o.d").read_text().startswith(f"{target}:")


def test_an_error_is_the_compilers_own_and_leaves_nothing(compiler, tmp_path):
    source, target = tmp_path / "a.cpp", tmp_path / "a.o"
    source.write_text("no C++")
    done = compile_with(compiler, source, "-c", "-o", str(target))
    assert done.returncode == 1
    assert "a.cpp:1:1: error" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["a.cpp", "home"]


def test_without_a_target_the_compiler_is_as_it_was(compiler):
    assert compile_with(compiler, "--version").stdout == compile_with("g++", "--version").stdout


def test_a_compiler_that_is_killed_leaves_no_target(compiler, folder, tmp_path, monkeypatch):
    started, target, source = tmp_path / "started", tmp_path / "a.o", tmp_path / "a.cpp"
    slow = tmp_path / "slow" / "g++"
    slow.parent.mkdir()
    slow.write_text(SLOW.format(started=started))
    slow.chmod(0o755)
    monkeypatch.setenv("CXX", str(slow))
    script = whole_file_compiler(folder)
    source.write_text("int a;")
    with subprocess.Popen([script, "-c", str(source), "-o", str(target)], start_new_session=True) as killed:
        while not started.exists():
            time.sleep(0.01)
        os.killpg(killed.pid, signal.SIGKILL)
    assert not target.exists()
    monkeypatch.setenv("CXX", "g++")
    assert compile_with(whole_file_compiler(folder), source, "-c", "-o", str(target)).returncode == 0
    assert target.stat().st_size > len("half")


def test_the_compiler_and_the_cache_are_in_the_folder(compiler, folder):
    prepare_compiling(gpus=False)
    assert os.environ["CXX"] == str(folder / "bin" / "g++")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder / "inductor")
    assert "TORCH_COMPILE_DISABLE" not in os.environ
    before = dict(os.environ)
    prepare_compiling(gpus=False)  # as in a child process
    assert dict(os.environ) == before


def test_what_the_user_has_set_stays_and_torchs_own_choice_does_not(compiler, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "mine"))
    prepare_compiling(gpus=False)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "mine")
    monkeypatch.setattr("offsft.runtime.compiled_code._TORCHS_CHOICE", str(tmp_path / "mi"))
    prepare_compiling(gpus=False)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder / "inductor")


@pytest.mark.parametrize("missing", ["compiler", "headers", "right to write"])
def test_where_nothing_can_be_compiled_torch_does_not_try(folder, monkeypatch, tmp_path, capfd, missing):
    match missing:
        case "compiler":
            monkeypatch.setenv("PATH", str(tmp_path))
        case "headers":
            monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path / "nothing"))
        case _:
            folder.parent.parent.mkdir(parents=True)
            folder.parent.write_text("a file where a folder belongs")
    prepare_compiling(gpus=False)
    assert os.environ["TORCH_COMPILE_DISABLE"] == "1"
    assert "CXX" not in os.environ
    assert capfd.readouterr().err.startswith("nothing can be compiled here")


def test_an_engine_on_gpus_has_its_cache_in_the_folder_too(folder, monkeypatch):
    monkeypatch.setenv("VLLM_CACHE_ROOT", "")
    monkeypatch.delenv("VLLM_CACHE_ROOT")
    prepare_compiling(gpus=True)
    assert os.environ["VLLM_CACHE_ROOT"] == str(folder / "vllm")
    assert "CXX" not in os.environ


WHOLE = "{((1, 8192), 0, 'inductor'): {'graph_handle': ('a', 'b'), 'cache_key': 'c'}}"


@pytest.mark.parametrize(
    ("name", "content", "stays"),
    [
        ("torch_compile_cache/1a2b/rank_0_0/backbone/vllm_compile_cache.py", WHOLE, True),
        ("torch_compile_cache/1a2b/rank_0_0/backbone/vllm_compile_cache.py", WHOLE[:40], False),
        ("torch_compile_cache/1a2b/rank_1_0/backbone/vllm_compile_cache.py", "", False),
        ("torch_compile_cache/1a2b/rank_0_0/backbone/computation_graph.py", "half(", True),
        ("gpu_p2p_access_cache_for_0,1.json", '{"0->1": true}', True),
        ("gpu_p2p_access_cache_for_0,1.json", '{"0->1": tr', False),
        ("gpu_p2p_access_cache_for_0,1.json", "", False),
    ],
)
def test_what_a_killed_vllm_wrote_by_half_is_made_again(tmp_path, name, content, stays):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    drop_half_written(tmp_path)
    assert path.exists() is stays
    drop_half_written(tmp_path / "nothing")


def test_the_first_engine_of_a_machine_compiles_and_the_next_does_not(folder):
    assert not is_compiled(gpus=False)
    assert not is_compiled(gpus=True)
    (folder / "inductor").mkdir(parents=True)
    (folder / "vllm" / "torch_compile_cache" / "0a1b").mkdir(parents=True)
    assert is_compiled(gpus=False)
    assert is_compiled(gpus=True)


def test_nothing_is_compiled_where_compiling_is_off(folder, monkeypatch):
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    assert is_compiled(gpus=False)
