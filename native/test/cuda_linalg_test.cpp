// The CUDA kernels of dense batched algebra under the SIMT emulator, and on the GPUs of this machine if there are any:
// residuals in float64, and the CPU's status for every matrix.
#include <algorithm>
#include <cstdlib>
#include <functional>
#include <limits>

#include "test/check.h"
#include "test/linalg_reference.h"
#include "test/placed.h"
#include "test/simt/backend.h"

using namespace topknot;
using namespace topknot::test;

namespace {

/// What a kernel made of a batch.
struct Made {
  std::vector<Tensor> out;
  std::vector<int32_t> status;

  bool operator==(const Made& other) const {  // by bits: a failed matrix holds NaN
    bool same = status == other.status && out.size() == other.out.size();
    for (size_t i = 0; same && i < out.size(); ++i) {
      same = std::memcmp(out[i].data<char>(), other.out[i].data<char>(), out[i].bytes()) == 0;
    }
    return same;
  }
};

/// Calls a slot with the `in` tensors and room for results of the given shapes; `inPlace`: the first result is the last
/// input.
using Pointers = std::vector<void*>;
using Call =
    std::function<Status(const Backend&, const Exec&, const Pointers& in, const Pointers& out, int32_t* status)>;
Made make(const Backend& backend, const Exec& exec, const std::vector<Tensor>& in, const std::vector<Shape>& shapes,
          const Call& call, bool inPlace = false) {
  Made made{{}, std::vector<int32_t>(static_cast<size_t>(in[0].rows()), 77)};
  Placed memory(backend, exec);
  Pointers inputs, outputs;
  std::vector<std::vector<char>> bytes;
  for (const Tensor& t : in) bytes.emplace_back(t.data<char>(), t.data<char>() + t.bytes());
  for (const Shape& shape : shapes) {
    made.out.push_back(Tensor::host(in[0].dtype, shape));
    bytes.emplace_back(made.out.back().bytes());
  }
  for (size_t i = 0; i < in.size(); ++i) inputs.push_back(memory.place(bytes[i]));
  for (size_t i = 0; i < shapes.size(); ++i) outputs.push_back(memory.place(bytes[in.size() + i]));
  if (inPlace) outputs[0] = inputs.back();
  int32_t* status = memory.place(made.status);
  check(call(backend, exec, inputs, outputs, status));
  memory.fetch(made.status, status);
  for (size_t i = 0; i < shapes.size(); ++i) {
    std::vector<char>& result = inPlace && i == 0 ? bytes[in.size() - 1] : bytes[in.size() + i];
    memory.fetch(result, static_cast<const char*>(outputs[i]));
    std::copy(result.begin(), result.end(), made.out[i].data<char>());
  }
  return made;
}

Precision precisionOf(const Tensor& t) { return t.dtype == DType::float64 ? Precision::float64 : Precision::float32; }

enum class Solver { positiveDefinite, factored, lu };
using Run = std::function<Made(const Backend&, const Exec&)>;

Run cholesky(const Tensor& a, bool inPlace = false) {
  return [=](const Backend& backend, const Exec& exec) {
    return make(
        backend, exec, {a}, {a.shape},
        [&](const Backend& b, const Exec& e, const Pointers& in, const Pointers& out, int32_t* status) {
          return b.cholesky(e, {precisionOf(a), a.shape[0], a.shape[1], in[0], out[0], status});
        },
        inPlace);
  };
}

Run solve(Solver solver, const Tensor& a, const Tensor& sides, bool inPlace = false) {
  return [=](const Backend& backend, const Exec& exec) {
    return make(
        backend, exec, {a, sides}, {sides.shape},
        [&](const Backend& b, const Exec& e, const Pointers& in, const Pointers& out, int32_t* status) {
          const int64_t batch = a.shape[0], n = a.shape[1], rhs = sides.shape[2];
          if (solver == Solver::lu) return b.luSolve(e, {precisionOf(a), batch, n, rhs, in[0], in[1], out[0], status});
          const bool factored = solver == Solver::factored;
          return b.choleskySolve(e, {precisionOf(a), batch, n, rhs, in[0], factored, in[1], out[0], status});
        },
        inPlace);
  };
}

Run qr(const Tensor& a) {
  const int64_t batch = a.shape[0], m = a.shape[1], n = a.shape[2], k = std::min(m, n);
  return [=](const Backend& backend, const Exec& exec) {
    return make(backend, exec, {a}, {{batch, m, k}, {batch, k, n}},
                [&](const Backend& b, const Exec& e, const Pointers& in, const Pointers& out, int32_t* status) {
                  return b.qr(e, {precisionOf(a), batch, m, n, in[0], out[0], out[1], status});
                });
  };
}

Run eigh(const Tensor& a) {
  const int64_t batch = a.shape[0], n = a.shape[1];
  return [=](const Backend& backend, const Exec& exec) {
    return make(backend, exec, {a}, {{batch, n}, {batch, n, n}},
                [&](const Backend& b, const Exec& e, const Pointers& in, const Pointers& out, int32_t* status) {
                  return b.eigh(e, {precisionOf(a), batch, n, in[0], out[0], out[1], status});
                });
  };
}

Run svd(const Tensor& a) {
  const int64_t batch = a.shape[0], m = a.shape[1], n = a.shape[2], k = std::min(m, n);
  return [=](const Backend& backend, const Exec& exec) {
    return make(backend, exec, {a}, {{batch, m, k}, {batch, k}, {batch, k, n}},
                [&](const Backend& b, const Exec& e, const Pointers& in, const Pointers& out, int32_t* status) {
                  return b.svd(e, {precisionOf(a), batch, m, n, in[0], out[0], out[1], out[2], status});
                });
  };
}

const Backend& emulated() {
  static const Backend backend = cuda::emulatedBackend();
  return backend;
}

/// The result, which must be the same under every schedule; under one alone where `once`.
Made emulate(const Run& run, bool once = false) {
  if (once) return run(emulated(), {});
  std::vector<Made> all;
  simt::everySchedule([&] { all.push_back(run(emulated(), {})); });
  for (const Made& made : all) CHECK(made == all[0]);
  CHECK(simt::liveAllocations() == 0);
  return all[0];
}

void expectBelow(double worst, double limit, const char* what, const Tensor& a) {
  const bool ok = worst <= limit * epsilon(a.dtype);
  CHECK(ok);
  if (!ok) {
    std::printf("  %s of %s %s: %g times epsilon, at most %g\n", what, std::string(text(a.dtype)).c_str(),
                text(a.shape).c_str(), worst / epsilon(a.dtype), limit);
  }
}

bool allSolved(const Made& made) {
  return std::all_of(made.status.begin(), made.status.end(), [](int32_t s) { return s == solved; });
}

Tensor symmetric(const Tensor& any) {
  Tensor a = copy(any);
  const int64_t n = a.cols();
  for (int64_t e = 0; e < a.count(); ++e) {
    const int64_t m = e / (n * n), i = e / n % n, j = e % n;
    if (j > i) set(a, e, get(any, (m * n + j) * n + i));
  }
  return a;
}

void checkQr(const Tensor& a, const Made& made) {
  const int64_t rows = a.shape[1], cols = a.shape[2];
  CHECK(allSolved(made));
  double worst = 0;
  for (int64_t m = 0; m < a.shape[0]; ++m) {
    const Dense q(made.out[0], m), r(made.out[1], m);
    worst = larger(worst, larger(q.orthogonality(), (q * r).distance(Dense(a, m))));
    for (int64_t i = 0; i < r.rows; ++i) {
      for (int64_t j = 0; j < std::min(i, cols); ++j) CHECK(r.at(i, j) == 0);
    }
  }
  expectBelow(worst, static_cast<double>(rows + cols + 8), "qr", a);
}

void checkEigh(const Tensor& a, const Made& made) {
  const int64_t n = a.shape[1];
  CHECK(allSolved(made));
  double worst = 0;
  for (int64_t m = 0; m < a.shape[0]; ++m) {
    const Dense v(made.out[1], m);
    Dense scaled = v;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) scaled.at(i, j) *= get(made.out[0], m * n + j);
      if (i > 0) CHECK(get(made.out[0], m * n + i) >= get(made.out[0], m * n + i - 1));
    }
    worst = larger(worst, larger(v.orthogonality(), (scaled * v.transposed()).distance(Dense(a, m))));
  }
  expectBelow(worst, 4 * static_cast<double>(n + 8), "eigh", a);
}

