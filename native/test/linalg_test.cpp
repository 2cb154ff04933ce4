// Dense batched algebra against residuals in float64, on every instruction set of this machine.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "backend/registry.h"
#include "ops/ops.h"
#include "test/check.h"
#include "test/linalg_reference.h"

using namespace topknot;
using namespace topknot::test;

namespace {

template <typename F>
void forEachIsa(F&& f) {
  for (const Backend* backend : cpuBackends()) {
    useIsa(backend->isa);
    f();
  }
  useIsa(cpuBackends().front()->isa);
}

void wait(const Tensor& t) {
  if (t.pending) t.pending->wait();
}
const int32_t* statusOf(const Tensor& status) {
  wait(status);
  return status.data<int32_t>();
}

constexpr std::pair<int64_t, int64_t> shapes[] = {{1, 1},   {2, 1},   {1, 3},   {2, 2},   {5, 3},
                                                  {3, 5},   {8, 8},   {9, 4},   {17, 17}, {64, 20},
                                                  {20, 64}, {64, 64}, {65, 65}, {100, 7}, {7, 100}};

void report(const char* what, DType dtype, int64_t n, double worst) {
  std::printf("  isa %s: %s, %s, n %ld: %g\n", cpuBackend().isa, what, std::string(text(dtype)).c_str(),
              static_cast<long>(n), worst);
}

void expectBelow(double worst, double limit, const char* what, DType dtype, int64_t n) {
  const bool ok = worst <= limit;
  CHECK(ok);
  if (!ok) report(what, dtype, n, worst / epsilon(dtype));
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
              worst = larger(worst, r);
            }
          }
          expectBelow(worst, static_cast<double>(n + 8) * epsilon(dtype), "cholesky", dtype, n);
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
      Tensor a = copy(clean);
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
    const Tensor copyA = copy(a), copyB = copy(b);
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

TEST(luSolvesWithPivots) {
  Stream stream;
  for (DType dtype : dtypes) {
    for (int64_t n : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 31, 32, 33, 63, 64, 65, 100}) {
      const int64_t batch = n > 64 ? 3 : 19;
      Tensor a = normals(dtype, {batch, n, n}, static_cast<uint64_t>(n));
      for (int64_t m = 0; m < batch && n > 1; ++m) set(a, m * n * n, 0);  // a first pivot that must be exchanged
      for (int64_t rhs : {1, 2, 5}) {
        const Tensor b = normals(dtype, {batch, n, rhs}, 5);
        forEachIsa([&] {
          const Solution made = ops::luSolve(stream, a, b, {.strict = true});
          wait(made.x);
          double worst = 0;
          for (int64_t m = 0; m < batch; ++m) worst = larger(worst, residual(a, made.x, b, m, n, rhs));
          expectBelow(worst, 8 * static_cast<double>(n + 8) * epsilon(dtype), "lu", dtype, n);
        });
      }
    }
  }
}

TEST(singularMatricesNameTheirPivot) {
  Stream stream;
  for (DType dtype : dtypes) {
    for (int64_t n : {5, 64, 66}) {
      const int64_t batch = 18, square = n * n;
      const Tensor clean = normals(dtype, {batch, n, n}, 3), b = normals(dtype, {batch, n}, 4);
      Tensor a = copy(clean), sides = copy(b);
      for (int64_t i = 0; i < n; ++i) {
        set(a, 2 * square + i * n + 3, 0);  // column 3 is zero: pivot 4
        for (int64_t j = 0; j < n; ++j) set(a, 5 * square + i * n + j, 0);
      }
      set(a, 8 * square + 7, std::numeric_limits<double>::quiet_NaN());
      set(sides, 9 * n + 1, std::numeric_limits<double>::infinity());
      set(a, 11 * square, std::numeric_limits<double>::infinity());
      std::vector<int32_t> expected(batch, solved);
      expected[2] = 4, expected[5] = 1, expected[8] = expected[9] = expected[11] = notFinite;
      forEachIsa([&] {
        const Solution good = ops::luSolve(stream, clean, b, {}), bad = ops::luSolve(stream, a, sides, {});
        wait(good.x), wait(bad.x);
        for (int64_t m = 0; m < batch; ++m) {
          const int32_t status = expected[static_cast<size_t>(m)];
          CHECK(statusOf(bad.status)[m] == status);
          if (status == solved) CHECK(sameMatrix(good.x, m, bad.x, m, n));
          else CHECK(std::isnan(get(bad.x, m * n)));
        }
        CHECK_THROWS(wait(ops::luSolve(stream, a, sides, {.strict = true}).x), value);
      });
    }
  }
}

TEST(qrIsOrthogonalAndGivesTheMatrixBack) {
  Stream stream;
  for (DType dtype : dtypes) {
    for (const auto& [rows, cols] : shapes) {
      const int64_t batch = std::max(rows, cols) > 64 ? 2 : 11, k = std::min(rows, cols);
      for (const Tensor& a : matricesOfManyKinds(dtype, batch, rows, cols)) {
        forEachIsa([&] {
          const QrFactors made = ops::qr(stream, a, {.strict = true});
          wait(made.q);
          double worst = 0;
          for (int64_t m = 0; m < batch; ++m) {
            const Dense q(made.q, m), r(made.r, m);
            worst = larger(worst, larger(q.orthogonality(), (q * r).distance(Dense(a, m))));
            for (int64_t i = 0; i < k; ++i) {
              for (int64_t j = 0; j < std::min(i, cols); ++j) CHECK(r.at(i, j) == 0);
            }
          }
          expectBelow(worst, static_cast<double>(rows + cols + 8) * epsilon(dtype), "qr", dtype, cols);
        });
      }
    }
  }
}

