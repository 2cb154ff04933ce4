"""Products of two float32 matrices by numpy, one at a time, when asked, so that they can alternate with topknot's.

    python numpy_matmul.py FOLDER M N K TRANSPOSED THREADS

FOLDER holds a.f32 [m, k] and b.f32 [k, n], or [n, k] where TRANSPOSED is 1. Prints one JSON line with the versions; then,
for each line on its input, makes the product and prints its seconds, or for the line "out" the first row of the last one.
"""
import json
import os
import sys
import time

folder, (m, n, k, transposed, threads) = sys.argv[1], map(int, sys.argv[2:])
os.environ["OPENBLAS_NUM_THREADS"] = str(threads)

import numpy as np

a = np.fromfile(os.path.join(folder, "a.f32"), np.float32).reshape(m, k)
b = np.fromfile(os.path.join(folder, "b.f32"), np.float32)
b = b.reshape(n, k).T if transposed else b.reshape(k, n)
out = np.empty((m, n), np.float32)


def blas():
    """The libraries that are loaded, by file name: numpy itself may have been built against another."""
    loaded = {os.path.realpath(line.split()[-1]) for line in open("/proc/self/maps") if "blas" in line}
    return ", ".join(sorted(os.path.basename(name) for name in loaded)) or "unknown BLAS"


np.matmul(a, b, out=out)
print(json.dumps({"numpy": np.__version__, "blas": blas()}), flush=True)
for line in sys.stdin:
    if line.strip() == "out":
        print(json.dumps({"out": out[0].tolist()}), flush=True)
        continue
    start = time.perf_counter()
    np.matmul(a, b, out=out)
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
