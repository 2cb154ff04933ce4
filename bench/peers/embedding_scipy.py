"""Embedding bags, and a step of row-wise Adagrad, by scipy when asked, so that it can alternate with topknot.

    python embedding_scipy.py FOLDER ROWS COLS BAGS PER_BAG THREADS

FOLDER holds ids.i32 [batches, bags, per bag]. The table is random. Prints one JSON line with the versions; then, for each line
on its input, `sum`, `mean` or `adagrad`, does the next batch and prints its seconds. scipy has no threads of its own but lets go
of the interpreter lock in its products: bags are dealt out to Python threads. Ends at the end of the input.
"""
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy
from scipy.sparse import csr_matrix

folder, rows, cols, bags, per_bag, threads = sys.argv[1], *map(int, sys.argv[2:7])
batches = np.fromfile(os.path.join(folder, "ids.i32"), np.int32).reshape(-1, bags * per_bag)
random = np.random.default_rng(1)
table = random.standard_normal((rows, cols), np.float32)
gradient = random.standard_normal((bags, cols), np.float32)
sums = np.zeros(rows, np.float32)
ones = np.ones(bags * per_bag, np.float32)
parts = [(bags * t // threads, bags * (t + 1) // threads) for t in range(threads)]
pool = ThreadPoolExecutor(threads)


def look_up(ids, weights):
    out = np.empty((bags, cols), np.float32)

    def one(part):
        begin, end = part
        inside = slice(begin * per_bag, end * per_bag)
        starts = np.arange(0, (end - begin) * per_bag + 1, per_bag, dtype=np.int32)
        out[begin:end] = csr_matrix((weights[inside], ids[inside], starts), shape=(end - begin, rows)) @ table

    list(pool.map(one, parts))
    return out


def adagrad(ids):
    order = np.argsort(ids, kind="stable").astype(np.int32)
    touched, starts = np.unique(ids[order], return_index=True)
    ends = np.append(starts, len(ids)).astype(np.int32)
    g = csr_matrix((ones, order // per_bag, ends), shape=(len(touched), bags)) @ gradient
    sums[touched] += np.square(g).mean(1)
    table[touched] -= 1e-3 * g / (np.sqrt(sums[touched]) + 1e-8)[:, None]


print(json.dumps({"scipy": scipy.__version__, "numpy": np.__version__}), flush=True)
turn = 0
for line in sys.stdin:
    mode, ids = line.strip(), batches[turn % len(batches)]
    turn += 1
    start = time.perf_counter()
    if mode == "adagrad":
        adagrad(ids)
    else:
        look_up(ids, ones if mode == "sum" else ones / per_bag)
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
