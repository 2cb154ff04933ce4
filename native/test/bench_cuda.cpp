// The CUDA kernels over the shapes that docs/gpu.md lists: one JSON row a line, { case, size, name, ms, rate, unit }.
// scripts/gpu-check.sh runs it beside PyTorch. Usage: bench_cuda [--tiny]     --tiny: small shapes, to see that it runs
//
// Data lie on the device before the clock starts. A sample is the wall time of enough calls to fill 30 ms, ended by a
// copy that waits for them; the median of seven samples counts.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>

#include "core/random.h"
#include "test/placed.h"

using namespace topknot;
using topknot::test::Placed;

namespace {

/// Cheap numbers in [-1, 1): what they are does not change how long a kernel takes.
float noise(uint64_t i) {
  i = (i ^ i >> 31) * 0x9E3779B97F4A7C15u;
  i = (i ^ i >> 29) * 0xBF58476D1CE4E5B9u;
  return static_cast<float>(static_cast<double>(i >> 40) * 0x1p-23 - 1);
}

template <typename T>
std::vector<T> numbers(int64_t count, uint64_t seed, float scale = 1) {
  std::vector<T> out(static_cast<size_t>(count));
  parallelFor(count, 1 << 16, Exec{}, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const float x = scale * noise(seed << 40 | static_cast<uint64_t>(i));
      if constexpr (std::is_same_v<T, float>) out[i] = x;
      else if constexpr (std::is_same_v<T, Float16>) out[i] = toFloat16(x);
      else out[i] = toBFloat16(x);
    }
  });
  return out;
}

/// Rows drawn with probabilities that fall as (rank + 1)^-exponent; 0: all alike.
std::vector<int32_t> draws(int64_t count, int64_t rows, double exponent, uint64_t seed) {
  std::vector<double> sums(static_cast<size_t>(rows));
  double sum = 0;
  for (int64_t r = 0; r < rows; ++r) sums[r] = sum += std::pow(static_cast<double>(r + 1), -exponent);
  std::vector<int32_t> out(static_cast<size_t>(count));
  parallelFor(count, 1 << 14, Exec{}, [&](int64_t begin, int64_t end, int) {
    Random random(seed, static_cast<uint64_t>(begin));
    for (int64_t i = begin; i < end; ++i) {
      const auto at = std::lower_bound(sums.begin(), sums.end(), random.uniform() * sum) - sums.begin();
      // Popular rows do not lie side by side.
      out[i] = static_cast<int32_t>(static_cast<uint64_t>(std::min<int64_t>(at, rows - 1)) * 2654435761u %
                                    static_cast<uint64_t>(rows));
    }
  });
  return out;
}

struct Sparse {
  std::vector<int64_t> indptr;
  std::vector<int32_t> indices;
  std::vector<float> values;
  int64_t cols;

  CsrView view(Placed& memory) const {
    return {memory.place(indptr), memory.place(indices), memory.place(values), static_cast<int64_t>(indptr.size()) - 1,
            cols};
  }
};

/// The same entries with rows and columns exchanged.
Sparse transposed(const Sparse& m) {
  Sparse out{std::vector<int64_t>(m.cols + 1), std::vector<int32_t>(m.indices.size()),
             std::vector<float>(m.indices.size(), 1.0f), static_cast<int64_t>(m.indptr.size()) - 1};
  for (const int32_t c : m.indices) ++out.indptr[c + 1];
  for (int64_t c = 0; c < m.cols; ++c) out.indptr[c + 1] += out.indptr[c];
  std::vector<int64_t> next(out.indptr.begin(), out.indptr.end() - 1);
  for (int64_t r = 0; r < out.cols; ++r) {
    for (int64_t e = m.indptr[r]; e < m.indptr[r + 1]; ++e) out.indices[next[m.indices[e]]++] = static_cast<int32_t>(r);
  }
  return out;
}

/// Rows of very different lengths over columns of very different popularity, each column once a row.
Sparse interactions(int64_t rows, int64_t cols, int64_t entries) {
  Sparse m{{0}, {}, {}, cols};
  const std::vector<int32_t> drawn = draws(entries + entries / 4, cols, 0.8, 3);
  size_t at = 0;
  for (int64_t r = 0; r < rows; ++r) {
    Random random(4, static_cast<uint64_t>(r));
    const double mean = static_cast<double>(entries) / static_cast<double>(rows);
    const double wanted = mean * std::exp(random.normal() - 0.5);
    std::vector<int32_t> row;
    for (double n = 0; n < std::min(wanted, static_cast<double>(cols) / 4); ++n)
      row.push_back(drawn[at++ % drawn.size()]);
    std::sort(row.begin(), row.end());
    row.erase(std::unique(row.begin(), row.end()), row.end());
    m.indices.insert(m.indices.end(), row.begin(), row.end());
    m.indptr.push_back(static_cast<int64_t>(m.indices.size()));
  }
  m.values.assign(m.indices.size(), 1.0f);
  return m;
}

