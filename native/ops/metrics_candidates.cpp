// Evaluation over candidates: drawn or given negatives beside each user's test items, and predicted ratings.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/random.h"
#include "ops/ops.h"

namespace topknot {
namespace {

constexpr double none = std::numeric_limits<double>::quiet_NaN();

std::span<const int32_t> rowOf(const CsrView& m, int64_t row) {
  return {m.indices + m.indptr[row], m.indices + m.indptr[row + 1]};
}

void checkUsers(const Tensor& users, const Csr& test) {
  expect(users, "users", DType::int32, 1);
  expectCsr(test, "test");
  for (const int32_t u : users.span<int32_t>()) {
    require(u >= 0 && u < test.rows(), ErrorCode::range, "users: expected rows in 0 to ", test.rows() - 1,
            " but received ", u);
  }
}

void checkShape(const Csr& m, const char* name, const Csr& test) {
  expectCsr(m, name);
  require(m.rows() == test.rows() && m.cols == test.cols, ErrorCode::shape, name, ": expected [", test.rows(), ", ",
          test.cols, "], the shape of test, but received [", m.rows(), ", ", m.cols, "]");
}

std::vector<int32_t> united(std::span<const int32_t> a, std::span<const int32_t> b) {
  std::vector<int32_t> out;
  out.reserve(a.size() + b.size());
  std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
  return out;
}

/// `count` distinct numbers below `limit`, rising (Floyd's sampling: Bentley and Floyd, CACM 30(9), 1987).
std::vector<int64_t> distinct(int64_t count, int64_t limit, Random& random) {
  std::vector<int64_t> drawn;
  for (int64_t top = limit - count; top < limit; ++top) {
    int64_t x = static_cast<int64_t>(random.below(static_cast<uint64_t>(top + 1)));
    auto at = std::lower_bound(drawn.begin(), drawn.end(), x);
    if (at != drawn.end() && *at == x) x = top, at = drawn.end();  // every number so far is below top
    drawn.insert(at, x);
  }
  return drawn;
}

/// The items at these places among those that are not in `excluded`; both rise.
std::vector<int32_t> itemsAt(std::span<const int64_t> places, std::span<const int32_t> excluded) {
  std::vector<int32_t> items;
  size_t skipped = 0;
  for (const int64_t place : places) {
    while (skipped < excluded.size() && excluded[skipped] <= place + static_cast<int64_t>(skipped)) ++skipped;
    items.push_back(static_cast<int32_t>(place + static_cast<int64_t>(skipped)));
  }
  return items;
}

CandidatePairs flattened(const Tensor& users, const std::vector<std::vector<int32_t>>& items) {
  Tensor ptr = Tensor::host<int64_t>({users.rows() + 1});
  int64_t total = ptr.data<int64_t>()[0] = 0;
  for (size_t j = 0; j < items.size(); ++j) {
    total += static_cast<int64_t>(items[j].size());
    ptr.data<int64_t>()[j + 1] = total;
  }
  CandidatePairs out{ptr, {Tensor::host<int32_t>({total})}, {Tensor::host<int32_t>({total})}};
  for (size_t j = 0; j < items.size(); ++j) {
    const int64_t at = ptr.data<int64_t>()[j];
    std::copy(items[j].begin(), items[j].end(), out.items.tensor.data<int32_t>() + at);
    std::fill_n(out.users.tensor.data<int32_t>() + at, items[j].size(), users.data<int32_t>()[j]);
  }
  return out;
}

struct Candidate {
  float score;
  int32_t item;
  bool relevant;
};

/// Share of (test item, other) pairs in which the test item scores higher; a tie is worth half.
double areaUnderCurve(std::span<const Candidate> falling) {
  double others = 0, relevant = 0, won = 0;
  for (size_t i = falling.size(); i > 0;) {  // from the lowest score up, one group of equal scores at a time
    double tiedOthers = 0, tiedRelevant = 0;
    const float score = falling[i - 1].score;
    for (; i > 0 && (falling[i - 1].score == score || (std::isnan(score) && std::isnan(falling[i - 1].score))); --i) {
      ++(falling[i - 1].relevant ? tiedRelevant : tiedOthers);
    }
    won += tiedRelevant * (others + tiedOthers / 2);
    others += tiedOthers;
    relevant += tiedRelevant;
  }
  return others > 0 && relevant > 0 ? won / (others * relevant) : none;
}

}  // namespace

namespace ops {

CandidatePairs sampleCandidates(Job& job, Csr test, Csr train, Tensor users, int64_t negatives, int64_t seed) {
  checkUsers(users, test);
  checkShape(train, "train", test);
  require(negatives > 0, ErrorCode::range, "negatives: expected at least 1 but received ", negatives);
  const CsrView t = test.view(), seen = train.view();
  std::vector<std::vector<int32_t>> items(static_cast<size_t>(users.rows()));
  parallelFor(users.rows(), 64, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t j = begin; j < end; ++j) {
      const int32_t user = users.data<int32_t>()[j];
      const std::vector<int32_t> known = united(rowOf(t, user), rowOf(seen, user));
      const int64_t unknown = test.cols - static_cast<int64_t>(known.size());
      require(unknown >= negatives, ErrorCode::range, "negatives: user row ", user, " has only ", unknown,
              " items outside train and test, fewer than ", negatives);
      Random random(static_cast<uint64_t>(seed), static_cast<uint64_t>(user));
      items[j] = united(rowOf(t, user), itemsAt(distinct(negatives, unknown, random), known));
    }
  });
  job.checkCancelled();
  return flattened(users, items);
}

