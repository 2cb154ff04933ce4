// ALS against a dense float64 solution of the same systems (Eigen), for every instruction set of this machine.
#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "backend/registry.h"
#include "core/random.h"
#include "models/als.h"
#include "test/check.h"

using namespace topknot;
using MatrixF = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

namespace {

/// Row u has counts[u] different columns and weights in (0, 2].
Csr randomRows(const std::vector<int64_t>& counts, int64_t cols, uint64_t seed) {
  int64_t nnz = 0;
  for (int64_t n : counts) nnz += n;
  const int64_t rows = static_cast<int64_t>(counts.size());
  Csr m{Tensor::host<int64_t>({rows + 1}, true), Tensor::host<int32_t>({nnz}), Tensor::host<float>({nnz}), cols};
  int64_t at = 0;
  for (int64_t u = 0; u < rows; ++u) {
    Random random(seed, static_cast<uint64_t>(u));
    std::vector<int32_t> ids(static_cast<size_t>(cols));
    for (int64_t i = 0; i < cols; ++i) ids[i] = static_cast<int32_t>(i);
    for (int64_t i = 0; i < counts[u]; ++i) std::swap(ids[i], ids[i + static_cast<int64_t>(random.below(cols - i))]);
    std::sort(ids.begin(), ids.begin() + counts[u]);
    for (int64_t i = 0; i < counts[u]; ++i, ++at) {
      m.indices.data<int32_t>()[at] = ids[i];
      m.values.data<float>()[at] = static_cast<float>(2 - 2 * random.uniform());
    }
    m.indptr.data<int64_t>()[u + 1] = at;
  }
  return m;
}

/// Row u alone.
Csr rowOf(const Csr& m, int64_t u) {
  const int64_t* ptr = m.indptr.data<int64_t>();
  const int64_t n = ptr[u + 1] - ptr[u];
  Csr one{Tensor::host<int64_t>({2}, true), Tensor::host<int32_t>({n}), Tensor::host<float>({n}), m.cols};
  one.indptr.data<int64_t>()[1] = n;
  std::copy_n(m.indices.data<int32_t>() + ptr[u], n, one.indices.data<int32_t>());
  std::copy_n(m.values.data<float>() + ptr[u], n, one.values.data<float>());
  return one;
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
      const int64_t at = next[v.indices[e]]++;
      t.indices.data<int32_t>()[at] = static_cast<int32_t>(u);
      t.values.data<float>()[at] = v.values[e];
    }
  }
  return t;
}

Tensor normal(int64_t rows, int64_t cols, double std, uint64_t seed) {
  const Tensor t = Tensor::host<float>({rows, cols});
  for (int64_t r = 0; r < rows; ++r) {
    Random random(seed, static_cast<uint64_t>(r));
    for (int64_t c = 0; c < cols; ++c) t.data<float>()[r * cols + c] = static_cast<float>(std * random.normal());
  }
  return t;
}

Eigen::MatrixXd wide(const Tensor& t) {
  return Eigen::Map<const MatrixF>(t.data<float>(), t.rows(), t.cols()).cast<double>();
}

double lambdaOf(int64_t n, int64_t others, const AlsOptions& o) {
  return o.regularizationForm == AlsRegularization::constant
             ? o.regularization
             : o.regularization * std::pow(static_cast<double>(n) + o.unobservedWeight * static_cast<double>(others),
                                           o.regularizationExponent);
}

/// The system of one row in float64.
struct System {
  Eigen::MatrixXd a;
  Eigen::VectorXd b;
  double terms = 0;  // Σ of the lengths of the terms of b, which may cancel
  System(const Csr& rows, int64_t u, const Eigen::MatrixXd& y, const Eigen::MatrixXd& gram, const AlsOptions& o)
      : a(o.unobservedWeight * gram), b(Eigen::VectorXd::Zero(y.cols())) {
    const CsrView v = rows.view();
    a.diagonal().array() += lambdaOf(v.indptr[u + 1] - v.indptr[u], y.rows(), o);
    for (int64_t e = v.indptr[u]; e < v.indptr[u + 1]; ++e) {
      const Eigen::VectorXd yi = y.row(v.indices[e]);
      const double w = o.alpha * static_cast<double>(v.values[e]);
      a += w * yi * yi.transpose();
      const double c = w + (o.objective == AlsObjective::hkv ? o.unobservedWeight : 0);
      b += c * yi;
      terms += std::abs(c) * yi.norm();
    }
  }
};