class Bench {
 public:
  Bench(const Backend& backend, bool tiny) : backend_(backend), tiny_(tiny), flag_(1) {
    check(backend.allocate(exec_, sizeof(float), &mark_));
  }
  ~Bench() { (void)backend_.release(exec_, mark_); }

  const Backend& gpu() const { return backend_; }
  const Exec& exec() const { return exec_; }
  bool tiny() const { return tiny_; }
  int64_t sized(int64_t full, int64_t tiny) const { return tiny_ ? tiny : full; }

  /// `work` is what one call does, in units of 1e9 (bytes, operations, samples) or 0; `call` one call.
  void time(const char* name, const std::string& size, double work, const char* unit,
            const std::function<Status()>& call) {
    const auto seconds = [&](int64_t calls) {
      const auto start = std::chrono::steady_clock::now();
      for (int64_t i = 0; i < calls; ++i) check(call());
      check(backend_.download(exec_, flag_.data(), mark_, sizeof(float)));
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    seconds(1);
    const int64_t calls = tiny_ ? 1 : std::clamp<int64_t>(static_cast<int64_t>(0.03 / seconds(1)), 1, 1000);
    std::vector<double> samples;
    for (int i = 0; i < (tiny_ ? 1 : 7); ++i) samples.push_back(seconds(calls) / static_cast<double>(calls));
    std::sort(samples.begin(), samples.end());
    const double median = samples[samples.size() / 2];
    std::printf(R"({"case":"%s","size":"%s","name":"topknot","ms":%.6g,"rate":%.6g,"unit":"%s"})"
                "\n",
                name, size.c_str(), median * 1e3, work > 0 ? work / median : 0, unit);
    std::fflush(stdout);
  }
  /// For what the table lacks: a row without figures.
  bool has(bool slot, const char* name) const {
    if (!slot)
      std::printf(R"({"case":"%s","name":"topknot","missing":true})"
                  "\n",
                  name);
    return slot;
  }

 private:
  const Backend& backend_;
  Exec exec_{};
  bool tiny_;
  void* mark_ = nullptr;
  std::vector<float> flag_;
};

void attention(Bench& bench, int64_t length, int64_t dims, bool causal, bool backward) {
  const Backend& gpu = bench.gpu();
  const char* name = backward ? "attention backward" : "attention";
  if (!bench.has(backward ? gpu.attentionBackward != nullptr : gpu.attention != nullptr, name)) return;
  const int64_t heads = bench.sized(2048 / dims, 2), batch = bench.sized(16384 / length, 1);
  const int64_t n = bench.sized(length, 70);
  Placed memory(gpu, bench.exec());
  const int64_t count = batch * heads * n * dims;
  AttentionProblem p{};
  p.dtype = DType::bfloat16, p.batch = batch, p.heads = p.kvHeads = heads, p.dims = dims, p.queries = p.keys = n;
  p.queryLayout = p.keyLayout = {heads * n * dims, n * dims, dims};
  p.left = int64_t{1} << 40, p.right = causal ? 0 : p.left;
  p.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(dims)));
  const auto place = [&](uint64_t seed) { return memory.place(numbers<BFloat16>(count, seed)); };
  BFloat16 *q = place(1), *k = place(2), *v = place(3), *out = place(4);
  float* logSumExp = memory.place(std::vector<float>(batch * heads * n));
  int32_t* notFinite = memory.place(std::vector<int32_t>(1));
  const AttentionArgs forward{p, q, k, v, out, logSumExp, notFinite};
  const double pairs = static_cast<double>(batch * heads) * static_cast<double>(n * n) * (causal ? 0.5 : 1);
  const double flops = pairs * static_cast<double>(dims) * (backward ? 10 : 4) / 1e9;
  const std::string size = concat("S=", length, " hd", dims, causal ? " causal" : " full");
  if (!backward) return bench.time(name, size, flops, "GFLOP/s", [&] { return gpu.attention(bench.exec(), forward); });
  check(gpu.attention(bench.exec(), forward));
  const AttentionBackwardArgs args{.problem = p,
                                   .q = q,
                                   .k = k,
                                   .v = v,
                                   .out = out,
                                   .outGradient = place(5),
                                   .logSumExp = logSumExp,
                                   .qGradient = place(6),
                                   .kGradient = place(7),
                                   .vGradient = place(8),
                                   .biasGradient = nullptr,
                                   .notFinite = notFinite};
  bench.time(name, size, flops, "GFLOP/s", [&] { return gpu.attentionBackward(bench.exec(), args); });
}