void checkSvd(const Tensor& a, const Made& made) {
  const int64_t rows = a.shape[1], cols = a.shape[2], k = std::min(rows, cols);
  CHECK(allSolved(made));
  double worst = 0;
  for (int64_t m = 0; m < a.shape[0]; ++m) {
    const Dense u(made.out[0], m), vt(made.out[2], m);
    Dense scaled = u;
    for (int64_t j = 0; j < k; ++j) {
      const double value = get(made.out[1], m * k + j);
      CHECK(value >= 0 && (j == 0 || value <= get(made.out[1], m * k + j - 1)));
      for (int64_t i = 0; i < rows; ++i) scaled.at(i, j) *= value;
    }
    worst = larger(worst, larger(u.orthogonality(), vt.transposed().orthogonality()));
    worst = larger(worst, (scaled * vt).distance(Dense(a, m)));
  }
  expectBelow(worst, 4 * static_cast<double>(rows + cols + 8), "svd", a);
}

void checkSolutions(const Tensor& a, const Tensor& b, const Made& made, double limit, const char* what) {
  CHECK(allSolved(made));
  double worst = 0;
  for (int64_t m = 0; m < a.shape[0]; ++m) {
    worst = larger(worst, residual(a, made.out[0], b, m, a.shape[1], b.shape[2]));
  }
  expectBelow(worst, limit, what, a);
}

