"""Recipes from files and command lines: reading, overriding, explaining what is wrong, and describing every setting."""

import difflib
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from offsft.config import DataConfig, EvaluateConfig, Recipe
from offsft.config.base import Strict, change_by_name, index_of_name, name_of
from offsft.errors import ConfigError

_ENTRY = "<name>"
"""Placeholder in a described key for the name of a list entry, such as a stage."""


def load(path: Path | None, overrides: list[str]) -> Recipe:
    """Read a recipe from YAML and apply `key.sub=value` overrides, whose values are YAML too.

    Raises:
        ConfigError: a setting is invalid; names the key, the value and what to do.
    """
    tree = _read_yaml(path) if path else {}
    for override in overrides:
        _apply(tree, override)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(e, tree) for e in error.errors())) from None


def evaluation_settings(path: Path | None, overrides: list[str]) -> list[str]:
    """Expand the short forms of `jobs.evaluate`: `suites=[gsm8k]` becomes `evaluate.suites=[gsm8k]`.

    `model=` becomes `evaluate.models=`, for one model or a list; without a recipe and run=, the run is `runs/evaluate`.
    """
    listed = [
        f"model=[{text}]" if key == "model" and not text.startswith("[") else override
        for override in overrides
        for key, _, text in [override.partition("=")]
    ]
    return _in_section("evaluate", EvaluateConfig, {"model": "evaluate.models"}, path, listed)


def contamination_settings(path: Path | None, overrides: list[str]) -> list[str]:
    """Expand the short forms of `jobs.contamination`: settings of `data`, and `suites=` for `data.exclude_suites=`."""
    return _in_section("data", DataConfig, {"suites": "data.exclude_suites"}, path, overrides)


def _in_section(
    section: str, settings: type[Strict], aliases: dict[str, str], path: Path | None, overrides: list[str]
) -> list[str]:
    full = []
    for override in overrides:
        key, equals, text = override.partition("=")
        key = aliases.get(key) or (f"{section}.{key}" if key in settings.model_fields else key)
        full.append(f"{key}{equals}{text}")
    if path is None and not any(override.startswith("run=") for override in full):
        full.insert(0, f"run=runs/{section}")
    return full


def dump(recipe: Recipe) -> str:
    """The whole recipe, defaults included, as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by dotted name, in order; an empty mapping has none."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _read_yaml(path: Path, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """A recipe's settings, merged over those of the recipe that it `extends`."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"recipe {path} does not exist; one that comes with offsft is given by its name, such as demo"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"recipe {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"recipe {path} must be a mapping of settings, such as `run: runs/mine`")
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base, str) or path.name in above:
        raise ConfigError(f"recipe {path}: extends={base!r} must name another recipe, relative to this one")
    return _merge(_read_yaml(path.parent / base, (*above, path.name)), tree)


