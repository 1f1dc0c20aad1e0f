"""The command line: the only place that knows Hydra."""

import os

# OpenMP threads that spin at a barrier make a shared machine up to eight times slower (measured: vlakit bench beside
# another process, 13 against 107 samples/s); it must be said before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