/// Statuses as the CPU has them; NaN everywhere in what has failed, and what has not as in a batch without failures.
void checkFailures(const Tensor& a, const Run& bad, const Run& good, const std::vector<int32_t>& expected,
                   bool once = false) {
  const Made made = emulate(bad, once), clean = emulate(good, true);
  CHECK(made.status == expected);
  CHECK(bad(cpuBackend(), {}).status == expected);
  CHECK(allSolved(clean));
  for (size_t i = 0; i < made.out.size(); ++i) {
    const int64_t count = made.out[i].count() / a.shape[0];
    for (int64_t m = 0; m < a.shape[0]; ++m) {
      bool allNan = true;
      for (int64_t e = 0; e < count; ++e) allNan = allNan && std::isnan(get(made.out[i], m * count + e));
      CHECK(expected[static_cast<size_t>(m)] == solved ? sameMatrix(made.out[i], m, clean.out[i], m, count) : allNan);
    }
  }
}

constexpr double notANumber = std::numeric_limits<double>::quiet_NaN(),
                 infinity = std::numeric_limits<double>::infinity();

}  // namespace

TEST(choleskyFactorsAndSolves) {
  for (const DType dtype : dtypes) {
    for (const int64_t n : {1, 3, 4, 5, 13, 31, 32, 33, 65}) {
      const int64_t batch = n > 16 ? 2 : 11;  // 11: not a whole number of blocks
      const Tensor a = positiveDefinite(dtype, batch, n, static_cast<uint64_t>(n));
      const Made factor = emulate(cholesky(a));
      CHECK(allSolved(factor) && factor == emulate(cholesky(a, true), true));
      double worst = 0;
      for (int64_t m = 0; m < batch; ++m) worst = larger(worst, asymmetry(a, factor.out[0], m, n));
      const double limit = static_cast<double>(n + 8);
      expectBelow(worst, limit, "cholesky", a);
      for (const int64_t rhs : {1, 5, 40}) {  // a warp has 32 at a time
        const Tensor b = normals(dtype, {batch, n, rhs}, 5);
        const Made direct = emulate(solve(Solver::positiveDefinite, a, b), rhs == 5);
        checkSolutions(a, b, direct, limit, "solution");
        CHECK(direct == emulate(solve(Solver::positiveDefinite, a, b, true), true));
        checkSolutions(a, b, emulate(solve(Solver::factored, factor.out[0], b), rhs == 5), limit, "solution by factor");
      }
    }
  }
}

