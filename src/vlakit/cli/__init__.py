"""The command line: the only place that knows Hydra."""

import os
import sys

# OpenMP threads that spin at a barrier make a shared machine up to eight times slower (measured: vlakit bench beside
# another process, 13 against 107 samples/s); it must be said before torch is imported. Nothing else computes while a
# server answers, and there threads that sleep make an answer half again as slow (62 against 38 ms).
if sys.argv[1:2] != ["serve"]:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