CandidatePairs givenCandidates(Job& job, Csr test, Csr given, Tensor users) {
  checkUsers(users, test);
  checkShape(given, "candidates", test);
  std::vector<std::vector<int32_t>> items(static_cast<size_t>(users.rows()));
  for (int64_t j = 0; j < users.rows(); ++j) {
    const int32_t user = users.data<int32_t>()[j];
    items[j] = united(rowOf(test.view(), user), rowOf(given.view(), user));
  }
  job.checkCancelled();
  return flattened(users, items);
}

CandidatePairs testPairs(Job&, Csr test, Tensor users) {
  checkUsers(users, test);
  std::vector<std::vector<int32_t>> items;
  for (const int32_t user : users.span<int32_t>()) {
    const auto row = rowOf(test.view(), user);
    items.emplace_back(row.begin(), row.end());
  }
  return flattened(users, items);
}

RankedCandidates rankCandidates(Job& job, Tensor ptr, Tensor items, Tensor scores, Tensor users, Csr test, int64_t k,
                                Ties ties) {
  checkUsers(users, test);
  expect(ptr, "ptr", DType::int64, 1);
  expect(items, "items", DType::int32, 1);
  expect(scores, "scores", DType::float32, 1);
  const int64_t count = users.rows(), *p = ptr.data<int64_t>();
  require(ptr.rows() == count + 1 && p[0] == 0 && std::is_sorted(p, p + count + 1) && p[count] == items.rows(),
          ErrorCode::shape, "ptr: expected ", count + 1, " rising borders up to ", items.rows());
  require(scores.rows() == items.rows(), ErrorCode::shape, "scores: expected ", items.rows(),
          " values, one for each candidate, but received ", scores.rows());
  require(k > 0, ErrorCode::range, "k: expected at least 1 but received ", k);
  RankedCandidates out{Tensor::host<int32_t>({count, k}), {Tensor::host<double>({count})}};
  const CsrView t = test.view();
  parallelFor(count, 8, job.exec(), [&](int64_t begin, int64_t end, int) {
    std::vector<Candidate> list;
    for (int64_t j = begin; j < end; ++j) {
      const auto relevant = rowOf(t, users.data<int32_t>()[j]);
      list.clear();
      for (int64_t e = p[j]; e < p[j + 1]; ++e) {
        const int32_t item = items.data<int32_t>()[e];
        if (item < 0) continue;  // behind the last item that a filter let through
        list.push_back({scores.data<float>()[e], item, std::binary_search(relevant.begin(), relevant.end(), item)});
      }
      std::sort(list.begin(), list.end(), [ties](const Candidate& a, const Candidate& b) {
        if (a.score != b.score && !(std::isnan(a.score) && std::isnan(b.score))) {
          return std::isnan(b.score) || a.score > b.score;
        }
        if (ties == Ties::against && a.relevant != b.relevant) return b.relevant;
        return a.item < b.item;
      });
      int32_t* ids = out.ids.data<int32_t>() + j * k;
      for (int64_t r = 0; r < k; ++r) ids[r] = r < static_cast<int64_t>(list.size()) ? list[r].item : -1;
      out.auc.tensor.data<double>()[j] = areaUnderCurve(list);
    }
  });
  job.checkCancelled();
  return out;
}

