// Dense batched algebra against residuals in float64, on every instruction set of this machine.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "backend/registry.h"
#include "core/random.h"
#include "ops/ops.h"
#include "test/check.h"

using namespace topknot;

namespace {

template <typename F>
void forEachIsa(F&& f) {
  for (const Backend* backend : cpuBackends()) {
    useIsa(backend->isa);
    f();
  }
  useIsa(cpuBackends().front()->isa);
}

constexpr DType dtypes[] = {DType::float32, DType::float64};
double epsilon(DType dtype) { return dtype == DType::float32 ? 0x1p-24 : 0x1p-53; }
double get(const Tensor& t, int64_t i) { return t.dtype == DType::float32 ? t.data<float>()[i] : t.data<double>()[i]; }
void set(Tensor& t, int64_t i, double x) {
  if (t.dtype == DType::float32) t.data<float>()[i] = static_cast<float>(x);
  else t.data<double>()[i] = x;
}

Tensor normals(DType dtype, Shape shape, uint64_t seed) {
  Tensor t = Tensor::host(dtype, shape);
  Random random(seed, 7);
  for (int64_t i = 0; i < t.count(); ++i) set(t, i, random.normal());
  return t;
}

/// G Gᵀ / n + 0.1 I for each matrix.
Tensor positiveDefinite(DType dtype, int64_t batch, int64_t n, uint64_t seed) {
  const Tensor g = normals(dtype, {batch, n, n}, seed);
  Tensor a = Tensor::host(dtype, {batch, n, n});
  for (int64_t m = 0; m < batch; ++m) {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = i == j ? 0.1 : 0;
        for (int64_t k = 0; k < n; ++k) {
          sum += get(g, (m * n + i) * n + k) * get(g, (m * n + j) * n + k) / static_cast<double>(n);
        }
        set(a, (m * n + i) * n + j, sum);
      }
    }
  }
  return a;
}

void wait(const Tensor& t) {
  if (t.pending) t.pending->wait();
}
const int32_t* statusOf(const Tensor& status) {
  wait(status);
  return status.data<int32_t>();
}

/// max |a x - b| over (|a| |x| + |b|), row by row with absolute values, for matrix m.
double residual(const Tensor& a, const Tensor& x, const Tensor& b, int64_t m, int64_t n, int64_t rhs) {
  double worst = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t q = 0; q < rhs; ++q) {
      double sum = -get(b, (m * n + i) * rhs + q), size = std::fabs(sum);
      for (int64_t j = 0; j < n; ++j) {
        const double term = get(a, (m * n + i) * n + j) * get(x, (m * n + j) * rhs + q);
        sum += term, size += std::fabs(term);
      }
      const double relative = size > 0 ? std::fabs(sum) / size : 0;
      worst = relative <= worst ? worst : relative;  // NaN wins
    }
  }
  return worst;
}

double asymmetry(const Tensor& a, const Tensor& l, int64_t m, int64_t n) {
  double worst = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = -get(a, (m * n + i) * n + j), size = std::fabs(sum);
      for (int64_t k = 0; k < n; ++k) {
        const double term = get(l, (m * n + i) * n + k) * get(l, (m * n + j) * n + k);
        sum += term, size += std::fabs(term);
      }
      const double relative = j > i ? (get(l, (m * n + i) * n + j) == 0 ? 0 : 1) : std::fabs(sum) / size;
      worst = relative <= worst ? worst : relative;
    }
  }
  return worst;
}

/// Whether matrix m of a result has the same bytes as matrix k of another.
bool sameMatrix(const Tensor& a, int64_t m, const Tensor& b, int64_t k, int64_t count) {
  const size_t bytes = static_cast<size_t>(count) * sizeOf(a.dtype);
  return std::memcmp(a.data<char>() + m * bytes, b.data<char>() + k * bytes, bytes) == 0;
}