TEST(luSolvesWithPivots) {
  for (const DType dtype : dtypes) {
    for (const int64_t n : {1, 2, 3, 4, 7, 13, 32, 33, 66}) {
      const int64_t batch = n > 16 ? 2 : 11;
      Tensor a = normals(dtype, {batch, n, n}, static_cast<uint64_t>(n));
      for (int64_t m = 0; m < batch && n > 1; ++m) set(a, m * n * n, 0);  // a first pivot that must be exchanged
      for (const int64_t rhs : {1, 5, 40}) {
        const Tensor b = normals(dtype, {batch, n, rhs}, 5);
        const Made made = emulate(solve(Solver::lu, a, b), rhs == 5);
        checkSolutions(a, b, made, 8 * static_cast<double>(n + 8), "lu");
        CHECK(made == emulate(solve(Solver::lu, a, b, true), true));
      }
    }
  }
}

TEST(aMatrixThatFailsLeavesTheOthersAlone) {
  for (const DType dtype : dtypes) {
    for (const int64_t n : {4, 12, 40}) {
      const int64_t batch = 9, square = n * n;
      const Tensor clean = positiveDefinite(dtype, batch, n, 3), b = normals(dtype, {batch, n, 1}, 4);
      Tensor a = copy(clean);
      set(a, 1 * square + 2 * n + 2, -1);                // pivot 3
      set(a, 2 * square, 0);                             // pivot 1
      set(a, 4 * square + (n - 1) * n + 1, notANumber);  // in the lower triangle
      set(a, 5 * square + 1 * n + (n - 1), notANumber);  // above it: not read
      set(a, 6 * square + (n - 1) * n, infinity);
      set(a, 8 * square + square - 1, -5);  // the last pivot
      const std::vector<int32_t> expected{0, 3, 1, 0, notFinite, 0, notFinite, 0, static_cast<int32_t>(n)};
      checkFailures(a, cholesky(a), cholesky(clean), expected);
      checkFailures(a, solve(Solver::positiveDefinite, a, b), solve(Solver::positiveDefinite, clean, b), expected);
      const Made factors = emulate(cholesky(a), true), whole = emulate(cholesky(clean), true);
      std::vector<int32_t> chained;
      for (const int32_t status : expected) chained.push_back(status == solved ? solved : notFinite);
      checkFailures(a, solve(Solver::factored, factors.out[0], b), solve(Solver::factored, whole.out[0], b), chained);
    }
  }
}

TEST(singularMatricesNameTheirPivot) {
  for (const DType dtype : dtypes) {
    for (const int64_t n : {5, 12, 41}) {
      const int64_t batch = 7, square = n * n;
      const Tensor clean = normals(dtype, {batch, n, n}, 3), b = normals(dtype, {batch, n, 1}, 4);
      Tensor a = copy(clean), sides = copy(b);
      for (int64_t i = 0; i < n; ++i) {
        set(a, 1 * square + i * n + 3, 0);  // column 3 is zero: pivot 4
        for (int64_t j = 0; j < n; ++j) set(a, 2 * square + i * n + j, 0);
      }
      set(a, 3 * square + 3, notANumber);
      set(sides, 4 * n + 1, infinity);
      set(a, 6 * square, infinity);
      checkFailures(a, solve(Solver::lu, a, sides), solve(Solver::lu, clean, b),
                    {0, 4, 1, notFinite, notFinite, 0, notFinite});
    }
  }
}

TEST(decompositionsGiveTheMatrixBack) {
  constexpr std::pair<int64_t, int64_t> shapes[] = {{1, 1}, {1, 3},   {2, 2},   {5, 3},  {3, 5},
                                                    {9, 4}, {17, 17}, {34, 33}, {33, 33}};
  for (const DType dtype : dtypes) {
    for (const auto& [rows, cols] : shapes) {
      bool first = true;
      for (const Tensor& a : matricesOfManyKinds(dtype, rows > 10 ? 1 : 5, rows, cols)) {
        if (!first && rows > 20) continue;
        const bool once = !first || (rows > 20 && dtype == DType::float64);
        first = false;
        if (rows == 33) {
          checkEigh(symmetric(a), emulate(eigh(symmetric(a)), once));
          continue;
        }
        checkQr(a, emulate(qr(a), once));
        checkSvd(a, emulate(svd(a), once));
        if (rows == cols) checkEigh(symmetric(a), emulate(eigh(symmetric(a)), once));
      }
    }
  }
}

