"""Tries a recipe without starting anything: its input, prompts, lengths, vocabulary, training and export, in seconds."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from offsft.config import Recipe
from offsft.errors import ModelError, OffsftError
from offsft.models import MODEL_LAST, description_of, longest_sequence, policy_name, position_limit, resolve_model
from offsft.pipeline.checks import check_input, needs_policy
from offsft.prompts import Prompts, load_prompts
from offsft.records import Finding, Problem
from offsft.runtime.console import Console
from offsft.storage.paths import is_folder
from offsft.storage.run_folder import RunFolder

_PROBLEM = Problem("check", "What is 2 + 3?", "2 + 3 = 5", "5")


def check_recipe(recipe: Recipe, stages: Sequence[str]) -> list[Finding]:
    """Everything that can be found about these stages of a recipe before they start; weights need not be there."""
    findings: list[Finding] = []
    try:
        check_input(recipe, RunFolder(recipe.run), stages, weights=False)
    except OffsftError as error:
        findings.append(Finding("input", True, str(error)))
    if not needs_policy(recipe, stages):
        return findings
    model: str | None = None
    try:
        model = resolve_model(recipe.model)
    except OffsftError as error:
        described = Path(recipe.model.path, MODEL_LAST).is_file()
        findings.append(Finding("weights", not described, str(error)))
        model = str(Path(recipe.model.path).resolve()) if described else None
    return [*findings, *(check_model(recipe, model, stages) if model else [])]


def refuse_what_stops(recipe: Recipe, model: str, stages: Sequence[str], console: Console) -> None:
    """Check the model and say each finding, at a job's start.

    Raises:
        ModelError: something would stop one of the stages.
    """
    findings = check_model(recipe, model, stages)
    for finding in findings:
        if not finding.stops:
            console.say(f"note: {finding.text}")
    if stopping := [finding.text for finding in findings if finding.stops]:
        raise ModelError("; ".join(stopping))


def check_model(recipe: Recipe, model: str, stages: Sequence[str]) -> list[Finding]:
    """Findings about the model in these stages, from its files without weights.

    What would stop a training stops no stage before it, unless the training is among them.
    """
    from offsft.train.dry_run import check_training, read_config
    from offsft.train.export import Source

    revision = None if is_folder(model) else recipe.model.revision
    with description_of(model, revision) as folder:
        about = "configuration"
        try:
            config, about = read_config(folder), "template"
            prompts = load_prompts(str(folder), None, recipe.prompt, recipe.model.thinking)
            ids = _render(prompts, recipe, stages)
        except ModelError as error:
            return [Finding(about, True, str(error).replace(str(folder), recipe.model.path))]
        findings = [
            *_check_lengths(recipe, config, str(folder), stages),
            *_check_vocabulary(recipe, config, folder, ids),
        ]
        fits = not any(finding.about == "vocabulary" and finding.stops for finding in findings)
        if fits and {"train", "rewrite"} & set(stages):
            source = Source(policy_name(recipe), folder, prompts.end_of_turn)
            of_training = check_training(config, source, recipe.train)
            findings += of_training if "train" in stages else (_for_later(finding) for finding in of_training)
    return findings


def _for_later(finding: Finding) -> Finding:
    text = f"a training of this model would stop: {finding.text}" if finding.stops else finding.text
    return Finding(finding.about, False, text)


def _render(prompts: Prompts, recipe: Recipe, stages: Sequence[str]) -> list[int]:
    """All ids that prompts and a response of a small problem have."""
    ids = [*prompts.plain(_PROBLEM), *prompts.guided(_PROBLEM), *prompts.response(_PROBLEM.solution)]
    if "evaluate" in stages and recipe.evaluate.style is not None:
        ids += prompts.with_style(recipe.evaluate.style, _PROBLEM)
    return ids


def _check_lengths(recipe: Recipe, config: Any, folder: str, stages: Sequence[str]) -> Iterator[Finding]:
    from offsft.train.probe import switch_tokens

    limit, context = position_limit(folder, None), recipe.model.context_tokens
    if set(stages) - {"train"}:
        try:
            longest_sequence(folder, None, context)
        except ModelError as error:
            yield Finding("lengths", True, str(error).replace(folder, recipe.model.path))
    most = recipe.train.max_tokens
    if "train" in stages and limit is not None and most > limit:
        yield Finding(
            "lengths",
            True,
            f"train.max_tokens={most} is beyond the {limit} positions of {recipe.model.path}; set it to {limit} or less",
        )
    if "train" in stages and most < context and recipe.train.long_rows == "drop":
        yield Finding(
            "lengths",
            False,
            f"rows of more than train.max_tokens={most} tokens are dropped, and model.context_tokens={context} lets them be"
            " longer",
        )
    switch = switch_tokens(config)
    if switch is not None and recipe.engine.kind == "vllm" and context > switch and set(stages) - {"train"}:
        yield Finding(
            "lengths",
            False,
            f"{config.model_type} has other rotary positions for rows of more than {switch} tokens, which vLLM uses for all rows"
            f" with model.context_tokens={context}: the policy that samples short rows is then not the one that is trained; set"
            f" it to {switch} or less",
        )


def _check_vocabulary(recipe: Recipe, config: Any, folder: Path, ids: list[int]) -> Iterator[Finding]:
    from offsft.train.dry_run import tokens_beyond

    words = getattr(config.get_text_config(), "vocab_size", None)
    if words is None:
        return
    if max(ids) >= words:
        yield Finding(
            "vocabulary",
            True,
            f"the tokenizer of {recipe.model.path} gives id {max(ids)} for a plain prompt, and the model has {words} words:"
            " tokenizer and weights do not belong together; use those of one model",
        )
    elif beyond := tokens_beyond(folder, words):
        yield Finding(
            "vocabulary",
            False,
            f"{len(beyond)} tokens of the tokenizer have no row in the model's {words} (such as {beyond[0]!r}): a row that"
            " contains one cannot be trained on",
        )