Tensor one(const Tensor& batch, int64_t m) {
  Shape shape = batch.rank() == 3 ? Shape{1, batch.shape[1], batch.shape[2]} : Shape{1, batch.shape[1]};
  Tensor t = Tensor::host(batch.dtype, shape);
  std::memcpy(t.data<char>(), batch.data<char>() + m * t.bytes(), t.bytes());
  return t;
}

void report(const char* what, DType dtype, int64_t n, double worst) {
  std::printf("  isa %s: %s, %s, n %ld: %g\n", cpuBackend().isa, what, std::string(text(dtype)).c_str(),
              static_cast<long>(n), worst);
}

}  // namespace

TEST(choleskyFactorsAndSolves) {
  Stream stream;
  for (DType dtype : dtypes) {
    for (int64_t n : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 16, 17, 31, 32, 33, 48, 62, 63, 64, 65, 100, 131}) {
      const int64_t batch = n > 64 ? 3 : 19;
      const Tensor a = positiveDefinite(dtype, batch, n, static_cast<uint64_t>(n));
      for (int64_t rhs : {1, 2, 3, 4, 5, 9}) {
        const Tensor b = normals(dtype, {batch, n, rhs}, 5);
        forEachIsa([&] {
          const Solution direct = ops::solvePositiveDefinite(stream, a, b, {.strict = true});
          const Factor made = ops::cholesky(stream, a, {.strict = true});
          const Solution twoSteps = ops::choleskySolve(stream, made.factor, b, {.strict = true});
          wait(direct.x), wait(twoSteps.x);
          double worst = 0;
          for (int64_t m = 0; m < batch; ++m) {
            for (double r : {residual(a, direct.x, b, m, n, rhs), residual(a, twoSteps.x, b, m, n, rhs),
                             asymmetry(a, made.factor, m, n)}) {
              worst = r <= worst ? worst : r;
            }
          }
          const bool ok = worst <= static_cast<double>(n + 8) * epsilon(dtype);
          CHECK(ok);
          if (!ok) report("cholesky", dtype, n, worst);
        });
      }
    }
  }
}

TEST(aMatrixThatFailsLeavesTheOthersAlone) {
  Stream stream;
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  for (DType dtype : dtypes) {
    for (int64_t n : {4, 12, 64, 70}) {
      const int64_t batch = 21, square = n * n;
      const Tensor clean = positiveDefinite(dtype, batch, n, 3), b = normals(dtype, {batch, n}, 4);
      Tensor a = one(clean, 0);
      a = Tensor::host(dtype, clean.shape);
      std::memcpy(a.data<char>(), clean.data<char>(), a.bytes());
      set(a, 3 * square + 2 * n + 2, -1);          // pivot 3
      set(a, 7 * square, 0);                       // pivot 1
      set(a, 9 * square + (n - 1) * n + 1, nan);   // in the lower triangle
      set(a, 10 * square + 1 * n + (n - 1), nan);  // above it: not read
      set(a, 11 * square + (n - 1) * n, infinity);
      set(a, 20 * square + square - 1, -5);  // the last pivot
      std::vector<int32_t> expected(batch, solved);
      expected[3] = 3, expected[7] = 1, expected[9] = expected[11] = notFinite, expected[20] = static_cast<int32_t>(n);
      forEachIsa([&] {
        const Factor good = ops::cholesky(stream, clean, {}), bad = ops::cholesky(stream, a, {});
        const Solution goodX = ops::solvePositiveDefinite(stream, clean, b, {});
        const Solution badX = ops::solvePositiveDefinite(stream, a, b, {});
        const Solution chained = ops::choleskySolve(stream, bad.factor, b, {});
        for (int64_t m = 0; m < batch; ++m) {
          const int32_t status = expected[static_cast<size_t>(m)];
          CHECK(statusOf(bad.status)[m] == status && statusOf(badX.status)[m] == status);
          CHECK(statusOf(chained.status)[m] == (status == solved ? solved : notFinite));
          if (status == solved) {
            CHECK(sameMatrix(good.factor, m, bad.factor, m, square) && sameMatrix(goodX.x, m, badX.x, m, n));
          } else {
            CHECK(std::isnan(get(bad.factor, m * square)) && std::isnan(get(badX.x, m * n + n - 1)));
          }
        }
        const Factor strict = ops::cholesky(stream, a, {.strict = true});
        CHECK_THROWS(wait(strict.factor), value);
        CHECK(statusOf(strict.status)[3] == 3);
      });
    }
  }
}

