"""Adapters in the routing: what is served, on whose engine, and what is refused before anything changes. No Ray runs."""

import json
from types import SimpleNamespace

import pytest

from offsft.errors import ConfigError
from services import deploy
from services.settings import Routing, validate

BASE = {"name": "base", "path": "embedded", "application": "generator-base"}


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8}))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def cluster(monkeypatch):
    """A Serve that runs one model; a function that gives its routing."""
    state = {
        "applications": [
            {
                "name": "gateway",
                "deployments": [{"name": "Gateway", "user_config": {"default": "base", "models": [BASE]}}],
            },
            {"name": "generator-base", "args": {"name": "base", "path": "embedded", "adapters": {"rank": 16}}},
        ]
    }
    monkeypatch.setattr(deploy, "_current", lambda: state)
    monkeypatch.setattr(deploy, "submit", state.update)
    monkeypatch.setattr(deploy, "_until", lambda condition: None)
    monkeypatch.setattr(deploy, "serve", SimpleNamespace(get_deployment_handle=lambda *args, **more: None))
    return lambda: validate(Routing, deploy._routing(state), "routing")


def test_an_adapter_is_served_by_its_bases_engine_replaced_and_taken_away(cluster, adapter, tmp_path):
    said = []
    deploy.switch_adapter(str(adapter), "mine", None, said.append)
    base, mine = cluster().models
    assert (mine.name, mine.adapter, mine.base, mine.application) == ("mine", str(adapter), "base", base.application)
    assert said == [f"mine is served from {adapter} at revision {deploy.fingerprint(str(adapter))}"]
    other = adapter.rename(tmp_path / "other")
    deploy.switch_adapter(str(other), "mine", None, said.append)
    assert [model.adapter for model in cluster().models] == [None, str(other)]
    deploy.switch_adapter("", "mine", None, said.append)
    assert [model.name for model in cluster().models] == ["base"]


def test_weights_with_adapters_on_them_are_not_replaced_under_them(cluster, adapter, tiny_model):
    deploy.switch_adapter(str(adapter), "mine", None, print)
    with pytest.raises(ConfigError, match=r"base has the adapters mine, .* take them away first"):
        deploy.switch(tiny_model, "base", print, print)


@pytest.mark.parametrize(
    ("change", "name", "base", "message"),
    [
        ({"r": 64}, "mine", None, r"has rank 64, and base takes 16: raise `adapters\.rank`"),
        (
            {"r": 8, "target_modules": ["q_proj", "model.lm_head"]},
            "mine",
            None,
            r"changes the layers lm_head, .*`adapters\.targets`",
        ),
        (None, "mine", None, r"adapter_config\.json cannot be read"),
        ({"r": 8}, "base", None, "base is a model of its own"),
        ({"r": 8}, "mine", "other", "no model 'other' is served; there are base"),
    ],
)
def test_an_adapter_that_cannot_be_served_is_refused(cluster, adapter, change, name, base, message):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(change)) if change else file.unlink()
    with pytest.raises(ConfigError, match=message):
        deploy.switch_adapter(str(adapter), name, base, print)
    assert [model.name for model in cluster().models] == ["base"]


def test_an_engine_without_room_says_how_to_make_some(adapter):
    with pytest.raises(ConfigError, match=r"base was started without room for adapters; add `adapters: \{\}`"):
        deploy.check_adapter(str(adapter), None, "base")


def test_a_routing_names_the_base_of_each_adapter():
    rider = BASE | {"name": "mine", "adapter": "a", "base": "nobody"}
    with pytest.raises(ConfigError, match="the adapter mine needs base and application of a served model: base"):
        validate(Routing, {"default": "base", "models": [BASE, rider]}, "routing")
