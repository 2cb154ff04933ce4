"""Solves a batch of systems by numpy when asked, so that it can alternate with topknot.

    python numpy_solve.py FOLDER N COPIES THREADS

FOLDER holds a.f32 [m, n, n] and b.f32 [m, n], which are repeated COPIES times. Prints one JSON line with the versions; then, for
each line on its input, solves all and prints its seconds: `solve` is one call of numpy.linalg.solve, `solve-threads` a call in
each of THREADS Python threads (numpy lets go of the interpreter lock), `cholesky-threads` numpy.linalg.cholesky in the same way,
which gives the factors alone. `x` prints the first solutions of the last `solve`. Ends at the end of the input.
"""
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy calls LAPACK once for each matrix: threads within one only wait for each other

import numpy as np

folder, n, copies, threads = sys.argv[1], *map(int, sys.argv[2:5])
a = np.tile(np.fromfile(os.path.join(folder, "a.f32"), np.float32).reshape(-1, n, n), (copies, 1, 1))
b = np.tile(np.fromfile(os.path.join(folder, "b.f32"), np.float32).reshape(-1, n, 1), (copies, 1, 1))
parts = [slice(len(a) * t // threads, len(a) * (t + 1) // threads) for t in range(threads)]
pool = ThreadPoolExecutor(threads)
x = None


def solve():
    global x
    x = np.linalg.solve(a, b)


ways = {
    "solve": solve,
    "solve-threads": lambda: list(pool.map(lambda part: np.linalg.solve(a[part], b[part]), parts)),
    "cholesky-threads": lambda: list(pool.map(lambda part: np.linalg.cholesky(a[part]), parts)),
}


def blas():
    try:
        found = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{found['name']} {found['version']}"
    except Exception:  # older than 1.25
        return "its own BLAS"


print(json.dumps({"numpy": np.__version__, "blas": blas()}), flush=True)
for line in sys.stdin:
    if line.strip() == "x":
        print(json.dumps({"x": x[:100].ravel().tolist()}), flush=True)
        continue
    start = time.perf_counter()
    ways[line.strip()]()
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
