// BPR where one row alone moves: the rows of items, and what a user's row is made of. Few rows, short ones: plain
// loops.
#include <algorithm>
#include <cmath>

#include "backend/negatives.h"
#include "models/bpr.h"
#include "models/bpr_schedule.h"
#include "models/factor_rows.h"

namespace topknot {
namespace {

/// Vectors with a bias, as double.
struct Vectors {
  const Tensor& factors;
  const Tensor* biases;

  double bias(int64_t r) const { return biases ? static_cast<double>(biases->data<float>()[r]) : 0; }
  const float* row(int64_t r) const { return factors.data<float>() + r * factors.cols(); }
};

template <typename A>
double dot(const A* a, const float* b, int64_t f) {
  double sum = 0;
  for (int64_t k = 0; k < f; ++k) sum += static_cast<double>(a[k]) * static_cast<double>(b[k]);
  return sum;
}

double sigmoid(double s) { return 1 / (1 + std::exp(-s)); }

/// The negatives of users whose own items are known, as the kernel draws them.
class Negatives {
 public:
  Negatives(const Csr& users, const BprOptions& o)
      : candidates_(o.negativeSampling == BprSampling::hard ? o.candidates : 1),
        pool_(o.negativeSampling == BprSampling::popularity ? users.indices.data<int32_t>() : nullptr),
        places_(pool_ ? users.nnz() : users.cols) {}

  /// The best-scored candidate, the first of equals; -1 without any.
  template <typename Score>
  int32_t draw(const OwnItems& own, Random& random, Score&& score) const {
    int32_t best = -1;
    double most = 0;
    for (int64_t n = 0; n < candidates_; ++n) {
      const int32_t item = drawNegative(own, pool_, places_, random);
      if (item < 0) continue;
      const double s = candidates_ > 1 ? score(item) : 0;
      if (best >= 0 && !(s > most)) continue;
      best = item;
      most = s;
    }
    return best;
  }

 private:
  int64_t candidates_;
  const int32_t* pool_;
  int64_t places_;
};

/// Interactions of users who have not chosen an item.
class OthersChoices {
 public:
  OthersChoices(const Csr& users, const std::vector<uint8_t>& ownBits) : all_{users.view(), ownBits.data()} {}

  struct Choice {
    int64_t user;
    int32_t item;  // -1: none was found
  };
  Choice draw(int32_t unchosen, Random& random) const {
    const CsrView& v = all_.rows;
    for (int attempt = 0; attempt < negativeTries; ++attempt) {
      const int64_t place = random.below32(static_cast<uint32_t>(v.indptr[v.rows]));
      const int64_t user = std::upper_bound(v.indptr, v.indptr + v.rows + 1, place) - v.indptr - 1;
      if (!OwnItems(all_, user).has(unchosen)) return {user, v.indices[place]};
    }
    return {0, -1};
  }
  OwnItems of(int64_t user) const { return {all_, user}; }

 private:
  OwnItemsView all_;
};

void checkItems(Job& job, const Csr& users, const Tensor& itemFactors, const std::optional<Tensor>& itemBiases) {
  expect(itemFactors, "itemFactors", DType::float32, 2);
  expectInteractions(job, users, "users");
  require(users.cols == itemFactors.rows(), ErrorCode::shape, "users: expected ", itemFactors.rows(),
          " columns, one for each item, but received ", users.cols);
  require(users.nnz() > 0, ErrorCode::value, "users: expected at least one interaction");
  if (itemBiases) expectFloats(*itemBiases, "itemBiases", {itemFactors.rows()});
}

}  // namespace

namespace ops {

Tensor bprItems(Job& job, Csr rows, Tensor at, Tensor userFactors, Tensor itemFactors, std::optional<Tensor> itemBiases,
                Csr users, BprOptions o) {
  checkItems(job, users, itemFactors, itemBiases);
  const int64_t f = o.factors = itemFactors.cols(), width = f + (o.biases ? 1 : 0);
  checkOptions(o);
  expectInteractions(job, rows, "rows");
  expectFloats(userFactors, "userFactors", {users.rows(), f});
  expect(at, "at", DType::int32, 1);
  require(rows.cols == users.rows() && rows.rows() == at.count(), ErrorCode::shape, "rows: expected shape [",
          at.count(), ", ", users.rows(), "] but received [", rows.rows(), ", ", rows.cols, "]");
  for (const int32_t item : at.span<int32_t>()) {
    require(item >= 0 && item < users.cols, ErrorCode::range, "at: expected items in 0 to ", users.cols - 1,
            " but received ", item);
  }
  const Vectors x{userFactors, nullptr}, y{itemFactors, itemBiases ? &*itemBiases : nullptr};
  const std::vector<uint8_t> ownBits = ownItemBits(job, users);
  const OthersChoices choices(users, ownBits);
  const Negatives negatives(users, o);
  const CsrView v = rows.view();
  const double keep = 1 - o.learningRate * o.regularization;
  const Tensor out = Tensor::host<float>({rows.rows(), width});
  parallelFor(rows.rows(), 1, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const int32_t item = at.data<int32_t>()[r];
      const int32_t* own = v.indices + v.indptr[r];
      const int64_t count = v.indptr[r + 1] - v.indptr[r];
      std::vector<double> z(static_cast<size_t>(f), 0.0);
      double bias = 0;
      Random random(static_cast<uint64_t>(o.seed), bprStream(BprPurpose::itemRows, 0, 1));
      const auto step = [&](int64_t user, int32_t other, double sign) {
        const float* vector = x.row(user);
        const double margin = dot(z.data(), vector, f) + bias - dot(vector, y.row(other), f) - y.bias(other);
        const double move = sign * o.learningRate * sigmoid(-sign * margin);
        for (int64_t k = 0; k < f; ++k) {
          double& number = z[static_cast<size_t>(k)];
          number = keep * number + move * static_cast<double>(vector[k]);
        }
        if (o.biases) bias = keep * bias + move;
      };
      // How often an epoch of a fit draws the item as a negative.
      const int64_t drawn = o.negativeSampling == BprSampling::popularity
                                ? count
                                : std::max<int64_t>(1, (users.nnz() + users.cols / 2) / users.cols);
      const auto epoch = [&](int64_t number) {
        int64_t taken = number * count;
        for (const int64_t e : bprFoldOrder(count, number, static_cast<uint64_t>(o.seed), BprPurpose::itemRows)) {
          if (job.cancelled()) return;
          const int64_t user = own[e];
          const int32_t other = negatives.draw(choices.of(user), random, [&](int32_t candidate) {
            return dot(x.row(user), y.row(candidate), f) + y.bias(candidate);
          });
          if (other >= 0) step(user, other, 1);
          ++taken;
          for (int64_t n = taken * drawn / count - (taken - 1) * drawn / count; n > 0; --n) {
            const auto choice = choices.draw(item, random);
            if (choice.item >= 0) step(choice.user, choice.item, -1);
          }
        }
      };
      for (int64_t number = 0; number < o.iterations; ++number) epoch(number);
      for (int64_t k = 0; k < f; ++k) out.data<float>()[r * width + k] = static_cast<float>(z[static_cast<size_t>(k)]);
      if (o.biases) out.data<float>()[r * width + f] = static_cast<float>(bias);
    }
  });
  job.checkCancelled();
  expectBounded(job, out, o.learningRate, o.regularization);
  return out;
}

