#include "models/nmf.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/memory.h"
#include "backend/registry.h"
#include "core/random.h"
#include "models/row_blocks.h"
#include "ops/ops.h"
#include "ops/queued.h"

namespace topknot {
namespace {

void checkOptions(const NmfOptions& o) {
  require(o.factors >= 1 && o.factors <= 4096, ErrorCode::range, "factors: expected 1 to 4096 but received ",
          o.factors);
  require(o.iterations >= 0, ErrorCode::range, "iterations: expected 0 or more but received ", o.iterations);
  require(std::isfinite(o.regularization) && o.regularization >= 0, ErrorCode::range,
          "regularization: expected a number of at least 0 but received ", o.regularization);
  require(o.deviceBytes >= 0, ErrorCode::range, "deviceBytes: expected 0 or more but received ", o.deviceBytes);
}

void checkRows(Job& job, const Csr& m, const char* name) {
  ops::csrValidate(job, m);
  for (const float x : m.values.span<float>()) {
    require(x >= 0, ErrorCode::value, name, ": expected values of 0 or more but received ", x);
  }
}

MatrixView view(const Tensor& t) { return {t.data<float>(), t.rows(), t.cols()}; }

int64_t entries(const Csr& m, int64_t row) { return m.indptr.data<int64_t>()[row + 1] - m.indptr.data<int64_t>()[row]; }

Tensor lambdas(const Csr& m, const NmfOptions& o) {
  const Tensor out = Tensor::host<float>({m.rows()});
  for (int64_t r = 0; r < m.rows(); ++r) {
    out.data<float>()[r] =
        static_cast<float>(o.regularization * (o.perEntry ? static_cast<double>(entries(m, r)) : 1.0));
  }
  return out;
}

Tensor gramOf(Job& job, const Tensor& m) {
  const Tensor out = empty<float>(m.device(), {m.cols(), m.cols()});
  run(m.device(), &Backend::gram, "gram", job.exec(), GramArgs{view(m), 1, out.data<float>()});
  job.checkCancelled();
  return out;
}

Tensor columnSums(const Tensor& m) {
  std::vector<double> sums(static_cast<size_t>(m.cols()));
  for (int64_t r = 0; r < m.rows(); ++r) {
    for (int64_t k = 0; k < m.cols(); ++k) sums[k] += static_cast<double>(m.data<float>()[r * m.cols() + k]);
  }
  const Tensor out = Tensor::host<float>({m.cols()});
  std::copy(sums.begin(), sums.end(), out.data<float>());
  return out;
}

/// One sweep over `rows`, in place in `out`; on the device where they are solved.
void sweep(Job& job, const RowBlocks& rows, const Tensor& reg, const Tensor& fixed, int32_t passes, const NmfOptions& o,
           const Tensor& out) {
  const bool all = o.over == NmfCells::all;
  const Tensor gram = all && o.objective == NmfLoss::frobenius ? gramOf(job, fixed) : Tensor();
  Tensor sums;
  if (all && o.objective == NmfLoss::kl) {
    sums = empty<float>(out.device(), {fixed.cols()});
    run(out.device(), &Backend::reduce, "reduce", job.exec(),
        ReduceArgs{Reduction::sum, fixed.data<float>(), 1, fixed.rows(), fixed.cols(), sums.data<float>()});
  }
  rows.each([&](const RowBlock& block) {
    const NmfArgs args{.rows = block.rows.view(),
                       .fixed = view(fixed),
                       .gram = gram.buffer ? gram.data<float>() : nullptr,
                       .sums = sums.buffer ? sums.data<float>() : nullptr,
                       .reg = reg.data<float>() + block.first,
                       .loss = o.objective,
                       .passes = passes,
                       .out = out.data<float>() + block.first * out.cols()};
    run(out.device(), &Backend::nmf, "nmf", job.exec(), args);
    job.checkCancelled();
  });
}

double penalty(const Tensor& factors, const Tensor& reg) {
  double sum = 0;
  for (int64_t r = 0; r < factors.rows(); ++r) {
    double squares = 0;
    for (int64_t k = 0; k < factors.cols(); ++k) {
      const double x = static_cast<double>(factors.data<float>()[r * factors.cols() + k]);
      squares += x * x;
    }
    sum += 0.5 * squares * static_cast<double>(reg.data<float>()[r]);
  }
  return sum;
}

double dot(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t k = 0; k < n; ++k) sum += static_cast<double>(a[k]) * static_cast<double>(b[k]);
  return sum;
}

/// The objective without regularization. Rows are summed up in fixed blocks.
double lossOf(Job& job, const Csr& rows, const Tensor& w, const Tensor& h, const NmfOptions& o) {
  const CsrView v = rows.view();
  const int64_t f = w.cols();
  const bool all = o.over == NmfCells::all, kl = o.objective == NmfLoss::kl;
  constexpr int64_t block = 256;
  std::vector<double> parts(static_cast<size_t>((v.rows + block - 1) / block));
  parallelFor(v.rows, block, job.exec(), [&](int64_t begin, int64_t end, int) {
    double sum = 0;
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t e = v.indptr[r]; e < v.indptr[r + 1]; ++e) {
        const double x = static_cast<double>(v.values[e]);
        const double y = dot(w.data<float>() + r * f, h.data<float>() + v.indices[e] * f, f);
        if (kl) sum += (x > 0 ? x * std::log(x / std::max(y, 1e-20)) - x : 0) + (all ? 0 : y);
        else sum += 0.5 * (all ? x * x - 2 * x * y : (x - y) * (x - y));
      }
    }
    parts[begin / block] = sum;
  });
  job.checkCancelled();
  double loss = 0;
  for (const double part : parts) loss += part;
  if (all && kl) loss += dot(columnSums(w).data<float>(), columnSums(h).data<float>(), f);
  if (all && !kl) loss += 0.5 * dot(gramOf(job, w).data<float>(), gramOf(job, h).data<float>(), f * f);
  return loss;
}

