"""What PyTorch takes for the cases of native/test/bench_cuda.cpp: one JSON row a line, { case, size, name, ms }.

Times are medians of seven samples between CUDA events, each of enough calls to fill 30 ms. A call that this PyTorch or
this GPU cannot make is left out and named on stderr.
"""
import json
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

DEVICE = "cuda"


def milliseconds(call):
    def sample(calls):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    sample(2)
    calls = max(1, min(1000, int(30 / max(sample(1), 1e-3))))
    return sorted(sample(calls) / calls for _ in range(7))[3]


def report(case, size, name, make):
    """`make` sets up and gives the call to be timed."""
    try:
        call = make()
        print(json.dumps({"case": case, "size": size, "name": name, "ms": milliseconds(call)}), flush=True)
    except Exception as error:  # another version, too little memory: the row is missing, the rest goes on
        print(f"torch: {case} {size} {name}: {str(error).splitlines()[0]}", file=sys.stderr)
    torch.cuda.empty_cache()


def attention(length, dims, causal, backward):
    case = "attention backward" if backward else "attention"
    size = f"S={length} hd{dims} {'causal' if causal else 'full'}"
    heads, batch = 2048 // dims, 16384 // length

    def tensors():
        return [
            torch.rand(batch, heads, length, dims, device=DEVICE, dtype=torch.bfloat16).mul_(2).sub_(1)
            .requires_grad_(backward)
            for _ in range(3)
        ]

    kinds = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION, "default": None}
    for kind, backend in kinds.items():

        def make(backend=backend):
            q, k, v = tensors()

            def forward():
                if backend is None:
                    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
                with sdpa_kernel(backend):
                    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

            if not backward:
                return forward
            out = forward()
            gradient = torch.rand_like(out)
            return lambda: torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True)

        report(case, size, f"torch sdpa {kind}", make)


def zipf(count, rows, exponent):
    weights = torch.arange(1, rows + 1, dtype=torch.float64, device=DEVICE).pow(-exponent).cumsum(0)
    at = torch.searchsorted(weights, torch.rand(count, dtype=torch.float64, device=DEVICE) * weights[-1])
    return at.clamp_(max=rows - 1) * 2654435761 % rows


def matmul():
    n = 8192

    def make():
        a, b = (torch.rand(n, n, device=DEVICE, dtype=torch.bfloat16).mul_(2).sub_(1) for _ in range(2))
        return lambda: a @ b

    report("matmul", f"{n}x{n}x{n} bf16", "torch @", make)


def embedding():
    rows, cols, entries, length = 1 << 20, 128, 1 << 20, 32
    offsets = torch.arange(0, entries, length, device=DEVICE)

    def forward():
        table = torch.rand(rows, cols, device=DEVICE)
        ids = torch.randint(0, rows, (entries,), device=DEVICE)
        return lambda: F.embedding_bag(ids, table, offsets, mode="sum")

    report("embedding bag", "1Mx128 float32 uniform", "torch embedding_bag", forward)

    def training(optimizer):
        def make():
            table = torch.nn.EmbeddingBag(rows, cols, mode="sum", sparse=True, device=DEVICE)
            step = optimizer(table.parameters())
            ids = zipf(entries, rows, 1.05)
            out = table(ids, offsets)
            gradient = torch.rand_like(out)

            def call():
                step.zero_grad()
                out.backward(gradient, retain_graph=True)
                step.step()

            return call

        return make

    name = "1.05M lookups, 128, zipf 1.05"
    report("embedding backward", f"{name}, SGD", "torch sparse SGD", training(lambda p: torch.optim.SGD(p, lr=1e-3)))
    report("embedding backward", f"{name}, Adam", "torch SparseAdam", training(lambda p: torch.optim.SparseAdam(p)))


def cholesky_solve():
    for n in (64, 128):

        def make(n=n):
            a = torch.rand(100_000, n, n, device=DEVICE).sub_(0.5)
            a.diagonal(dim1=1, dim2=2).fill_(n)
            a = torch.tril(a) + torch.tril(a, -1).transpose(1, 2)
            b = torch.rand(100_000, n, 1, device=DEVICE)
            return lambda: torch.cholesky_solve(b, torch.linalg.cholesky_ex(a)[0])

        report("cholesky-solve", f"100k x {n}x{n}", "torch cholesky_ex + cholesky_solve", make)


def bpr():
    """A compiled step over minibatches: gather, the gradients of ln sigma(x (y - z)), index_add_."""
    users, items, f, batch, samples, rate = 138_493, 26_744, 128, 1 << 18, 20_000_263, 0.05

    def make():
        x, y = (torch.rand(n, f, device=DEVICE).sub_(0.5).mul_(0.1) for n in (users, items))
        u = torch.randint(0, users, (samples,), device=DEVICE)
        i = zipf(samples, items, 0.8)

        @torch.compile
        def step(u, i, j):
            xu, yi, yj = x[u], y[i], y[j]
            g = rate * torch.sigmoid(-(xu * (yi - yj)).sum(1, keepdim=True))
            x.index_add_(0, u, g * (yi - yj) - rate * 0.01 * xu)
            y.index_add_(0, i, g * xu - rate * 0.01 * yi)
            y.index_add_(0, j, -g * xu - rate * 0.01 * yj)

        def call():
            for begin in range(0, samples - batch, batch):
                j = torch.randint(0, items, (batch,), device=DEVICE)
                step(u[begin : begin + batch], i[begin : begin + batch], j)

        return call

    report("bpr", "ML-20M shape, f=128, hogwild", "torch compiled gather + index_add_", make)


def search():
    n, dims, block = 10_000_000, 128, 1_000_000
    items = torch.empty(n, dims, device=DEVICE, dtype=torch.float16).uniform_(-1, 1)
    for queries in (1, 64, 1024):
        q = torch.rand(queries, dims, device=DEVICE, dtype=torch.float16)
        for k in (10, 256):
            size = f"10Mx128 float16, {queries} {'queries' if queries > 1 else 'query'}, k={k}"

            def chunked(q=q, k=k):
                def call():
                    parts = [torch.topk(q @ items[i : i + block].T, k) for i in range(0, n, block)]
                    scores = torch.cat([part.values for part in parts], 1)
                    return torch.topk(scores, k)

                return call

            if queries <= 64:
                report("top-k", size, "torch topk whole", lambda q=q, k=k: lambda: torch.topk(q @ items.T, k))
            report("top-k", size, "torch topk chunked", chunked)


def main():
    if not torch.cuda.is_available():
        print("no GPU")
        return 77
    for length in (512, 1024, 2048):
        attention(length, 64, True, False)
    attention(2048, 64, False, False)
    for causal in (False, True):
        attention(2048, 128, causal, False)
    for dims in (64, 128):
        attention(2048, dims, True, True)
    matmul()
    embedding()
    cholesky_solve()
    bpr()
    search()
    return 0


if __name__ == "__main__":
    sys.exit(main())
