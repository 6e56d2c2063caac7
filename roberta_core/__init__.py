"""How the work is done: a plain library on torch, pyarrow, tokenizers, safetensors and numpy.

Nothing here imports Prefect, DVC or MLflow, so that pretraining runs on a bare GPU node.
"""

import os

# Idle OpenMP threads sleep instead of spinning. Two programs on the same cores otherwise wait for each other's spinning
# threads: beside other work, pretraining on 2 threads fell to a fifth of its speed (docs/decisions.md). Has to be set
# before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
