#!/usr/bin/env bash
# Makes a virtual environment in .venv (or $UNZIPLORA_VENV) with the project and the extras named
# as arguments. Sourced by demo.sh and test.sh; running it again installs nothing new.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${UNZIPLORA_VENV:-.venv}
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
# shellcheck disable=SC1091
. "$venv/bin/activate"
# A torch that is already there is kept: on a GPU you want your own build.
python -c 'import torch' 2>/dev/null || pip install --quiet "torch==${UNZIPLORA_TORCH:-2.13.0}"
pip install --quiet --editable ".[$1]"
