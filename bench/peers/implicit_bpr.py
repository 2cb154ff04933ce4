"""Runs epochs of BPR of the Python library `implicit` one at a time, when asked, so that they can alternate with topknot's.

    python implicit_bpr.py FOLDER FACTORS THREADS

FOLDER holds indptr.i32, indices.i32 and meta.json. Prints one JSON line with the versions; then, for each line on its input,
runs one epoch (a sample for each interaction) and prints its seconds. Ends at the end of the input.
"""
import json
import os
import sys

folder, factors, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # implicit threads over samples itself and warns otherwise

import implicit
import numpy as np
import scipy.sparse
from implicit.cpu.bpr import BayesianPersonalizedRanking

meta = json.load(open(os.path.join(folder, "meta.json")))
indptr = np.fromfile(os.path.join(folder, "indptr.i32"), np.int32)
indices = np.fromfile(os.path.join(folder, "indices.i32"), np.int32)
matrix = scipy.sparse.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=(meta["users"], meta["items"]))


class Finished(Exception):
    pass


def wait():
    if not sys.stdin.readline():
        raise Finished


def report(_iteration, seconds, _correct, _skipped):
    print(json.dumps({"seconds": seconds}), flush=True)
    wait()


print(json.dumps({"implicit": implicit.__version__, "numpy": np.__version__}), flush=True)
try:
    wait()
    BayesianPersonalizedRanking(
        factors=factors, learning_rate=0.01, regularization=0.01, iterations=10**6, num_threads=threads, random_state=42,
    ).fit(matrix, show_progress=False, callback=report)
except Finished:
    pass
