// bench_als DIR [factors=64] [cholesky|cg] [iterations=3] [threads=4]: seconds for each half-sweep of ALS on the matrix
// in DIR (indptr.i32, indices.i32; weights 1, alpha 40, HKV objective), next to the FMA rate measured in the same run.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "backend/registry.h"
#include "core/random.h"
#include "models/als.h"

using namespace topknot;

namespace {

/// Processor seconds of the whole process: the share of the peak stays true on a busy machine.
double cpuNow() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}
double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::vector<int32_t> readFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  require(file.good(), ErrorCode::io, path, ": cannot be read");
  std::vector<int32_t> out(static_cast<size_t>(file.tellg()) / 4);
  file.seekg(0);
  file.read(reinterpret_cast<char*>(out.data()), static_cast<std::streamsize>(out.size() * 4));
  return out;
}

Csr read(const std::string& dir) {
  const std::vector<int32_t> ptr = readFile(dir + "/indptr.i32"), ids = readFile(dir + "/indices.i32");
  Csr m{Tensor::host<int64_t>({static_cast<int64_t>(ptr.size())}),
        Tensor::host<int32_t>({static_cast<int64_t>(ids.size())}),
        Tensor::host<float>({static_cast<int64_t>(ids.size())}), *std::max_element(ids.begin(), ids.end()) + 1};
  std::copy(ptr.begin(), ptr.end(), m.indptr.data<int64_t>());
  std::copy(ids.begin(), ids.end(), m.indices.data<int32_t>());
  std::fill_n(m.values.data<float>(), m.nnz(), 1.0f);
  return m;
}

Csr transpose(const Csr& m) {
  Csr t{Tensor::host<int64_t>({m.cols + 1}, true), Tensor::host<int32_t>({m.nnz()}), Tensor::host<float>({m.nnz()}),
        m.rows()};
  int64_t* ptr = t.indptr.data<int64_t>();
  const CsrView v = m.view();
  for (int64_t e = 0; e < m.nnz(); ++e) ++ptr[v.indices[e] + 1];
  for (int64_t i = 0; i < m.cols; ++i) ptr[i + 1] += ptr[i];
  std::vector<int64_t> next(ptr, ptr + m.cols);
  for (int64_t u = 0; u < v.rows; ++u) {
    for (int64_t e = v.indptr[u]; e < v.indptr[u + 1]; ++e) {
      t.indices.data<int32_t>()[next[v.indices[e]]] = static_cast<int32_t>(u);
      t.values.data<float>()[next[v.indices[e]]++] = v.values[e];
    }
  }
  return t;
}

/// GFLOP in a processor second of multiply-adds in registers, on as many threads as the work will use.
double fmaPeak() {
  double sum = 0;
  int64_t flops = 0;
  const double start = cpuNow();
  run(cpuBackend(), &Backend::measureFma, "measureFma", Exec{},
      MeasureFmaArgs{threadCount(), 0.999f, 0.001f, &sum, &flops});
  return static_cast<double>(flops) / (cpuNow() - start) / 1e9;
}

/// flop of the direct method: n f (f + 1) for each sum and f³ / 3 for each factorisation, or the n x n way if cheaper.
double directFlop(const Csr& m, double f) {
  const CsrView v = m.view();
  double sum = 0;
  for (int64_t u = 0; u < v.rows; ++u) {
    const double n = static_cast<double>(v.indptr[u + 1] - v.indptr[u]);
    if (n > 0) sum += n < f ? n * n * f + n * n * n / 3 : n * f * (f + 1) + f * f * f / 3;
  }
  return sum;
}

}  // namespace

int main(int argc, char** argv) try {
  require(argc > 1, ErrorCode::argument, "usage: bench_als DIR [factors] [cholesky|cg] [iterations] [threads]");
  const int64_t f = argc > 2 ? std::atoi(argv[2]) : 64;
  const bool cg = argc > 3 && !std::strcmp(argv[3], "cg");
  const int iterations = argc > 4 ? std::atoi(argv[4]) : 3;
  setThreadCount(argc > 5 ? std::atoi(argv[5]) : 4);
  const Csr users = read(argv[1]), items = transpose(users);
  AlsOptions o;
  o.factors = f;
  o.solver = cg ? AlsSolver::cg : AlsSolver::cholesky;
  o.objective = AlsObjective::hkv;
  o.unobservedWeight = 1;
  o.alpha = 40;
  o.regularization = 0.01;
  o.regularizationForm = AlsRegularization::constant;
  o.iterations = iterations;
  o.computeLoss = false;
  const double flop = cg ? 4.0 * 2 * 4 * static_cast<double>(users.nnz()) * static_cast<double>(f)
                         : directFlop(users, static_cast<double>(f)) + directFlop(items, static_cast<double>(f));
  std::printf(
      "%lld x %lld, %lld entries, f=%lld %s, %d threads, isa %s: %.1f GFLOP an iteration, FMA peak %.0f GFLOP/s a "
      "core\n",
      (long long)users.rows(), (long long)users.cols, (long long)users.nnz(), (long long)f, cg ? "cg(3)" : "cholesky",
      threadCount(), cpuBackend().isa, flop / 1e9, fmaPeak());
  Job job;
  double last = 0, lastCpu = 0, best = 1e30, bestCpu = 1e30;
  std::vector<double> halves, halvesCpu;
  job.listen([&](const Progress& p) {
    const double t = now(), cpu = cpuNow();
    if (p.done > 0) {
      halves.push_back(t - last);
      halvesCpu.push_back(cpu - lastCpu);
    }
    last = t;
    lastCpu = cpu;
  });
  const AlsFactors model = ops::alsFit(job, users, items, {}, {}, o);
  for (size_t i = 0; i + 1 < halves.size(); i += 2) {
    const double cpu = halvesCpu[i] + halvesCpu[i + 1];
    std::printf("  users %.4f s  items %.4f s  iteration %.4f s, processor %.4f + %.4f s\n", halves[i], halves[i + 1],
                halves[i] + halves[i + 1], halvesCpu[i], halvesCpu[i + 1]);
    bestCpu = std::min(bestCpu, cpu);
    best = std::min(best, halves[i] + halves[i + 1]);
  }
  double sum = 0;
  for (const float x : model.itemFactors.span<float>()) sum += static_cast<double>(x) * static_cast<double>(x);
  std::printf("  best %.4f s, %.0f GFLOP/s; processor %.4f s, %.1f GFLOP/s a core; |items|² %.6f\n", best,
              flop / best / 1e9, bestCpu, flop / bestCpu / 1e9, sum);
} catch (const Error& e) {
  std::printf("%s\n", e.what());
  return 1;
}