TEST(aMatrixDoesNotDependOnItsBatchNorOnThreads) {
  Stream stream;
  for (DType dtype : dtypes) {
    for (int64_t n : {3, 32, 64, 65}) {
      const int64_t batch = 37;
      const Tensor a = positiveDefinite(dtype, batch, n, 8), b = normals(dtype, {batch, n, 2}, 9);
      forEachIsa([&] {
        setThreadCount(1);
        const Solution all = ops::solvePositiveDefinite(stream, a, b, {});
        const Factor factors = ops::cholesky(stream, a, {});
        wait(all.x), wait(factors.factor);
        setThreadCount(7);
        const Solution again = ops::solvePositiveDefinite(stream, a, b, {});
        wait(again.x);
        CHECK(std::memcmp(all.x.data<char>(), again.x.data<char>(), all.x.bytes()) == 0);
        for (int64_t m : {0, 5, 16, 36}) {
          const Solution alone = ops::solvePositiveDefinite(stream, one(a, m), one(b, m), {});
          const Factor factor = ops::cholesky(stream, one(a, m), {});
          wait(alone.x), wait(factor.factor);
          CHECK(sameMatrix(alone.x, 0, all.x, m, 2 * n) && sameMatrix(factor.factor, 0, factors.factor, m, n * n));
        }
        setThreadCount(4);
      });
    }
  }
}

TEST(aTensorThatNothingElseUsesIsOverwritten) {
  Stream stream;
  for (int64_t n : {20, 80}) {
    const Tensor a = positiveDefinite(DType::float32, 9, n, 1), b = normals(DType::float32, {9, n}, 2);
    const Solution x = ops::solvePositiveDefinite(stream, a, b, {});
    const Factor f = ops::cholesky(stream, a, {});
    wait(x.x), wait(f.factor);
    const Tensor handleA = one(a, 0), unused = handleA;
    Tensor copyA = Tensor::host(a.dtype, a.shape), copyB = Tensor::host(b.dtype, b.shape);
    std::memcpy(copyA.data<char>(), a.data<char>(), a.bytes());
    std::memcpy(copyB.data<char>(), b.data<char>(), b.bytes());
    const Solution inPlace = ops::solvePositiveDefinite(stream, a, copyB, {.overwrite = true});
    const Factor factor = ops::cholesky(stream, copyA, {.overwrite = true});
    wait(inPlace.x), wait(factor.factor);
    CHECK(inPlace.x.buffer == copyB.buffer && factor.factor.buffer == copyA.buffer);
    CHECK(std::memcmp(inPlace.x.data<char>(), x.x.data<char>(), b.bytes()) == 0);
    CHECK(std::memcmp(factor.factor.data<char>(), f.factor.data<char>(), a.bytes()) == 0);
    const Factor shared = ops::cholesky(stream, copyA, {.overwrite = true});  // `factor` holds its memory, too
    CHECK(shared.factor.buffer != copyA.buffer);
    wait(shared.factor);
  }
}

TEST(emptyAndTiny) {
  Stream stream;
  for (DType dtype : dtypes) {
    for (const Shape& shape : {Shape{0, 3, 3}, Shape{2, 0, 0}, Shape{0, 0}}) {
      const Factor f = ops::cholesky(stream, Tensor::host(dtype, shape), {.strict = true});
      wait(f.factor);
      CHECK(f.factor.shape == shape);
    }
    const Solution none = ops::solvePositiveDefinite(stream, positiveDefinite(dtype, 2, 5, 1),
                                                     Tensor::host(dtype, {2, 5, 0}), {.strict = true});
    wait(none.x);
    CHECK(none.x.count() == 0);
  }
}

TEST_MAIN()
