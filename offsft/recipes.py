"""Recipes from files and command lines: reading, overriding, explaining what is wrong, and describing every setting."""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from offsft.config import Data, Evaluate, Recipe
from offsft.errors import ConfigError
from offsft.strict import Strict


def load(path: Path | None, overrides: list[str]) -> Recipe:
    """Read a recipe from YAML and apply `key.sub=value` overrides, whose values are YAML too.

    Raises:
        ConfigError: naming the key, the value and what to do.
    """
    tree = _read_yaml(path) if path else {}
    for override in overrides:
        _apply(tree, override)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(e, tree) for e in error.errors())) from None


def evaluation_settings(path: Path | None, overrides: list[str]) -> list[str]:
    """The short forms of `jobs.evaluate` as full settings: `suites=[gsm8k]` is `evaluate.suites=[gsm8k]`.

    `model=` is `evaluate.models=`, of one model or a list; without a recipe and run=, the run is `runs/evaluate`.
    """
    listed = [
        f"model=[{text}]" if key == "model" and not text.startswith("[") else override
        for override in overrides
        for key, _, text in [override.partition("=")]
    ]
    return _in_section("evaluate", Evaluate, {"model": "evaluate.models"}, path, listed)


def contamination_settings(path: Path | None, overrides: list[str]) -> list[str]:
    """The short forms of `jobs.contamination`: settings of `data`, and `suites=` for `data.exclude_suites=`."""
    return _in_section("data", Data, {"suites": "data.exclude_suites"}, path, overrides)


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


def _read_yaml(path: Path, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """A recipe's settings, over those of the recipe that it `extends`."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"recipe {path} does not exist; recipes that come with offsft are in jobs/recipes/") from None
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
    return _merged(_read_yaml(path.parent / base, (*above, path.name)), tree)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Sections setting by setting; what has a `kind` is one setting."""
    both = dict(base)
    for key, value in over.items():
        old = both.get(key)
        mergeable = isinstance(value, dict) and isinstance(old, dict) and "kind" not in value
        both[key] = _merged(old, value) if mergeable else value  # type: ignore[arg-type]
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
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{key}: {parent} is not a section, so it has no setting {last}")
        node = child
    node[last] = value


def _explain(error: Any, tree: dict[str, Any]) -> str:
    """One line for one validation error: the key's path, the value, what to do."""
    path = [str(part) for part in error["loc"]]
    # Discriminated unions put the chosen kind into the path; it is not a key.
    keys = [part for i, part in enumerate(path) if not (i and path[i - 1] == "objective" and part != "kind")]
    key = ".".join(keys)
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, [name for name, *_ in describe()], n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]}?" if close else "; --help lists all settings"
        return f"{key}={error['input']!r}: there is no such setting{hint}"
    if error["type"] == "missing":
        return f"{key} is not set; add `{key}: ...` to the recipe or {key}=... to the command"
    if "error" in error.get("ctx", {}) and isinstance(error["ctx"]["error"], ConfigError):
        return str(error["ctx"]["error"])
    return f"{key}={error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def describe(model: type[Strict] = Recipe, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Every setting as (key, type, default, documentation), in the order of declaration."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, Strict):
            yield from describe(field.annotation, f"{key}.")
            continue
        union = [arm for arm in get_args(field.annotation) if isinstance(arm, type) and issubclass(arm, Strict)]
        union = [arm for arm in union if "kind" in arm.model_fields]
        default = "required" if field.is_required() else _show(field.get_default())
        kinds = " | ".join(arm.model_fields["kind"].default for arm in union)
        yield (f"{key}.kind" if union else key, kinds or _type_name(field), default, field.description or "")
        yield from _describe_arms(union, key)


def _describe_arms(union: list[type[Strict]], key: str) -> Iterator[tuple[str, str, str, str]]:
    """The settings of a union's kinds; one that several kinds have is one setting with several meanings."""
    found: dict[str, list[tuple[str, FieldInfo]]] = {}
    for arm in union:
        for name, field in arm.model_fields.items():
            if name != "kind":
                found.setdefault(name, []).append((arm.model_fields["kind"].default, field))
    for name, owners in found.items():
        types = " or ".join(dict.fromkeys(_type_name(field) for _, field in owners))
        defaults = [f"{_show(field.get_default())} ({kind})" for kind, field in owners]
        default = ", ".join(defaults) if len(owners) > 1 else _show(owners[0][1].get_default())
        documentation = " ".join(f"For {kind}: {field.description or ''}" for kind, field in owners)
        yield f"{key}.{name}", types, default, documentation


def _show(value: Any) -> str:
    if isinstance(value, Strict):
        return str(getattr(value, "kind", getattr(value, "name", value)))
    if isinstance(value, list) and any(isinstance(item, Strict) for item in value):
        return ", ".join(_show(item) for item in value)
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        value = list(value)
    return json.dumps(value)


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
