// Metrics over recommended lists: one pass over the ranks of each user's list gives every metric at every k.
// Users are summed in fixed blocks, in order, so that the result does not depend on threads.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "ops/ops.h"

namespace topknot {
namespace {

constexpr int64_t usersPerBlock = 256;
constexpr double none = std::numeric_limits<double>::quiet_NaN();

TypedArray doubles(std::span<const double> values) {
  Tensor out = Tensor::host<double>({static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), out.data<double>());
  return {out};
}

/// sums[n] = 1/log2(2) + ... + 1/log2(n + 1): the DCG of n hits in a row.
std::vector<double> idealDcg(int64_t n) {
  std::vector<double> sums(static_cast<size_t>(n) + 1, 0.0);
  for (int64_t r = 0; r < n; ++r) sums[r + 1] = sums[r] + 1.0 / std::log2(static_cast<double>(r + 2));
  return sums;
}

/// -log2 of each item's share of users. An item that nobody has counts as one that one user has, to stay finite.
std::vector<double> selfInformation(const CsrView& train) {
  std::vector<int64_t> users(static_cast<size_t>(train.cols), 0);
  for (int64_t e = 0; e < train.indptr[train.rows]; ++e) ++users[train.indices[e]];
  std::vector<double> bits(users.size());
  for (size_t i = 0; i < users.size(); ++i) {
    bits[i] = std::log2(static_cast<double>(train.rows) / static_cast<double>(std::max<int64_t>(users[i], 1)));
  }
  return bits;
}

std::vector<double> inverseLengths(const MatrixView& m, const Exec& exec) {
  std::vector<double> out(static_cast<size_t>(m.rows));
  parallelFor(m.rows, 4096, exec, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      double squared = 0;
      for (int64_t f = 0; f < m.cols; ++f) squared += static_cast<double>(m.row(i)[f]) * m.row(i)[f];
      out[i] = squared > 0 ? 1.0 / std::sqrt(squared) : 0.0;
    }
  });
  return out;
}

/// What every user's list is measured against.
struct Ground {
  const ListMetricsOptions& options;
  CsrView test;
  std::vector<double> ideal;          // idealDcg up to the longest list
  std::vector<double> information;    // [items], for novelty
  MatrixView vectors{};               // [items, f], for diversity
  std::vector<double> inverseLength;  // [items]

  double gain(float value) const {
    if (options.gains == Gains::binary) return 1.0;
    return options.gains == Gains::linear ? value : std::exp2(static_cast<double>(value)) - 1.0;
  }
};

/// The running totals of one list, from its first rank on.
class ListScan {
 public:
  explicit ListScan(const Ground& ground) : g_(ground), direction_(static_cast<size_t>(ground.vectors.cols)) {}

  /// Writes metric m at the c-th k to out[(m * K + c) * stride].
  void scan(const int32_t* list, int64_t user, double* out, int64_t stride) {
    start(user);
    const std::vector<int64_t>& k = g_.options.k;
    for (size_t c = 0; c < k.size(); ++c) {
      while (rank_ < k[c]) take(list[rank_]);
      for (size_t m = 0; m < g_.options.metrics.size(); ++m) {
        out[static_cast<int64_t>(m * k.size() + c) * stride] = value(g_.options.metrics[m], k[c]);
      }
    }
  }

 private:
  void start(int64_t user) {
    relevant_ = {g_.test.indices + g_.test.indptr[user], g_.test.indices + g_.test.indptr[user + 1]};
    values_ = g_.test.values + g_.test.indptr[user];
    rank_ = hits_ = first_ = listed_ = 0;
    dcg_ = precisions_ = information_ = squares_ = 0;
    std::fill(direction_.begin(), direction_.end(), 0.0);
    if (g_.options.gains != Gains::binary) {
      gains_.clear();
      for (size_t i = 0; i < relevant_.size(); ++i) gains_.push_back(g_.gain(values_[i]));
      std::sort(gains_.begin(), gains_.end(), std::greater<>());
    }
  }

