#!/bin/sh
# Speed of pretraining on one GPU, beside transformers' model where that is installed: sh benchmarks/gpu.sh [--help]
# Needs a Python 3.11 or later with torch 2.11 or later and numpy (PYTHON names another than python3). No network.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
"$python" - <<'CHECK' || exit 1
import importlib.util, sys
missing = [name for name in ("torch", "numpy") if importlib.util.find_spec(name) is None]
if missing:
    sys.exit(f"{sys.executable} lacks {', '.join(missing)}. Install them, or name another Python: PYTHON=... sh benchmarks/gpu.sh")
import torch
if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 11):
    sys.exit(f"torch {torch.__version__} is too old: 2.11 or later is needed.")
CHECK
exec "$python" -m benchmarks.gpu "$@"