/// Uniform in (0, scale], each row keyed by (seed, first + row).
Tensor randomFactors(int64_t rows, int64_t f, double scale, int64_t seed, uint64_t first) {
  const Tensor out = Tensor::host<float>({rows, f});
  for (int64_t r = 0; r < rows; ++r) {
    Random random(static_cast<uint64_t>(seed), first + static_cast<uint64_t>(r));
    for (int64_t k = 0; k < f; ++k) out.data<float>()[r * f + k] = static_cast<float>(scale * (1 - random.uniform()));
  }
  return out;
}

/// A copy of the given factors, or random ones.
Tensor started(const std::optional<Tensor>& given, const char* name, int64_t rows, const NmfOptions& o, double scale,
               uint64_t first) {
  if (!given) return randomFactors(rows, o.factors, scale, o.seed, first);
  expect(*given, name, DType::float32, 2);
  require(given->rows() == rows && given->cols() == o.factors, ErrorCode::shape, name, ": expected shape [", rows, ", ",
          o.factors, "] but received ", text(given->shape));
  const Tensor out = randomFactors(rows, o.factors, scale, o.seed, first);
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = given->data<float>() + r * o.factors;
    for (int64_t k = 0; k < o.factors; ++k) {
      require(std::isfinite(from[k]) && from[k] >= 0, ErrorCode::value, name,
              ": expected numbers of 0 or more but row ", r, " holds ", from[k]);
    }
    // Rows of zeros are those that the last fit did not know: they stay random, as 0 everywhere is no place to start.
    if (std::any_of(from, from + o.factors, [](float x) { return x > 0; })) {
      std::copy_n(from, o.factors, out.data<float>() + r * o.factors);
    }
  }
  return out;
}