  void take(int32_t item) {
    ++rank_;
    if (item < 0) return;
    require(item < g_.test.cols, ErrorCode::range, "lists: expected item rows in -1 to ", g_.test.cols - 1,
            " but received ", item);
    ++listed_;
    const auto at = std::lower_bound(relevant_.begin(), relevant_.end(), item);
    if (at != relevant_.end() && *at == item) {
      ++hits_;
      if (!first_) first_ = rank_;
      dcg_ += g_.gain(values_[at - relevant_.begin()]) / std::log2(static_cast<double>(rank_ + 1));
      precisions_ += static_cast<double>(hits_) / static_cast<double>(rank_);
    }
    if (!g_.information.empty()) information_ += g_.information[item];
    if (const double scale = g_.inverseLength.empty() ? 0.0 : g_.inverseLength[item]; scale > 0) {
      squares_ += 1;
      for (size_t f = 0; f < direction_.size(); ++f) direction_[f] += scale * g_.vectors.row(item)[f];
    }
  }

  double value(ListMetric metric, int64_t k) const {
    const double hits = static_cast<double>(hits_), cut = static_cast<double>(k);
    const double all = static_cast<double>(relevant_.size()), best = std::min(cut, all);
    const double n = static_cast<double>(listed_);
    switch (metric) {
      case ListMetric::precision:
        return hits / cut;
      case ListMetric::recall:
        return hits / all;
      case ListMetric::f1:
        return 2 * hits / (cut + all);
      case ListMetric::hitRate:
        return hits_ > 0 ? 1 : 0;
      case ListMetric::ndcg: {
        const double ideal = idealAt(k);
        return ideal > 0 ? dcg_ / ideal : 0;
      }
      case ListMetric::map:
        return precisions_ / best;
      case ListMetric::mrr:
        return first_ ? 1.0 / static_cast<double>(first_) : 0;
      case ListMetric::novelty:
        return listed_ ? information_ / n : none;
      case ListMetric::diversity: {
        double squared = 0;  // |Σ v|² = Σ |v|² + 2 Σ_{i<j} v_i·v_j, so no pair is visited
        for (const double x : direction_) squared += x * x;
        return listed_ > 1 ? 1 - (squared - squares_) / (n * (n - 1)) : none;
      }
    }
    return none;
  }

  double idealAt(int64_t k) const {
    const size_t n = std::min(static_cast<size_t>(k), relevant_.size());
    if (g_.options.gains == Gains::binary) return g_.ideal[n];
    double sum = 0;
    for (size_t r = 0; r < n; ++r) sum += gains_[r] / std::log2(static_cast<double>(r + 2));
    return sum;
  }

  const Ground& g_;
  std::span<const int32_t> relevant_;
  const float* values_ = nullptr;
  std::vector<double> gains_;      // of the test items, falling
  std::vector<double> direction_;  // sum of the unit vectors of the items so far
  int64_t rank_ = 0, hits_ = 0, first_ = 0, listed_ = 0;
  double dcg_ = 0, precisions_ = 0, information_ = 0, squares_ = 0;
};

/// Row j: the list of users[j].
std::vector<const int32_t*> listRows(const std::vector<Tensor>& lists, int64_t width, int64_t users) {
  std::vector<const int32_t*> rows;
  rows.reserve(static_cast<size_t>(users));
  for (const Tensor& block : lists) {
    expect(block, "lists", DType::int32, -1);
    require(block.count() % width == 0, ErrorCode::shape, "lists: expected rows of ", width, " ids but received ",
            block.count(), " ids");
    for (int64_t at = 0; at < block.count(); at += width) rows.push_back(block.data<int32_t>() + at);
  }
  require(static_cast<int64_t>(rows.size()) == users, ErrorCode::shape, "lists: expected one list for each of ", users,
          " users but received ", rows.size());
  return rows;
}

/// How often each item is among the first k of a list.
void countItems(std::span<const int32_t* const> lists, int64_t from, int64_t to, std::vector<int64_t>& counts) {
  for (const int32_t* list : lists) {
    for (int64_t r = from; r < to; ++r) {
      if (list[r] >= 0) ++counts[list[r]];
    }
  }
}

double coverage(const std::vector<int64_t>& counts) {
  const auto recommended = std::count_if(counts.begin(), counts.end(), [](int64_t n) { return n > 0; });
  return static_cast<double>(recommended) / static_cast<double>(counts.size());
}

double gini(std::vector<int64_t> counts) {
  std::sort(counts.begin(), counts.end());
  const double n = static_cast<double>(counts.size());
  double weighted = 0, total = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    weighted += (2.0 * static_cast<double>(i + 1) - n - 1) * static_cast<double>(counts[i]);
    total += static_cast<double>(counts[i]);
  }
  return total > 0 ? weighted / (n * total) : none;
}

}  // namespace