void matmul(Bench& bench) {
  const Backend& gpu = bench.gpu();
  if (!bench.has(gpu.matmul != nullptr, "matmul")) return;
  const int64_t n = bench.sized(8192, 100);
  Placed memory(gpu, bench.exec());
  const auto place = [&](uint64_t seed) {
    return MatmulOperand{memory.place(numbers<BFloat16>(n * n, seed)), n, false, RowFormat::bfloat16};
  };
  const MatmulArgs args{
      .m = n, .n = n, .k = n, .a = place(1), .b = place(2), .c = memory.place(std::vector<float>(n * n)), .cStride = n};
  const double flops = 2 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / 1e9;
  bench.time("matmul", concat(n, "x", n, "x", n, " bf16"), flops, "GFLOP/s",
             [&] { return gpu.matmul(bench.exec(), args); });
}

void embedding(Bench& bench) {
  const Backend& gpu = bench.gpu();
  const int64_t rows = bench.sized(1 << 20, 100), cols = 128, entries = bench.sized(1 << 20, 200), length = 32;
  const int64_t bags = (entries + length - 1) / length;
  std::vector<int64_t> offsets(bags + 1);
  for (int64_t b = 0; b <= bags; ++b) offsets[b] = std::min(b * length, entries);
  Placed memory(gpu, bench.exec());
  float* table = memory.place(numbers<float>(rows * cols, 1));
  const TableView view{table, rows, cols, RowFormat::float32};
  float* out = memory.place(std::vector<float>(bags * cols));
  const std::vector<int32_t> uniform = draws(entries, rows, 0, 1), zipf = draws(entries, rows, 1.05, 2);
  const BagsView uniformBags{memory.place(uniform), memory.place(offsets), bags, nullptr, -1};
  const double bytes = static_cast<double>(entries * (4 * cols + 4) + bags * 4 * cols) / 1e9;
  bench.time("embedding bag", "1Mx128 float32 uniform", bytes, "GB/s", [&] {
    return gpu.embeddingBag(bench.exec(), {view, uniformBags, BagMode::sum, out, nullptr});
  });

  // Backward: grouping belongs to it.
  std::vector<int32_t> bagOf(entries);
  for (int64_t i = 0; i < entries; ++i) bagOf[i] = static_cast<int32_t>(i / length);
  const int32_t* ids = memory.place(zipf);
  int32_t *order = memory.place(bagOf), *found = memory.place(bagOf), *entryBags = memory.place(bagOf);
  int64_t* starts = memory.place(std::vector<int64_t>(entries + 1));
  int64_t* groupCount = memory.place(std::vector<int64_t>(1));
  const EmbeddingGroupArgs group{ids, entries, rows, -1, order, found, starts, groupCount};
  check(gpu.embeddingGroup(bench.exec(), group));
  std::vector<int64_t> groups(1);
  memory.fetch(groups, groupCount);
  const TableView gradient{memory.place(numbers<float>(bags * cols, 5)), bags, cols, RowFormat::float32};
  std::vector<int32_t> sorted(entries);
  memory.fetch(sorted, order);
  for (int32_t& entry : sorted) entry = bagOf[entry];
  check(gpu.upload(bench.exec(), entryBags, sorted.data(), sorted.size() * sizeof(int32_t)));
  float *means = memory.place(std::vector<float>(rows * cols)),
        *squares = memory.place(std::vector<float>(rows * cols));
  for (const auto& [optimizer, name] : {std::pair{EmbeddingOptimizer::sgd, "1.05M lookups, 128, zipf 1.05, SGD"},
                                        std::pair{EmbeddingOptimizer::adam, "1.05M lookups, 128, zipf 1.05, Adam"}}) {
    const EmbeddingUpdateArgs update{
        .rows = {gradient, entries, {entryBags, starts, groups[0], nullptr, -1}, found, order, nullptr},
        .optimizer = optimizer,
        .rate = 1e-3f,
        .epsilon = 1e-8f,
        .beta1 = 0.9f,
        .beta2 = 0.999f,
        .correction1 = 0.1f,
        .correction2 = 0.001f,
        .table = table,
        .format = RowFormat::float32,
        .sums = means,
        .means = means,
        .squares = squares,
        .seed = 1,
        .step = 1};
    bench.time("embedding backward", name, 0, "", [&] {
      const Status status = gpu.embeddingGroup(bench.exec(), group);
      return status.ok() ? gpu.embeddingUpdate(bench.exec(), update) : status;
    });
  }
}