TEST(eighReadsTheLowerTriangle) {
  const Tensor a = symmetric(normals(DType::float32, {3, 6, 6}, 1));
  Tensor lower = copy(a);
  for (int64_t m = 0; m < 3; ++m) set(lower, m * 36 + 5, notANumber);
  CHECK(emulate(eigh(a)) == emulate(eigh(lower)));
}

TEST(decompositionsOfWhatIsNotFinite) {
  for (const DType dtype : dtypes) {
    for (const int64_t n : {5, 33}) {
      std::vector<int32_t> expected{notFinite, 0};
      if (n == 5) expected = {notFinite, 0, 0, 0, 0, notFinite};  // more than a block of warps has
      const int64_t batch = static_cast<int64_t>(expected.size());
      const Tensor clean = symmetric(normals(dtype, {batch, n, n}, 2));
      Tensor a = copy(clean);
      set(a, n, notANumber);
      if (n == 5) set(a, batch * n * n - 1, -infinity);
      for (const auto& of : {qr, eigh, svd}) checkFailures(a, of(a), of(clean), expected, n == 33);
    }
  }
}

TEST(emptyBatchesAndMatrices) {
  for (const Shape& shape : {Shape{0, 3, 3}, Shape{2, 0, 0}}) {
    const Tensor a = Tensor::host(DType::float32, shape);
    for (const Run& run : {cholesky(a), qr(a), eigh(a), svd(a), solve(Solver::lu, a, a)})
      CHECK(allSolved(emulate(run)));
  }
  const Tensor a = positiveDefinite(DType::float64, 2, 5, 1), none = Tensor::host(DType::float64, {2, 5, 0});
  CHECK(allSolved(emulate(solve(Solver::positiveDefinite, a, none))));
  CHECK(allSolved(emulate(solve(Solver::lu, a, none))));
  const Tensor wide = Tensor::host(DType::float32, {2, 0, 4});
  CHECK(allSolved(emulate(qr(wide))) && allSolved(emulate(svd(wide))));
}

TEST(largeMatricesLieInGlobalMemory) {
  for (const DType dtype : dtypes) {
    const bool wide = dtype == DType::float64;
    const int64_t n = wide ? 116 : 164;
    const Tensor a = positiveDefinite(dtype, 5, n, 6), b = normals(dtype, {5, n, 2}, 7);  // 5 matrices for 4 blocks
    const double limit = static_cast<double>(n + 8);
    checkSolutions(a, b, emulate(solve(Solver::positiveDefinite, a, b), true), limit, "large solution");
    checkSolutions(a, b, emulate(solve(Solver::lu, a, b), true), 8 * limit, "large lu");
    const Tensor tall = normals(dtype, {1, wide ? 420 : 840, 30}, 8);
    checkQr(tall, emulate(qr(tall), true));
    checkSvd(tall, emulate(svd(tall), true));
    const Tensor square = symmetric(one(a, 0));
    if (wide) checkEigh(square, emulate(eigh(square), true));
  }
}

TEST(onTheGpusOfThisMachine) {
  const std::vector<DeviceInfo> all = devices();
  if (std::getenv("TOPKNOT_CUDA_BUILT")) CHECK(cudaProblem().find("plugin is not") == std::string::npos);
  for (size_t i = 1; i < all.size(); ++i) {
    const Backend& gpu = backendOf(all[i].device);
    const Exec exec{.device = all[i].device.index};
    for (const DType dtype : dtypes) {
      for (const int64_t n : {5, 32, 64, 128, 200}) {
        const Tensor a = positiveDefinite(dtype, 20, n, 6), b = normals(dtype, {20, n, 3}, 7);
        const double limit = static_cast<double>(n + 8);
        checkSolutions(a, b, solve(Solver::positiveDefinite, a, b)(gpu, exec), limit, "solution");
        checkSolutions(a, b, solve(Solver::lu, a, b)(gpu, exec), 8 * limit, "lu");
        checkQr(a, qr(a)(gpu, exec));
        checkSvd(a, svd(a)(gpu, exec));
        checkEigh(symmetric(a), eigh(symmetric(a))(gpu, exec));
      }
    }
  }
}

TEST_MAIN()