TEST(eighIsOrthogonalAndGivesTheMatrixBack) {
  Stream stream;
  for (DType dtype : dtypes) {
    for (int64_t n : {1, 2, 3, 4, 5, 8, 9, 16, 31, 32, 63, 64, 65, 90}) {
      const int64_t batch = n > 64 ? 2 : 11;
      for (const Tensor& any : matricesOfManyKinds(dtype, batch, n, n)) {
        Tensor a = copy(any);  // symmetric: the lower triangle is what counts
        for (int64_t e = 0; e < a.count(); ++e) {
          const int64_t m = e / (n * n), i = e / n % n, j = e % n;
          if (j > i) set(a, e, get(any, (m * n + j) * n + i));
        }
        Tensor lower = copy(a);
        for (int64_t m = 0; m < batch && n > 1; ++m) set(lower, m * n * n + n - 1, 1e3);
        forEachIsa([&] {
          const EigenPairs made = ops::eigh(stream, lower, {.strict = true});
          wait(made.values);
          double worst = 0;
          for (int64_t m = 0; m < batch; ++m) {
            const Dense v(made.vectors, m);
            Dense scaled = v;
            for (int64_t i = 0; i < n; ++i) {
              for (int64_t j = 0; j < n; ++j) scaled.at(i, j) *= get(made.values, m * n + j);
              if (i > 0) CHECK(get(made.values, m * n + i) >= get(made.values, m * n + i - 1));
            }
            worst = larger(worst, larger(v.orthogonality(), (scaled * v.transposed()).distance(Dense(a, m))));
          }
          expectBelow(worst, 4 * static_cast<double>(n + 8) * epsilon(dtype), "eigh", dtype, n);
        });
      }
    }
  }
}

TEST(svdIsOrthogonalAndGivesTheMatrixBack) {
  Stream stream;
  for (DType dtype : dtypes) {
    for (const auto& [rows, cols] : shapes) {
      const int64_t batch = std::max(rows, cols) > 64 ? 2 : 11, k = std::min(rows, cols);
      for (const Tensor& a : matricesOfManyKinds(dtype, batch, rows, cols)) {
        forEachIsa([&] {
          const SingularTriples made = ops::svd(stream, a, {.strict = true});
          wait(made.s);
          double worst = 0;
          for (int64_t m = 0; m < batch; ++m) {
            const Dense u(made.u, m), vt(made.vt, m);
            Dense scaled = u;
            for (int64_t j = 0; j < k; ++j) {
              const double value = get(made.s, m * k + j);
              CHECK(value >= 0 && (j == 0 || value <= get(made.s, m * k + j - 1)));
              for (int64_t i = 0; i < rows; ++i) scaled.at(i, j) *= value;
            }
            worst = larger(worst, larger(u.orthogonality(), vt.transposed().orthogonality()));
            worst = larger(worst, (scaled * vt).distance(Dense(a, m)));
          }
          expectBelow(worst, 4 * static_cast<double>(rows + cols + 8) * epsilon(dtype), "svd", dtype,
                      rows * 1000 + cols);
        });
      }
    }
  }
}

TEST(decompositionsOfAMatrixDoNotDependOnItsBatchNorOnThreads) {
  Stream stream;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (DType dtype : dtypes) {
    for (int64_t n : {4, 21, 66}) {
      const int64_t batch = 23, square = n * n;
      Tensor a = positiveDefinite(dtype, batch, n, 8);
      for (int64_t m = 0; m < batch; m += 3) {  // diagonal ones, which are done before the others begin
        for (int64_t e = 0; e < square; ++e) set(a, m * square + e, e % (n + 1) == 0 ? static_cast<double>(e) : 0.0);
      }
      set(a, 7 * square + n, nan);
      const auto all = [&](const Tensor& t) {
        const QrFactors f = ops::qr(stream, t, {});
        const EigenPairs e = ops::eigh(stream, t, {});
        const SingularTriples s = ops::svd(stream, t, {});
        const Solution x = ops::luSolve(stream, t, t, {});
        wait(f.q), wait(e.values), wait(s.u), wait(x.x);
        for (const Tensor* status : {&f.status, &e.status, &s.status, &x.status}) {
          for (int64_t m = 0; m < t.rows(); ++m) {
            const bool finite = std::isfinite(get(t, m * square + n));
            if (finite != (statusOf(*status)[m] != notFinite)) return std::vector<Tensor>{};
          }
        }
        return std::vector<Tensor>{f.q, f.r, e.values, e.vectors, s.u, s.s, s.vt, x.x};
      };
      forEachIsa([&] {
        setThreadCount(1);
        const std::vector<Tensor> whole = all(a);
        setThreadCount(7);
        const std::vector<Tensor> again = all(a);
        CHECK(whole.size() == 8 && again.size() == 8);
        for (size_t i = 0; i < whole.size(); ++i) {
          CHECK(std::memcmp(whole[i].data<char>(), again[i].data<char>(), whole[i].bytes()) == 0);
        }
        for (int64_t m : {0, 4, 15, 16, 22}) {
          const std::vector<Tensor> alone = all(one(a, m));
          for (size_t i = 0; i < alone.size(); ++i) {
            CHECK(sameMatrix(alone[i], 0, whole[i], m, alone[i].count()));
          }
        }
        setThreadCount(4);
      });
    }
  }
}

TEST_MAIN()
