"""Multiplies or decomposes a sparse matrix with scipy, one time for each line that it is asked.

    python scipy_svd.py FOLDER spmm|svd K THREADS

FOLDER holds indptr.i32, indices.i32 and meta.json; all values are 1, float32. Prints one JSON line with the versions; then,
for each line on its input, `run`: does it once and prints its seconds, or `values`: prints the singular values, falling. Ends
at the end of the input. scipy's sparse products use one thread; its ARPACK uses numpy's BLAS with THREADS.
"""
import json
import os
import sys
import time

folder, what, k, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
os.environ["OPENBLAS_NUM_THREADS"] = str(threads)

import numpy as np
import scipy
import scipy.sparse
import scipy.sparse.linalg

meta = json.load(open(os.path.join(folder, "meta.json")))
indptr = np.fromfile(os.path.join(folder, "indptr.i32"), np.int32)
indices = np.fromfile(os.path.join(folder, "indices.i32"), np.int32)
matrix = scipy.sparse.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=(meta["users"], meta["items"]))
dense = np.random.default_rng(1).standard_normal((meta["items"], k), dtype=np.float32)

print(json.dumps({"scipy": scipy.__version__, "numpy": np.__version__}), flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    if line.strip() == "values":
        found = scipy.sparse.linalg.svds(matrix.astype(np.float64), k, return_singular_vectors=False)
        print(json.dumps({"values": sorted(found.tolist(), reverse=True)}), flush=True)
        continue
    matrix @ dense if what == "spmm" else scipy.sparse.linalg.svds(matrix, k)
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