/// The largest error of a row, relative to its exact solution or to what cancelled in it.
double worstError(const Csr& rows, const Tensor& fixed, const Tensor& x, const AlsOptions& o) {
  const Eigen::MatrixXd y = wide(fixed), got = wide(x), gram = y.transpose() * y;
  double worst = 0;
  // Rows from 60 on are many of one kind: every twentieth is enough.
  for (int64_t u = 0; u < rows.rows(); u += u < 60 ? 1 : 20) {
    const System s(rows, u, y, gram, o);
    const Eigen::VectorXd exact = s.a.ldlt().solve(s.b);
    const double error = (got.row(u).transpose() - exact).norm() / std::max(exact.norm(), s.terms / s.a.norm());
    if (s.terms == 0) {
      CHECK(got.row(u).norm() == 0);
    } else if (!(error <= worst)) {
      worst = error;
    }
  }
  return worst;
}

std::vector<int64_t> countsAround(int64_t f) {
  std::vector<int64_t> counts{0, 1, 2, 3, f - 1, f, f + 1, 5, 0, 9, 17, 33, 2 * f + 5, 600, 1100};
  for (int64_t& n : counts) n = std::max<int64_t>(n, 0);
  for (int64_t n = 1; n < 40; ++n) counts.push_back(n);
  counts.insert(counts.end(), 400, 4);  // enough short rows for the rotation to pay at every f
  return counts;
}

template <typename F>
void everyIsa(F&& body) {
  for (const Backend* b : cpuBackends()) {
    useIsa(b->isa);
    body(b->isa);
  }
  useIsa(cpuBackends().front()->isa);
}

}  // namespace

TEST(gramMatchesFloat64) {
  everyIsa([](const char* isa) {
    for (int64_t f : {1, 3, 17, 64, 100}) {
      for (int64_t rows : {0, 1, 5, 511, 3000}) {
        Job job;
        const Tensor y = normal(rows, f, 1, 7), g = ops::alsGram(job, y);
        const Eigen::MatrixXd exact = wide(y).transpose() * wide(y);
        const double error = (wide(g) - exact).cwiseAbs().maxCoeff() / std::max<double>(1, static_cast<double>(rows));
        if (error > 2e-6) std::printf("%s f=%d rows=%d error %g\n", isa, int(f), int(rows), error);
        CHECK(error <= 2e-6);
      }
    }
  });
}

TEST(choleskyMatchesFloat64) {
  everyIsa([](const char* isa) {
    for (int64_t f : {1, 3, 17, 64, 100, 128, 200}) {
      const Csr rows = randomRows(countsAround(f), 1500, 3);
      const Tensor fixed = normal(1500, f, 0.1, 5);
      for (auto objective : {AlsObjective::ials, AlsObjective::hkv}) {
        for (auto form : {AlsRegularization::constant, AlsRegularization::perEntry}) {
          AlsOptions o;
          o.objective = objective;
          o.regularizationForm = form;
          o.unobservedWeight = objective == AlsObjective::hkv ? 1 : 0.1;
          o.regularization = form == AlsRegularization::constant ? 0.1 : 0.003;
          o.alpha = 40;
          Job job;
          const double error = worstError(rows, fixed, ops::alsSolve(job, rows, fixed, {}, {}, o), o);
          if (error > 3e-5) std::printf("%s f=%d error %g\n", isa, int(f), error);
          CHECK(error <= 3e-5);
        }
      }
    }
  });
}