/// Of the random start: predictions then have about the mean of the cells.
double startScale(const Csr& users, const NmfOptions& o) {
  double total = 0;
  for (const float x : users.values.span<float>()) total += static_cast<double>(x);
  const double cells = o.over == NmfCells::all ? static_cast<double>(users.rows()) * static_cast<double>(users.cols)
                                               : static_cast<double>(users.nnz());
  return 2 * std::sqrt(total / std::max(cells, 1.0) / static_cast<double>(o.factors));
}

}  // namespace

namespace ops {

NmfFactors nmfFit(Job& job, Csr users, Csr items, std::optional<Tensor> userFactors, std::optional<Tensor> itemFactors,
                  NmfOptions o) {
  checkOptions(o);
  const Device device = deviceNamed(o.device.value_or("cpu"));
  checkRows(job, users, "users");
  checkRows(job, items, "items");
  require(items.rows() == users.cols && items.cols == users.rows() && items.nnz() == users.nnz(), ErrorCode::shape,
          "items: expected the transpose of users, [", users.cols, ", ", users.rows(), "] with ", users.nnz(),
          " entries, but received [", items.rows(), ", ", items.cols, "] with ", items.nnz());
  constexpr uint64_t userKeys = uint64_t{1} << 40;  // beyond those of items
  const double scale = startScale(users, o);
  NmfFactors out{started(userFactors, "userFactors", users.rows(), o, scale, userKeys),
                 started(itemFactors, "itemFactors", items.rows(), o, scale, 0),
                 {}};
  const Tensor userReg = lambdas(users, o), itemReg = lambdas(items, o);
  // Where the sweeps read and write them.
  const int64_t factors = 4 * o.factors * (users.rows() + items.rows());
  const int64_t room = roomForRows(users, 2 * factors, device, o.deviceBytes);  // the kernels need a copy of one side
  const Tensor userLambdas = copyTo(userReg, device), itemLambdas = copyTo(itemReg, device);
  const Tensor w = copyTo(out.userFactors, device), h = copyTo(out.itemFactors, device);
  const RowBlocks byUser(users, device, room), byItem(items, device, room);
  Progress progress{0, static_cast<double>(o.iterations), std::nan("")};
  job.progress(progress);
  for (int64_t iteration = 0; iteration < o.iterations; ++iteration) {
    sweep(job, byItem, itemLambdas, w, 1, o, h);
    sweep(job, byUser, userLambdas, h, 1, o, w);
    if (o.computeLoss || iteration + 1 == o.iterations) {
      out.userFactors = copyTo(w, {});
      out.itemFactors = copyTo(h, {});
    }
    if (o.computeLoss) {
      progress.loss = lossOf(job, users, out.userFactors, out.itemFactors, o) + penalty(out.userFactors, userReg) +
                      penalty(out.itemFactors, itemReg);
      out.loss.push_back(progress.loss);
    }
    progress.done = static_cast<double>(iteration + 1);
    job.progress(progress);
  }
  return out;
}

Tensor nmfFold(Job& job, Csr rows, Tensor fixed, NmfOptions o) {
  expect(fixed, "fixed", DType::float32, 2);
  o.factors = fixed.cols();
  checkOptions(o);
  expectOnHost(rows, "rows");
  checkRows(job, rows, "rows");
  require(rows.cols == fixed.rows(), ErrorCode::shape, "rows: expected ", fixed.rows(),
          " columns, one for each fixed factor, but received ", rows.cols);
  constexpr int32_t passes = 200;
  const Device device = fixed.device();
  const Tensor start = Tensor::host<float>({rows.rows(), o.factors});
  std::fill_n(start.data<float>(), start.count(), static_cast<float>(startScale(rows, o)));
  const Tensor out = copyTo(start, device);
  sweep(job, RowBlocks(rows, device), copyTo(lambdas(rows, o), device), fixed, passes, o, out);
  return out;
}

}  // namespace ops
}  // namespace topknot
