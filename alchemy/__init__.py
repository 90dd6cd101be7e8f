"""The domain of Data Alchemy: pure functions and records, without Dagster, Spark or HTTP."""

import os

__version__ = "0.1.0"

# Read by GNU OpenMP when torch or FAISS is loaded: how long threads spin while they wait for each other. By
# default it is so long that on cores that something else uses too they mostly burn each other's time. On two
# cores a forward pass of the base model took 0.24 s either way when idle, and 0.5 s instead of 1 to 10 s
# beside other work; not spinning at all (OMP_WAIT_POLICY=PASSIVE) costs half as much again when idle.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