// Rows with n < f are solved in n dimensions when there are many; one alone goes the f x f way. Both lose digits as the
// condition grows; the short way must not lose more on the same rows.
TEST(shortRowsAreAsAccurateAsLongOnes) {
  everyIsa([](const char* isa) {
    for (int64_t f : {17, 64, 128}) {
      const Csr rows = randomRows(countsAround(f), 1500, 3);
      const Tensor fixed = normal(1500, f, 0.1, 5);
      for (const double regularization : {1e-1, 1e-3, 1e-5}) {
        for (const double unobserved : {1.0, 1e-3}) {
          AlsOptions o;
          o.regularizationForm = AlsRegularization::constant;
          o.regularization = regularization;
          o.unobservedWeight = unobserved;
          o.alpha = 40;
          Job job;
          const double all = worstError(rows, fixed, ops::alsSolve(job, rows, fixed, {}, {}, o), o);
          const Tensor gram = ops::alsGram(job, fixed), apart = Tensor::host(DType::float32, {rows.rows(), f}, true);
          for (int64_t u = 0; u < rows.rows(); u += u < 60 ? 1 : 20) {
            const Tensor x = ops::alsSolve(job, rowOf(rows, u), fixed, gram, {}, o);
            std::copy_n(x.data<float>(), f, apart.data<float>() + u * f);
          }
          const double alone = worstError(rows, fixed, apart, o);
          if (all > 3 * alone + 3e-5) {
            std::printf("%s f=%d reg=%g w0=%g: %g, alone %g\n", isa, int(f), regularization, unobserved, all, alone);
          }
          CHECK(all <= 3 * alone + 3e-5);
        }
      }
    }
  });
}

TEST(manyCgStepsMatchFloat64) {
  everyIsa([](const char* isa) {
    for (int64_t f : {1, 3, 17, 64, 100, 128, 200}) {
      std::vector<int64_t> counts = countsAround(f);
      counts.resize(60);
      const Csr rows = randomRows(counts, 1500, 3);
      const Tensor fixed = normal(1500, f, 0.1, 5);
      for (auto objective : {AlsObjective::ials, AlsObjective::hkv}) {
        AlsOptions o;
        o.objective = objective;
        o.unobservedWeight = objective == AlsObjective::hkv ? 1 : 0.1;
        o.alpha = 2;
        o.solver = AlsSolver::cg;
        o.cgSteps = 2 * f + 20;
        Job job;
        const Tensor start = normal(rows.rows(), f, 0.1, 9);
        const double error = worstError(rows, fixed, ops::alsSolve(job, rows, fixed, {}, start, o), o);
        if (error > 1e-4) std::printf("%s f=%d error %g\n", isa, int(f), error);
        CHECK(error <= 1e-4);
      }
    }
  });
}

TEST(threeCgStepsAreThreeCgSteps) {
  everyIsa([](const char*) {
    const int64_t f = 64;
    const Csr rows = randomRows(countsAround(f), 1500, 3);
    const Tensor fixed = normal(1500, f, 0.1, 5), start = normal(rows.rows(), f, 0.1, 9);
    AlsOptions o;
    o.solver = AlsSolver::cg;
    Job job;
    const Eigen::MatrixXd got = wide(ops::alsSolve(job, rows, fixed, {}, start, o)), y = wide(fixed);
    const Eigen::MatrixXd gram = y.transpose() * y;
    for (int64_t u = 0; u < rows.rows(); ++u) {
      const System s(rows, u, y, gram, o);
      if (s.b.norm() == 0) continue;
      Eigen::VectorXd x = wide(start).row(u), r = s.b - s.a * x, p = r;
      for (int step = 0; step < 3; ++step) {
        const double rr = r.squaredNorm(), alpha = rr / p.dot(s.a * p);
        x += alpha * p;
        r -= alpha * (s.a * p);
        p = r + r.squaredNorm() / rr * p;
      }
      CHECK((got.row(u).transpose() - x).norm() <= 2e-5 * x.norm());
    }
  });
}