RankedCandidates rankByCounts(Job& job, Csr positives, Tensor above, Tensor equal, Csr train, Tensor users, int64_t k) {
  checkUsers(users, train);
  expectCsr(positives, "positives");
  expect(above, "above", DType::int32, 1);
  expect(equal, "equal", DType::int32, 1);
  const int64_t count = users.rows();
  require(positives.rows() == count && positives.cols == train.cols, ErrorCode::shape, "positives: expected [", count,
          ", ", train.cols, "] (users, items) but received [", positives.rows(), ", ", positives.cols, "]");
  require(above.rows() == positives.nnz() && equal.rows() == positives.nnz(), ErrorCode::shape, "above: expected ",
          positives.nnz(), " counts, one for each positive, but received ", above.rows(), " and ", equal.rows());
  require(k > 0, ErrorCode::range, "k: expected at least 1 but received ", k);
  RankedCandidates out{Tensor::host<int32_t>({count, k}), {Tensor::host<double>({count})}};
  const CsrView p = positives.view(), seen = train.view();
  parallelFor(count, 64, job.exec(), [&](int64_t begin, int64_t end, int) {
    std::vector<std::pair<int64_t, int32_t>> standing;  // others not behind the positive, the positive
    for (int64_t j = begin; j < end; ++j) {
      const auto masked = rowOf(seen, users.data<int32_t>()[j]), row = rowOf(p, j);
      double lost = 0;
      standing.clear();
      for (int64_t e = p.indptr[j]; e < p.indptr[j + 1]; ++e) {
        if (std::binary_search(masked.begin(), masked.end(), p.indices[e])) continue;
        const int64_t higher = above.data<int32_t>()[e], tied = equal.data<int32_t>()[e];
        require(higher >= 0 && tied >= 0, ErrorCode::range, "above: expected counts of 0 or more but entry ", e,
                " has ", higher, " above and ", tied, " equal");
        lost += static_cast<double>(higher) + static_cast<double>(tied) / 2;
        standing.emplace_back(higher + tied, p.indices[e]);
      }
      std::sort(standing.begin(), standing.end());
      int32_t* ids = out.ids.data<int32_t>() + j * k;
      std::fill_n(ids, k, -1);
      for (size_t ahead = 0; ahead < standing.size(); ++ahead) {
        const int64_t rank = standing[ahead].first + static_cast<int64_t>(ahead);
        if (rank < k) ids[rank] = standing[ahead].second;
      }
      const double relevant = static_cast<double>(standing.size());
      const double others = static_cast<double>(train.cols - static_cast<int64_t>(united(masked, row).size()));
      out.auc.tensor.data<double>()[j] = relevant > 0 && others > 0 ? 1 - lost / (relevant * others) : none;
    }
  });
  job.checkCancelled();
  return out;
}

RatingErrors ratingErrors(Job&, Csr test, Tensor users, Tensor predicted, double least, double most, bool perUser) {
  checkUsers(users, test);
  expect(predicted, "predicted", DType::float32, 1);
  require(least <= most, ErrorCode::range, "clip: expected [least, most] but received [", least, ", ", most, "]");
  const CsrView t = test.view();
  const int64_t count = users.rows();
  RatingErrors out{0, 0, std::nullopt};
  if (perUser) out.perUser = TypedArray{Tensor::host<double>({2 * count})};
  int64_t at = 0;
  for (int64_t j = 0; j < count; ++j) {
    const int32_t user = users.data<int32_t>()[j];
    const int64_t n = t.indptr[user + 1] - t.indptr[user];
    require(at + n <= predicted.rows(), ErrorCode::shape, "predicted: expected a value for each test entry of ", count,
            " users but received ", predicted.rows());
    double squared = 0, absolute = 0;
    for (int64_t e = 0; e < n; ++e) {
      const double clipped = std::clamp(static_cast<double>(predicted.data<float>()[at++]), least, most);
      const double error = clipped - t.values[t.indptr[user] + e];
      squared += error * error;
      absolute += std::abs(error);
    }
    out.squared += squared;
    out.absolute += absolute;
    if (out.perUser) {
      out.perUser->tensor.data<double>()[j] = std::sqrt(squared / static_cast<double>(n));
      out.perUser->tensor.data<double>()[count + j] = absolute / static_cast<double>(n);
    }
  }
  require(at == predicted.rows(), ErrorCode::shape, "predicted: expected ", at, " values but received ",
          predicted.rows());
  return out;
}

}  // namespace ops
}  // namespace topknot
