"""How the work is done: a plain library on torch, pyarrow, tokenizers, safetensors and numpy.

Nothing here imports Prefect, DVC or MLflow, so that pretraining runs on a bare GPU node.
"""

import os

# Idle OpenMP threads spin for some 20 microseconds, long enough for the next operation of a step to find them awake, and then
# sleep. torch's default (some milliseconds) makes two programs on the same cores wait for each other's spinning threads: each
# ran at a thirtieth of its speed; to sleep at once costs 8 % of a run that is alone (docs/decisions.md). GOMP is of GNU's
# library, which torch brings along; the other line is for the rest. Both have to be set before torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
