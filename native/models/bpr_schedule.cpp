#include "models/bpr_schedule.h"

#include <numeric>
#include <utility>

namespace topknot {
namespace {

void permute(std::span<int32_t> order, Random random) {
  std::iota(order.begin(), order.end(), 0);
  shuffle(static_cast<int64_t>(order.size()), random,
          [&](int64_t i, int64_t j) { std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(j)]); });
}

}  // namespace

std::vector<int64_t> bprFoldOrder(int64_t count, int64_t epoch, uint64_t seed, BprPurpose purpose) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  shuffle(count, Random(seed, bprStream(purpose, epoch, 0)),
          [&](int64_t i, int64_t j) { std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(j)]); });
  return order;
}

BprSchedule::BprSchedule(const CsrView& users, int64_t parts, uint64_t seed)
    : users_(users),
      parts_(parts),
      seed_(seed),
      userOrder_(static_cast<size_t>(users.rows)),
      blockOf_(static_cast<size_t>(users.cols)),
      starts_(static_cast<size_t>(parts * parts + 1)),
      items_(Tensor::host<int32_t>({users.cols})),
      positiveUsers_(Tensor::host<int32_t>({users.indptr[users.rows]})),
      positiveItems_(Tensor::host<int32_t>({users.indptr[users.rows]})) {}

void BprSchedule::deal(const Exec& exec, int64_t epoch) {
  epoch_ = epoch;
  parallelFor(2, 1, exec, [&](int64_t side, int64_t, int) {
    if (side == 0) return permute(userOrder_, Random(seed_, bprStream(BprPurpose::users, epoch, 0)));
    permute(items(), Random(seed_, bprStream(BprPurpose::items, epoch, 0)));
    for (int64_t b = 0; b < parts_; ++b) {
      for (int64_t i = firstItem(b); i < firstItem(b + 1); ++i)
        blockOf_[items_.data<int32_t>()[i]] = static_cast<int32_t>(b);
    }
  });
  if (exec.cancelled()) return;

  const auto forPositives = [&](int64_t stratum, auto&& f) {
    for (int64_t n = firstUser(stratum); n < firstUser(stratum + 1); ++n) {
      const int32_t user = userOrder_[n];
      for (int64_t e = users_.indptr[user]; e < users_.indptr[user + 1]; ++e) f(user, users_.indices[e]);
    }
  };
  // Sizes, then starts, of all tasks; then each stratum writes its positives to their places and shuffles them.
  std::vector<int64_t> sizes(static_cast<size_t>(parts_ * parts_), 0);
  parallelFor(parts_, 1, exec, [&](int64_t s, int64_t, int) {
    std::vector<int64_t> counts(static_cast<size_t>(parts_), 0);
    forPositives(s, [&](int32_t, int32_t item) { ++counts[blockOf_[item]]; });
    for (int64_t b = 0; b < parts_; ++b) sizes[at(s, b)] = counts[b];
  });
  if (exec.cancelled()) return;
  for (size_t t = 0; t < sizes.size(); ++t) starts_[t + 1] = starts_[t] + sizes[t];
  int32_t *users = positiveUsers_.data<int32_t>(), *items = positiveItems_.data<int32_t>();
  parallelFor(parts_, 1, exec, [&](int64_t s, int64_t, int) {
    std::vector<int64_t> next(static_cast<size_t>(parts_));
    for (int64_t b = 0; b < parts_; ++b) next[b] = starts_[at(s, b)];
    forPositives(s, [&](int32_t user, int32_t item) {
      const int64_t place = next[blockOf_[item]]++;
      users[place] = user;
      items[place] = item;
    });
    for (int64_t b = 0; b < parts_; ++b) {
      const int64_t t = at(s, b), first = starts_[t];
      shuffle(starts_[t + 1] - first, Random(seed_, bprStream(BprPurpose::order, epoch, t)), [&](int64_t i, int64_t j) {
        std::swap(users[first + i], users[first + j]);
        std::swap(items[first + i], items[first + j]);
      });
    }
  });
}

BprTask BprSchedule::task(int64_t stratum, int64_t block, bool popular, bool everywhere) const {
  const int64_t t = at(stratum, block), first = everywhere ? 0 : block, last = everywhere ? parts_ : block + 1;
  return {starts_[t], starts_[t + 1], popular ? starts_[at(0, first)] : firstItem(first),
          popular ? starts_[last * parts_] : firstItem(last), bprStream(BprPurpose::negatives, epoch_, t)};
}

}  // namespace topknot