void search(Bench& bench) {
  const Backend& gpu = bench.gpu();
  const int64_t n = bench.sized(10'000'000, 500), dims = 128;
  Placed memory(gpu, bench.exec());
  const FloatMatrixView items{memory.place(numbers<Float16>(n * dims, 1)), FloatType::float16, n, dims};
  for (const int64_t queries : {1, 64, 1024}) {
    const int64_t q = bench.sized(queries, 2);
    for (const int64_t k : {10, 256}) {
      Placed local(gpu, bench.exec());
      const TopkArgs args{.queries = {local.place(numbers<float>(q * dims, 2)), q, dims},
                          .items = items,
                          .k = k,
                          .metric = Metric::innerProduct,
                          .itemNorms = nullptr,
                          .filter = {},
                          .ids = local.place(std::vector<int32_t>(q * k)),
                          .scores = local.place(std::vector<float>(q * k))};
      const std::string size = concat("10Mx128 float16, ", queries, queries > 1 ? " queries" : " query", ", k=", k);
      const Status first = gpu.topk(bench.exec(), args);
      if (!first.ok()) {
        std::fprintf(stderr, "top-k %s: %s\n", size.c_str(), first.message);
        continue;
      }
      bench.time("top-k", size, static_cast<double>(2 * n * dims * q) / 1e9, "GFLOP/s",
                 [&] { return gpu.topk(bench.exec(), args); });
    }
  }
}

void als(Bench& bench) {
  const Backend& gpu = bench.gpu();
  const int64_t users = bench.sized(138'493, 30), items = bench.sized(26'744, 20);
  const Sparse byUser = interactions(users, items, bench.sized(20'000'263, 100)), byItem = transposed(byUser);
  for (const int64_t f : {64, 128}) {
    if (bench.tiny() && f > 64) continue;
    Placed memory(gpu, bench.exec());
    const CsrView rows = byUser.view(memory), columns = byItem.view(memory);
    float* x = memory.place(numbers<float>(users * f, 1, 0.1f));
    float* y = memory.place(numbers<float>(items * f, 2, 0.1f));
    float* gram = memory.place(std::vector<float>(f * f));
    const float* reg = memory.place(std::vector<float>(std::max(users, items), 0.1f));
    const auto half = [&](bool cholesky, const CsrView& of, const MatrixView& fixed, float* out) {
      const Status status = gpu.gram(bench.exec(), {fixed, 0.1f, gram});
      if (!status.ok()) return status;
      const AlsArgs args{of, fixed, gram, reg, 0, 3, out};
      return cholesky ? gpu.alsCholesky(bench.exec(), args) : gpu.alsCg(bench.exec(), args);
    };
    for (const bool cholesky : {true, false}) {
      const std::string size = concat("ML-20M shape, f=", f, cholesky ? ", Cholesky" : ", CG(3)");
      bench.time("als", size, 0, "", [&] {
        const Status status = half(cholesky, rows, {y, items, f}, x);
        return status.ok() ? half(cholesky, columns, {x, users, f}, y) : status;
      });
    }
  }
}

void choleskySolve(Bench& bench) {
  const Backend& gpu = bench.gpu();
  if (!bench.has(gpu.choleskySolve != nullptr, "cholesky-solve")) return;
  const int64_t batch = bench.sized(100'000, 3);
  for (const int64_t n : {64, 128}) {
    Placed memory(gpu, bench.exec());
    std::vector<float> a = numbers<float>(batch * n * n, 1, 0.5f);
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t i = 0; i < n; ++i) a[(b * n + i) * n + i] = static_cast<float>(n);  // the diagonal dominates
    }
    const CholeskySolveArgs args{Precision::float32,
                                 batch,
                                 n,
                                 1,
                                 memory.place(a),
                                 false,
                                 memory.place(numbers<float>(batch * n, 2)),
                                 memory.place(std::vector<float>(batch * n)),
                                 memory.place(std::vector<int32_t>(batch))};
    const double cube = static_cast<double>(n * n * n);
    bench.time("cholesky-solve", concat("100k x ", n, "x", n), static_cast<double>(batch) * cube / 3e9, "GFLOP/s",
               [&] { return gpu.choleskySolve(bench.exec(), args); });
  }
}