def _merge(base: dict[str, Any], over: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Merge section by section; a mapping with a `kind` is one setting. A mapping over a list changes it by name."""
    both = dict(base)
    for key, value in over.items():
        old = both.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and "kind" not in value:
            both[key] = _merge(old, value, f"{above}{key}.")
        elif isinstance(value, dict) and isinstance(old, list):
            both[key] = change_by_name(old, value, f"{above}{key}")
        else:
            both[key] = value
    return both


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r} is not an override; write key=value, for example train.zero_stage=3")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(
            f"the value of {override!r} is not valid YAML; quote it, for example {key}='\"...\"'"
        ) from None
    *parents, last = key.split(".")
    node: Any = tree
    for number, parent in enumerate(parents):
        above = ".".join(parents[:number])
        child = node[index_of_name(node, parent, above)] if isinstance(node, list) else node.setdefault(parent, {})
        if not isinstance(child, dict | list):
            raise ConfigError(f"{key}: {parent} is not a section, so it has no setting {last}")
        node = child
    if isinstance(node, list):
        node[:] = change_by_name(node, {last: value}, ".".join(parents))
    else:
        node[last] = value


def explain(error: Any, tree: Any, model: type[Strict] = Recipe, prefix: str = "") -> str:
    """Explain a validation error of `model`, read from `tree`, in one line: the key's path, the value, what to do."""
    names = _key_names(error["loc"], tree)
    key = prefix + ".".join(names)
    if error["type"] == "extra_forbidden":
        known = [_fill_names(name, names) for name, *_ in describe(model)]
        close = difflib.get_close_matches(".".join(names), known, n=1, cutoff=0.5)
        hint = f"; did you mean {prefix}{close[0]}?" if close else "; --help lists all settings"
        if key == f"{prefix}{close[0] if close else ''}":
            hint = "; another kind has it, this one does not"
        return f"{key}={error['input']!r}: there is no such setting{hint}"
    if error["type"] == "missing":
        return f"{key} is not set; add `{key}: ...` to the recipe or {key}=... to the command"
    if "error" in error.get("ctx", {}) and isinstance(error["ctx"]["error"], ConfigError):
        return str(error["ctx"]["error"])
    return f"{key}={error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _key_names(loc: tuple[int | str, ...], tree: Any) -> list[str]:
    """An error's path as written in a recipe: list entries by name, without the tags of unions."""
    names: list[str] = []
    node = tree
    for place, part in enumerate(loc):
        is_tag = isinstance(node, dict) and "kind" in node and part not in node and place + 1 < len(loc)
        if is_tag or (isinstance(node, dict) and isinstance(part, int)):  # a mapping by name over a list has no indices
            continue
        entry = node[part] if isinstance(node, list) and isinstance(part, int) and part < len(node) else None
        names.append(name_of(entry) or str(part))
        node = node.get(part) if isinstance(node, dict) else entry
    return names


def _fill_names(pattern: str, names: list[str]) -> str:
    """A key of `describe` with <name> replaced by the name of the list entry."""
    parts = pattern.split(".")
    return ".".join(names[i] if part == _ENTRY and i < len(names) else part for i, part in enumerate(parts))


def describe(model: type[Strict] = Recipe, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Every setting as (key, type, default, documentation), in the order of declaration."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, Strict):
            yield from describe(field.annotation, f"{key}.")
            continue
        is_list = get_origin(field.annotation) is list
        union = _kinds_of(get_args(field.annotation)[0] if is_list else field.annotation)
        default = "required" if field.is_required() else _show(field.get_default())
        kinds = " | ".join(_kind(arm) for arm in union)
        if is_list and union:
            yield key, f"list of {kinds}", default, field.description or ""
            yield from _describe_arms(union, f"{key}.{_ENTRY}")
        else:
            yield (f"{key}.kind" if union else key, kinds or _type_name(field), default, field.description or "")
            yield from _describe_arms(union, key)


def _kinds_of(annotation: Any) -> list[type[Strict]]:
    """The classes of a union discriminated by `kind`; empty for any other annotation."""
    if get_origin(annotation) is Annotated:
        return _kinds_of(get_args(annotation)[0])
    arms = [get_args(arm)[0] if get_origin(arm) is Annotated else arm for arm in get_args(annotation)]
    return [arm for arm in arms if isinstance(arm, type) and issubclass(arm, Strict) and "kind" in arm.model_fields]


def _kind(arm: type[Strict]) -> str:
    field = arm.model_fields["kind"]
    return "mypackage.module:MyClass" if field.is_required() else field.default


def _describe_arms(union: list[type[Strict]], key: str) -> Iterator[tuple[str, str, str, str]]:
    """The settings of a union's kinds; one that several kinds share is listed once, with each meaning."""
    found: dict[str, list[tuple[str, FieldInfo]]] = {}
    for arm in union:
        for name, field in arm.model_fields.items():
            if name != "kind":
                found.setdefault(name, []).append((_kind(arm), field))
    for name, owners in found.items():
        types = " or ".join(dict.fromkeys(_type_name(field) for _, field in owners))
        defaults = [f"{_show(field.get_default())} ({kind})" for kind, field in owners]
        same = len({_show(field.get_default()) for _, field in owners}) == 1
        default = _show(owners[0][1].get_default()) if same else ", ".join(defaults)
        documentation = " ".join(f"For {kind}: {field.description or ''}" for kind, field in owners)
        if len(owners) > 1 and len({field.description for _, field in owners}) == 1:
            documentation = owners[0][1].description or ""
        yield f"{key}.{name}", types, default, documentation


def _show(value: Any) -> str:
    if isinstance(value, Strict):
        return str(getattr(value, "kind", getattr(value, "name", value)))
    if isinstance(value, list) and any(isinstance(item, Strict) for item in value):
        return ", ".join(_show(item) for item in value)
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, tuple):
        value = list(value)
    return str(value) if isinstance(value, date) else json.dumps(value)


def _type_name(field: FieldInfo) -> str:
    """A short name of a field's type with its bounds, for people: `int >= 1`, `sft | dft`."""
    name = _annotation_name(field.annotation)
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [f"{sign} {getattr(m, attr)}" for m in field.metadata for attr, sign in signs.items() if hasattr(m, attr)]
    return " ".join([name, *bounds])


def _annotation_name(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(str(arg) for arg in args)
    if origin is Annotated:
        return _annotation_name(args[0])
    if origin is list:
        return f"list of {_annotation_name(args[0])}"
    if origin is dict:
        return f"mapping of {_annotation_name(args[0])} to {_annotation_name(args[1])}"
    if origin is tuple:
        return f"list of {len(args)} {_annotation_name(args[0])}"
    if args:
        return " | ".join(_annotation_name(arg) for arg in args)
    return {type(None): "null", str: "text"}.get(annotation) or getattr(annotation, "__name__", str(annotation))