TEST(lossIsTheFormulaAndFalls) {
  everyIsa([](const char*) {
    std::vector<int64_t> counts(150);
    for (int64_t u = 0; u < 150; ++u) counts[u] = u % 23;
    const Csr users = randomRows(counts, 90, 1), items = transpose(users);
    for (auto objective : {AlsObjective::ials, AlsObjective::hkv}) {
      for (auto form : {AlsRegularization::constant, AlsRegularization::perEntry}) {
        AlsOptions o;
        o.factors = 11;
        o.objective = objective;
        o.regularizationForm = form;
        o.unobservedWeight = 0.3;
        o.alpha = 3;
        o.regularization = 0.05;
        o.iterations = 6;
        o.computeLoss = true;
        Job job;
        const AlsFactors model = ops::alsFit(job, users, items, {}, {}, o);
        const Eigen::MatrixXd x = wide(model.userFactors), y = wide(model.itemFactors), scores = x * y.transpose();
        const CsrView v = users.view();
        double loss = o.unobservedWeight * scores.squaredNorm();
        for (int64_t u = 0; u < 150; ++u) {
          loss += lambdaOf(counts[u], 90, o) * x.row(u).squaredNorm();
          for (int64_t e = v.indptr[u]; e < v.indptr[u + 1]; ++e) {
            const double s = scores(u, v.indices[e]), w = o.alpha * static_cast<double>(v.values[e]);
            loss += w * (1 - s) * (1 - s);
            if (objective == AlsObjective::hkv) loss += o.unobservedWeight * ((1 - s) * (1 - s) - s * s);
          }
        }
        const int64_t* ptr = items.indptr.data<int64_t>();
        for (int64_t i = 0; i < 90; ++i) loss += lambdaOf(ptr[i + 1] - ptr[i], 150, o) * y.row(i).squaredNorm();
        CHECK(std::abs(model.loss.back() - loss) <= 1e-5 * loss);
        CHECK(model.loss.size() == 6);
        for (size_t i = 1; i < model.loss.size(); ++i) CHECK(model.loss[i] <= model.loss[i - 1] * (1 + 1e-6));
      }
    }
  });
}

TEST(sameBytesAtAnyThreadCount) {
  std::vector<int64_t> counts(700);
  for (int64_t u = 0; u < 700; ++u) counts[u] = u % 97;
  const Csr users = randomRows(counts, 400, 1), items = transpose(users);
  everyIsa([&](const char*) {
    for (auto solver : {AlsSolver::cholesky, AlsSolver::cg}) {
      AlsOptions o;
      o.factors = 48;
      o.solver = solver;
      o.iterations = 3;
      o.computeLoss = true;
      std::vector<AlsFactors> models;
      for (int threads : {1, 2, 4}) {
        setThreadCount(threads);
        Job job;
        models.push_back(ops::alsFit(job, users, items, {}, {}, o));
      }
      for (const AlsFactors& m : models) {
        CHECK(!std::memcmp(m.userFactors.data<float>(), models[0].userFactors.data<float>(), m.userFactors.bytes()));
        CHECK(!std::memcmp(m.itemFactors.data<float>(), models[0].itemFactors.data<float>(), m.itemFactors.bytes()));
        CHECK(m.loss == models[0].loss);
      }
    }
  });
}

TEST(warmStartContinues) {
  const Csr users = randomRows(std::vector<int64_t>(80, 7), 60, 1), items = transpose(users);
  AlsOptions o;
  o.factors = 9;
  o.iterations = 4;
  Job job;
  const AlsFactors four = ops::alsFit(job, users, items, {}, {}, o);
  o.iterations = 2;
  const AlsFactors two = ops::alsFit(job, users, items, {}, {}, o);
  const Tensor kept = two.itemFactors;
  const AlsFactors more = ops::alsFit(job, users, items, two.userFactors, two.itemFactors, o);
  CHECK(!std::memcmp(four.itemFactors.data<float>(), more.itemFactors.data<float>(), four.itemFactors.bytes()));
  CHECK(std::memcmp(kept.data<float>(), more.itemFactors.data<float>(), kept.bytes()));
}

