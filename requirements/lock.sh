#!/usr/bin/env bash
# Makes both lock files from pyproject.toml with uv, in a separate environment. torch's CPU build is looked up where
# pip is set to find wheels (PIP_FIND_LINKS), else in PyTorch's own CPU index.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch"
"$scratch/bin/pip" install --quiet uv
export UV_CUSTOM_COMPILE_COMMAND="make lock"
common=(--python-version 3.11 --no-emit-index-url --no-emit-find-links --quiet)
if [ -n "${PIP_FIND_LINKS:-}" ]; then
    torch=(--find-links "$PIP_FIND_LINKS")
else
    torch=(--extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match)
fi
"$scratch/bin/uv" pip compile pyproject.toml --extra cpu --extra demo --extra ifeval --extra dev "${common[@]}" "${torch[@]}" \
    --excludes requirements/excluded.txt -o requirements/cpu.lock
printf 'llm\nllama-cpp-python\n' >"$scratch/excluded.txt"
"$scratch/bin/uv" pip compile pyproject.toml --extra gpu --extra demo "${common[@]}" \
    --python-platform x86_64-manylinux_2_28 --excludes "$scratch/excluded.txt" -o requirements/gpu.lock