/// One epoch over the ML-20M shape with racing tasks (`hogwild`), as many as keep the device busy.
void bpr(Bench& bench) {
  const Backend& gpu = bench.gpu();
  if (!bench.has(gpu.bpr != nullptr, "bpr")) return;
  const int64_t users = bench.sized(138'493, 30), items = bench.sized(26'744, 20), f = 128;
  const Sparse m = interactions(users, items, bench.sized(20'000'263, 100));
  const int64_t samples = static_cast<int64_t>(m.indices.size());
  std::vector<int32_t> positiveUsers, positiveItems, pool(items);
  std::iota(pool.begin(), pool.end(), 0);
  std::vector<uint8_t> bits(2 * samples);
  for (int64_t u = 0; u < users; ++u) {
    for (int64_t e = m.indptr[u]; e < m.indptr[u + 1]; ++e) {
      const uint64_t bit = ownItemBit(m.indptr[u + 1] - m.indptr[u], m.indices[e]);
      bits[2 * m.indptr[u] + bit / 8] |= static_cast<uint8_t>(1u << bit % 8);
    }
  }
  // A stride that shares no factor with the number of samples visits each once, far from the last.
  std::vector<int64_t> user(samples);
  for (int64_t u = 0; u < users; ++u) std::fill(user.begin() + m.indptr[u], user.begin() + m.indptr[u + 1], u);
  int64_t step = samples * 5 / 8 | 1;
  while (std::gcd(step, samples) != 1) step += 2;
  for (int64_t i = 0, at = 0; i < samples; ++i, at = (at + step) % samples) {
    positiveUsers.push_back(static_cast<int32_t>(user[at]));
    positiveItems.push_back(m.indices[at]);
  }
  const int64_t tasks = bench.sized(1 << 15, 4);
  std::vector<BprTask> work;
  for (int64_t t = 0; t < tasks; ++t) {
    work.push_back({samples * t / tasks, samples * (t + 1) / tasks, 0, items, static_cast<uint64_t>(t)});
  }
  Placed memory(gpu, bench.exec());
  const BprArgs args{.users = {m.view(memory), memory.place(bits)},
                     .tasks = memory.place(work),
                     .taskCount = tasks,
                     .positiveUsers = memory.place(positiveUsers),
                     .positiveItems = memory.place(positiveItems),
                     .pool = memory.place(pool),
                     .candidates = 1,
                     .seed = 1,
                     .stride = f,
                     .userFactors = memory.place(numbers<float>(users * f, 1, 0.1f)),
                     .itemFactors = memory.place(numbers<float>(items * f, 2, 0.1f)),
                     .itemBiases = nullptr,
                     .rate = 0.05f,
                     .regularization = 0.01f,
                     .itemsFixed = false,
                     .wantLoss = false,
                     .outcomes = memory.place(std::vector<BprOutcome>(tasks))};
  bench.time("bpr", "ML-20M shape, f=128, hogwild", static_cast<double>(samples) / 1e9, "Gsamples/s",
             [&] { return gpu.bpr(bench.exec(), args); });
}

}  // namespace

int main(int count, char** words) {
  const bool tiny = count > 1 && std::strcmp(words[1], "--tiny") == 0;
  if (devices().size() < 2) {
    std::printf("no GPU: %s\n", cudaProblem().c_str());
    return 77;
  }
  try {
    Bench bench(backendOf(Device{Device::cuda, 0}), tiny);
    for (const int64_t length : {512, 1024, 2048}) attention(bench, length, 64, true, false);
    attention(bench, 2048, 64, false, false);
    for (const bool causal : {false, true}) attention(bench, 2048, 128, causal, false);
    for (const int64_t dims : {64, 128}) attention(bench, 2048, dims, true, true);
    matmul(bench);
    embedding(bench);
    choleskySolve(bench);
    als(bench);
    bpr(bench);
    search(bench);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_cuda: %s\n", error.what());
    return 1;
  }
}