TEST(contributionsAddUpToTheScore) {
  const Csr row = randomRows({25}, 300, 2);
  const Tensor items = normal(300, 32, 0.2, 5);
  for (auto objective : {AlsObjective::ials, AlsObjective::hkv}) {
    AlsOptions o;
    o.objective = objective;
    o.alpha = 5;
    Job job;
    const Tensor x = ops::alsSolve(job, row, items, {}, {}, o), parts = ops::alsExplain(job, row, items, {}, 17, o);
    double sum = 0;
    for (const float p : parts.span<float>()) sum += static_cast<double>(p);
    CHECK(std::abs(sum - wide(x).row(0).dot(wide(items).row(17))) <= 1e-5 * std::abs(sum));
  }
}

TEST(negativeWeightsAndSingularSystems) {
  everyIsa([](const char*) {
    for (int64_t f : {3, 24}) {
      Csr rows = randomRows(countsAround(f), 1500, 3);
      for (int64_t e = 0; e < rows.nnz(); e += 3) rows.values.data<float>()[e] *= e % 2 ? -0.05f : 0.0f;
      const Tensor fixed = normal(1500, f, 0.1, 5);
      AlsOptions o;
      o.unobservedWeight = 1;
      Job job;
      CHECK(worstError(rows, fixed, ops::alsSolve(job, rows, fixed, {}, {}, o), o) <= 3e-5);
      for (auto solver : {AlsSolver::cholesky, AlsSolver::cg}) {
        o.solver = solver;
        for (int64_t e = 0; e < rows.nnz(); ++e) rows.values.data<float>()[e] = -100;
        CHECK_THROWS(ops::alsSolve(job, rows, fixed, {}, {}, o), value);
      }
      o.solver = AlsSolver::cholesky;
      o.regularization = o.unobservedWeight = 0;
      const Csr short_ = randomRows({2}, 1500, 3);
      CHECK_THROWS(ops::alsSolve(job, short_, fixed, {}, {}, o), value);
    }
  });
}

TEST(extremeWeightsGiveFiniteFactorsOrAnError) {
  everyIsa([](const char*) {
    for (const float weight : {1e-38f, 1e-20f, 1e20f, 3e38f}) {
      for (auto solver : {AlsSolver::cholesky, AlsSolver::cg}) {
        Csr rows = randomRows(countsAround(16), 1500, 3);
        for (float& w : rows.values.span<float>()) w = weight;
        const Tensor fixed = normal(1500, 16, 0.1, 5);
        AlsOptions o;
        o.solver = solver;
        Job job;
        try {
          const Tensor x = ops::alsSolve(job, rows, fixed, {}, {}, o);
          for (const float v : x.span<float>()) CHECK(std::isfinite(v));
        } catch (const Error& e) {
          CHECK(e.code() == ErrorCode::value);
        }
      }
    }
  });
}

TEST(badArguments) {
  Job job;
  const Csr users = randomRows({3, 2, 5}, 10, 1), items = transpose(users);
  AlsOptions o;
  o.factors = 4;
  CHECK_THROWS(ops::alsFit(job, users, users, {}, {}, o), shape);
  CHECK_THROWS(ops::alsFit(job, users, items, normal(3, 5, 1, 1), {}, o), shape);
  o.regularization = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS(ops::alsFit(job, users, items, {}, {}, o), range);
  o.regularization = 0.01;
  o.factors = 0;
  CHECK_THROWS(ops::alsFit(job, users, items, {}, {}, o), range);
  o.factors = 4;
  Csr bad = randomRows({3, 2, 5}, 10, 1);
  bad.values.data<float>()[4] = std::numeric_limits<float>::infinity();
  CHECK_THROWS(ops::alsFit(job, bad, items, {}, {}, o), value);
  bad.values.data<float>()[4] = 1;
  bad.indices.data<int32_t>()[2] = 10;
  CHECK_THROWS(ops::alsFit(job, bad, items, {}, {}, o), range);
  job.cancel();
  CHECK_THROWS(ops::alsFit(job, users, items, {}, {}, o), aborted);
}

TEST_MAIN()
