"""The page of families is that of this version of transformers, and a handful of its rows are as it says."""

import re
from pathlib import Path

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from benchmarks.families import TREATMENTS, page, treatment_of

PAGE = (Path(__file__).parents[2] / "docs" / "families.md").read_text()


def families_of(text):
    """Each family's treatment, as a page says."""
    parts = re.split(r"^## (.+)$", text, flags=re.M)[1:]
    sections = dict(zip((title.lower() for title in parts[::2]), parts[1::2], strict=True))
    assert tuple(sections) == TREATMENTS
    found = dict.fromkeys(re.findall(r"[\w-]+", sections.pop("packed")), "packed")
    for treatment, section in sections.items():
        found |= dict.fromkeys(re.findall(r"^\| ([\w-]+) \|", section, re.M), treatment)
    return {family: treatment for family, treatment in found.items() if family not in ("family", "---")}


def test_the_page_has_every_family_that_transformers_knows():
    assert families_of(PAGE).keys() == set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def test_a_page_says_what_was_found():
    results = [{"family": name, "treatment": how, "why": "a | b"} for name, how in zip("abcd", TREATMENTS, strict=True)]
    assert families_of(page(results)) == dict(zip("abcd", TREATMENTS, strict=True))


@pytest.mark.parametrize("family", ["llama", "phi", "gpt2", "gpt_oss", "mamba", "bloom", "bert", "musicgen"])
def test_a_family_is_treated_as_the_page_says(family):
    assert treatment_of(family)["treatment"] == families_of(PAGE)[family]
