"""Agreement with lm-evaluation-harness on GSM8K: `python -m benchmarks.lm_eval_agreement PATH [--problems 20] [--tokens 128] [--json]`.

Both use the same (embedded) model, prompt, and greedy decoding in float32. `jobs.evaluate` with vLLM and our verifier
is compared with lm-eval's `hf` model and its exact match of the last boxed answer. lm-eval is installed in a separate
environment next to the user's caches, which this command makes and which shares this one's packages. Prints:

`completions`  pairs with the same text, and for each other pair where they diverge
`verdicts`     pairs with the same verdict, and for each other pair both verdicts and the reason:
               `truncated` (here reaching the token limit counts as wrong, there the text so far is judged),
               `completion` (the texts differ), `judging` (the same text, judged in two ways)
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LM_EVAL = "lm-eval==0.4.13"
ENVIRONMENT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "offsft" / "lm-eval"
TASK = """
task: offsft_gsm8k
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: {prompt}
doc_to_target: "{{{{answer.split('####')[-1].strip()}}}}"
generation_kwargs: {{until: ["<|im_end|>"], do_sample: false, temperature: 0.0, max_gen_toks: {tokens}}}
filter_list:
  - name: boxed
    filter:
      - {{function: regex, regex_pattern: '\\\\boxed\\{{([^{{}}]*)\\}}', group_select: -1}}
      - {{function: take_first}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true, regexes_to_ignore: [',', '\\$']}}
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion and its verdict; `finished` is None if unknown."""

    text: str
    correct: bool
    finished: bool | None = None


def environment() -> Path:
    """The interpreter of the environment with lm-eval, made on first use."""
    python = ENVIRONMENT / "bin" / "python"
    made = ENVIRONMENT / LM_EVAL
    if not made.exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        site = ENVIRONMENT / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        (site / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", LM_EVAL], check=True)
        made.touch()
    return python


def theirs(folder: Path, rows: Path, model: Path, prompt: str, tokens: int) -> dict[str, Answer]:
    """lm-eval's answers by question."""
    task = TASK.format(rows=json.dumps(str(rows)), prompt=json.dumps(prompt), tokens=tokens)
    (folder / "offsft_gsm8k.yaml").write_text(task)
    arguments = ["--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--tasks", "offsft_gsm8k"]
    arguments += ["--include_path", str(folder), "--apply_chat_template", "--batch_size", "8", "--device", "cpu"]
    arguments += ["--log_samples", "--output_path", str(folder / "theirs")]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    run([environment(), "-m", "lm_eval", *arguments], offline)
    (samples,) = (folder / "theirs").rglob("samples_*.jsonl")
    found = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    return {each["doc"]["question"]: Answer(each["resps"][0][0], bool(each["exact_match"])) for each in found}


def ours(folder: Path, rows: Path, tokens: int) -> dict[str, Answer]:
    """`jobs.evaluate`'s answers by question."""
    import pyarrow.dataset

    suite = {"gsm8k_slice": {"file": str(rows), "problem": "question", "answer_form": "hashes"}}
    (folder / "slice.yaml").write_text(json.dumps(suite))
    settings = [f"suites=[{folder / 'slice.yaml'}]", "model=embedded", "temperature=0", f"max_tokens={tokens}"]
    settings += ["model.dtype=float32", f"run={folder / 'ours'}"]
    run([sys.executable, "-m", "jobs.evaluate", *settings], dict(os.environ))
    answers = pyarrow.dataset.dataset(folder / "ours" / "evaluation" / "embedded", format="parquet").to_table()
    return {
        row["problem"]: Answer(sample["response"], sample["outcome"] == "correct", sample["outcome"] != "truncated")
        for row in answers.to_pylist()
        for sample in row["samples"]
    }


def run(command: list[Any], variables: dict[str, str]) -> None:
    """Run a command in the repository's root; its output is shown if it fails."""
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}\n{done.stderr}"[-4000:])


def compare(here: dict[str, Answer], there: dict[str, Answer]) -> dict[str, Any]:
    """The pairs that agree, and each other pair with its reason."""
    completions, verdicts = [], []
    for question in sorted(here.keys() & there.keys()):
        one, other = here[question], there[question]
        texts = one.text.strip(), other.text.strip()
        if texts[0] != texts[1]:
            part = next((n for n, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
            completions.append(
                {"question": question[:60], "at": part, "ours": texts[0][part:][:40], "theirs": texts[1][part:][:40]}
            )
        if one.correct is not other.correct:
            reason = "completion" if texts[0] != texts[1] else "judging" if one.finished else "truncated"
            verdicts.append(
                {
                    "question": question[:60],
                    "ours": one.correct,
                    "theirs": other.correct,
                    "reason": reason,
                    "end": texts[0][-80:],
                }
            )
    return {
        "problems": len(here.keys() & there.keys()),
        "same_completions": len(here) - len(completions),
        "same_verdicts": len(here) - len(verdicts),
        "correct": {"ours": sum(a.correct for a in here.values()), "theirs": sum(a.correct for a in there.values())},
        "other_completions": completions,
        "other_verdicts": verdicts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("path", type=Path, metavar="PATH", help="gsm8k_test.jsonl")
    parser.add_argument("--problems", type=int, default=20, help="the first so many problems")
    parser.add_argument("--tokens", type=int, default=128, help="longest answer")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if not arguments.path.is_file():
        parser.error(f"{arguments.path} is not a file; give the path of gsm8k_test.jsonl")
    from offsft.config import PromptConfig
    from offsft.demo.model import embedded_model

    with tempfile.TemporaryDirectory(prefix="offsft-lm-eval-") as name:
        folder = Path(name)
        rows = folder / "rows.jsonl"
        lines = arguments.path.read_text(encoding="utf-8").splitlines(keepends=True)
        rows.write_text("".join(lines[: arguments.problems]), encoding="utf-8")
        prompt = PromptConfig().plain.replace("{problem}", "{{question}}")
        here = ours(folder, rows, arguments.tokens)
        result = compare(here, theirs(folder, rows, embedded_model(), prompt, arguments.tokens))
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"completions: {result['same_completions']} of {result['problems']} the same")
    for each in result["other_completions"]:
        print(f"  {each['question']!r}: after {each['at']} characters {each['ours']!r} here, {each['theirs']!r} there")
    print(f"verdicts: {result['same_verdicts']} of {result['problems']} the same; correct {result['correct']}")
    for each in result["other_verdicts"]:
        print(
            f"  {each['question']!r}: {each['ours']} here, {each['theirs']} there ({each['reason']}): {each['end']!r}"
        )


if __name__ == "__main__":
    main()
