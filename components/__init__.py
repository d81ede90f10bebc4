"""One package per CRISP-ML(Q) phase, and what they share."""

import os

# Before any OpenMP runtime loads: waiting threads sleep instead of spinning. On a machine with more work than cores (a demo, a node without
# CPU limits) spinning made one XGBoost fit on two threads take 29 s instead of 1.5 s; the bytes of the model do not depend on it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