Explained bprExplain(Job& job, Csr row, Tensor itemFactors, std::optional<Tensor> itemBiases, Csr users, int64_t target,
                     BprOptions o) {
  checkItems(job, users, itemFactors, itemBiases);
  const int64_t f = o.factors = itemFactors.cols(), items = itemFactors.rows();
  checkOptions(o);
  expectInteractions(job, row, "row");
  require(row.rows() == 1 && row.cols == items, ErrorCode::shape, "row: expected shape [1, ", items, "] but received [",
          row.rows(), ", ", row.cols, "]");
  require(target >= 0 && target < items, ErrorCode::range, "target: expected an item in 0 to ", items - 1,
          " but received ", target);
  const Vectors y{itemFactors, itemBiases ? &*itemBiases : nullptr};
  const std::vector<uint8_t> ownBits = ownItemBits(job, row);
  const OwnItems own({row.view(), ownBits.data()}, 0);
  const Negatives negatives(users, o);
  const int64_t count = row.nnz();
  const double keep = 1 - o.learningRate * o.regularization;

  struct Step {
    int64_t entry;
    int32_t negative;
    double move;  // η g
  };
  std::vector<Step> steps;
  std::vector<double> x(static_cast<size_t>(f), 0.0);
  Random random(static_cast<uint64_t>(o.seed), bprFoldDraws);
  const auto take = [&](int64_t e) {
    job.checkCancelled();
    const int32_t i = row.indices.data<int32_t>()[e];
    const auto score = [&](int32_t item) { return dot(x.data(), y.row(item), f) + y.bias(item); };
    const int32_t j = negatives.draw(own, random, score);
    if (j < 0) return;
    const double move = o.learningRate * sigmoid(score(j) - score(i));
    for (int64_t k = 0; k < f; ++k) {
      double& number = x[static_cast<size_t>(k)];
      number = keep * number + move * (static_cast<double>(y.row(i)[k]) - static_cast<double>(y.row(j)[k]));
    }
    steps.push_back({e, j, move});
  };
  for (int64_t epoch = 0; epoch < o.iterations; ++epoch) {
    for (const int64_t e : bprFoldOrder(count, epoch, static_cast<uint64_t>(o.seed))) take(e);
  }
  std::vector<double> sums(static_cast<size_t>(count), 0.0);
  double left = 1;  // of a step, after those that came later
  for (size_t s = steps.size(); s-- > 0; left *= keep) {
    const Step& step = steps[s];
    const float *i = y.row(row.indices.data<int32_t>()[step.entry]), *t = y.row(target);
    sums[static_cast<size_t>(step.entry)] += left * step.move * (dot(i, t, f) - dot(y.row(step.negative), t, f));
  }
  Explained out{Tensor::host<float>({count}), y.bias(target)};
  std::transform(sums.begin(), sums.end(), out.contributions.data<float>(),
                 [](double sum) { return static_cast<float>(sum); });
  return out;
}

}  // namespace ops
}  // namespace topknot