namespace ops {

TypedArray rowsWithEntries(Job&, Csr matrix) {
  expectCsr(matrix, "matrix");
  const CsrView v = matrix.view();
  std::vector<int32_t> rows;
  for (int64_t r = 0; r < v.rows; ++r) {
    if (v.indptr[r + 1] > v.indptr[r]) rows.push_back(static_cast<int32_t>(r));
  }
  Tensor out = Tensor::host<int32_t>({static_cast<int64_t>(rows.size())});
  std::copy(rows.begin(), rows.end(), out.data<int32_t>());
  return {out};
}

ListMetricsResult listMetrics(Job& job, std::vector<Tensor> lists, Tensor users, Csr test, Csr train,
                              std::optional<Tensor> itemVectors, ListMetricsOptions options) {
  expect(users, "users", DType::int32, 1);
  expectCsr(test, "test");
  expectCsr(train, "train");
  require(!options.k.empty() && options.k.front() > 0 && std::is_sorted(options.k.begin(), options.k.end()),
          ErrorCode::range, "k: expected rising list lengths from 1");
  const auto wanted = [&](ListMetric m) {
    return std::find(options.metrics.begin(), options.metrics.end(), m) != options.metrics.end();
  };
  const int64_t count = users.rows(), width = options.k.back();
  const std::vector<const int32_t*> rows = listRows(lists, width, count);
  Ground ground{options, test.view(), idealDcg(width), {}, {}, {}};
  if (wanted(ListMetric::novelty)) ground.information = selfInformation(train.view());
  require(train.cols == test.cols, ErrorCode::shape, "train: expected ", test.cols, " items, as in test, but received ",
          train.cols);
  if (wanted(ListMetric::diversity)) {
    require(itemVectors.has_value(), ErrorCode::argument, "itemVectors: diversity needs a vector for each item");
    expect(*itemVectors, "itemVectors", DType::float32, 2);
    require(itemVectors->rows() == test.cols, ErrorCode::shape, "itemVectors: expected ", test.cols,
            " rows, one for each item, but received ", itemVectors->rows());
    ground.vectors = {itemVectors->data<float>(), itemVectors->rows(), itemVectors->cols()};
    ground.inverseLength = inverseLengths(ground.vectors, job.exec());
  }

  const int64_t values = static_cast<int64_t>(options.metrics.size() * options.k.size());
  const int64_t blocks = (count + usersPerBlock - 1) / usersPerBlock;
  struct Sum {
    double total = 0;
    int64_t users = 0;  // those for whom the metric is defined
  };
  std::vector<Sum> partial(static_cast<size_t>(blocks * values));
  std::optional<TypedArray> perUser;
  if (options.perUser) perUser = TypedArray{Tensor::host<double>({values * count})};

  parallelFor(blocks, 1, job.exec(), [&](int64_t begin, int64_t end, int) {
    ListScan scan(ground);
    std::vector<double> one(static_cast<size_t>(values));
    for (int64_t b = begin; b < end; ++b) {
      for (int64_t j = b * usersPerBlock; j < std::min(count, (b + 1) * usersPerBlock); ++j) {
        const int32_t user = users.data<int32_t>()[j];
        require(user >= 0 && user < test.rows(), ErrorCode::range, "users: expected rows in 0 to ", test.rows() - 1,
                " but received ", user);
        scan.scan(rows[j], user, one.data(), 1);
        for (int64_t v = 0; v < values; ++v) {
          if (perUser) perUser->tensor.data<double>()[v * count + j] = one[v];
          if (std::isnan(one[v])) continue;
          partial[b * values + v].total += one[v];
          ++partial[b * values + v].users;
        }
      }
    }
  });
  job.checkCancelled();

  std::vector<double> means(static_cast<size_t>(values), none);
  for (int64_t v = 0; v < values; ++v) {
    Sum sum;
    for (int64_t b = 0; b < blocks; ++b) {
      sum.total += partial[b * values + v].total;
      sum.users += partial[b * values + v].users;
    }
    if (sum.users) means[v] = sum.total / static_cast<double>(sum.users);
  }
  std::vector<double> coverages, ginis;
  if (options.catalogue) {
    std::vector<int64_t> counts(static_cast<size_t>(test.cols), 0);
    int64_t from = 0;
    for (const int64_t k : options.k) {
      countItems(rows, from, k, counts);
      coverages.push_back(coverage(counts));
      ginis.push_back(gini(counts));
      from = k;
    }
  }
  return {doubles(means), doubles(coverages), doubles(ginis), perUser};
}

}  // namespace ops
}  // namespace topknot
