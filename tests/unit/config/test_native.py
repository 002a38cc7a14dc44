"""`model.dtype: auto` is the number type that the machine computes natively, settled where the recipe is read."""

import pytest

from offsft.config import ModelConfig, Recipe, native
from offsft.config.native import native_dtype

INTEL = "processor\t: 0\nflags\t\t: fpu sse2 avx512f avx512_bf16 amx_tile\n"
WITH_AMX = "flags\t\t: fpu amx_bf16\n"
ARM = "Features\t: fp asimd i8mm bf16\n"
OLDER = "flags\t\t: fpu avx2 f16c fma\nvmx flags\t: bf16\n"


def machine(tmp_path, monkeypatch, text):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(native, "_CPU_INFO", path)
    return path


@pytest.mark.parametrize(
    ("text", "dtype"), [(INTEL, "bfloat16"), (WITH_AMX, "bfloat16"), (ARM, "bfloat16"), (OLDER, "float32")]
)
def test_the_processor_decides_where_no_gpu_is_used(tmp_path, monkeypatch, text, dtype):
    machine(tmp_path, monkeypatch, text)
    assert native_dtype(gpus=False) == dtype
    assert Recipe.model_validate({"run": "r"}).model.dtype == dtype
    assert Recipe.model_validate({"run": "r", "model": {"dtype": "auto"}}).model.dtype == dtype
    assert Recipe(run="r", model=ModelConfig(context_tokens=512)).model.dtype == dtype


def test_gpus_compute_bfloat16(tmp_path, monkeypatch):
    machine(tmp_path, monkeypatch, OLDER)
    assert Recipe.model_validate({"run": "r", "engine": {"gpus": 1}}).model.dtype == "bfloat16"
    assert Recipe.model_validate({"run": "r", "train": {"gpus_per_worker": 1}}).model.dtype == "bfloat16"


def test_a_type_that_is_named_stays(tmp_path, monkeypatch):
    machine(tmp_path, monkeypatch, OLDER)
    assert Recipe.model_validate({"run": "r", "model": {"dtype": "bfloat16"}}).model.dtype == "bfloat16"
    machine(tmp_path, monkeypatch, INTEL)
    assert Recipe.model_validate({"run": "r", "model": {"dtype": "float32"}}).model.dtype == "float32"


def test_a_system_that_lists_no_instructions_computes_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "_CPU_INFO", tmp_path / "none")
    assert native_dtype(gpus=False) == "float32"
