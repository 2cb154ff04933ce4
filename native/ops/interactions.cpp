// Cleaning: from raw triplets to a set of (user, item) pairs, by user. Steps, each counted: missing and unknown ids,
// values that are not finite or out of range, duplicates, the threshold, minimum counts. Then rows are renumbered.
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "ops/counting_sort.h"
#include "ops/ops.h"

namespace topknot {
namespace {

constexpr int64_t userGrain = 256, entryGrain = 1 << 16;

/// Why a triplet is invalid. Ingestion passes the first four; a negative row means an unknown id.
enum Reason {
  valid,
  missingUser,
  missingItem,
  missingValue,
  missingTime,
  unknownUser,
  unknownItem,
  notFinite,
  outOfRange,
  reasonCount
};

constexpr std::array<const char*, reasonCount> reasonText{"",
                                                          "has no user",
                                                          "has no item",
                                                          "has no value",
                                                          "has no time",
                                                          "names a user that is not among the given users",
                                                          "names an item that is not among the given items",
                                                          "has a value or time that is not finite",
                                                          "has a value outside minValue to maxValue"};

struct Raw {
  Tensor users, items;
  std::optional<Tensor> values, times, reasons;
  int64_t userCount, itemCount;

  int64_t count() const { return users.count(); }
  float value(int64_t i) const { return values ? values->data<float>()[i] : 1.0f; }

  Reason reason(int64_t i, const CleanOptions& options) const {
    if (reasons && reasons->data<int8_t>()[i] != valid) return static_cast<Reason>(reasons->data<int8_t>()[i]);
    if (users.data<int32_t>()[i] < 0) return unknownUser;
    if (items.data<int32_t>()[i] < 0) return unknownItem;
    if (!std::isfinite(value(i)) || (times && !std::isfinite(times->data<double>()[i]))) return notFinite;
    return value(i) < options.minValue || value(i) > options.maxValue ? outOfRange : valid;
  }
};

void check(const Raw& raw) {
  expect(raw.users, "users", DType::int32, 1);
  expect(raw.items, "items", DType::int32, 1);
  const auto sameLength = [&](const Tensor& t, const char* name) {
    require(t.count() == raw.count(), ErrorCode::shape, name, ": expected ", raw.count(),
            " entries, as many as users, but received ", t.count());
  };
  sameLength(raw.items, "items");
  if (raw.values) expect(*raw.values, "values", DType::float32, 1), sameLength(*raw.values, "values");
  if (raw.times) expect(*raw.times, "times", DType::float64, 1), sameLength(*raw.times, "times");
  if (raw.reasons) {
    expect(*raw.reasons, "reasons", DType::int8, 1), sameLength(*raw.reasons, "reasons");
    for (const int8_t reason : raw.reasons->span<int8_t>()) {
      require(reason >= 0 && reason < reasonCount, ErrorCode::range, "reasons: unknown reason ", reason);
    }
  }
  for (int64_t i = 0; i < raw.count(); ++i) {
    const int32_t user = raw.users.data<int32_t>()[i], item = raw.items.data<int32_t>()[i];
    if (raw.reasons && raw.reasons->data<int8_t>()[i] != valid) continue;
    require(user < raw.userCount, ErrorCode::range, "users: expected rows below ", raw.userCount, " but entry ", i,
            " is ", user);
    require(item < raw.itemCount, ErrorCode::range, "items: expected rows below ", raw.itemCount, " but entry ", i,
            " is ", item);
  }
}

/// The key to sort each triplet by: its user, or userCount for those to leave out, which end up behind all others.
Tensor sortKeys(const Raw& raw, const CleanOptions& options, DropCounts& counts, const Exec& exec) {
  const int64_t n = raw.count(), blocks = (n + entryGrain - 1) / entryGrain;
  Tensor keys = Tensor::host<int32_t>({n});
  struct Tally {
    std::array<int64_t, reasonCount> counts{};
    int64_t firstInvalid = -1;
  };
  std::vector<Tally> tallies(static_cast<size_t>(blocks));
  parallelFor(n, entryGrain, exec, [&](int64_t begin, int64_t end, int) {
    Tally& tally = tallies[begin / entryGrain];
    for (int64_t i = begin; i < end; ++i) {
      const Reason reason = raw.reason(i, options);
      ++tally.counts[reason];
      if (reason != valid && tally.firstInvalid < 0) tally.firstInvalid = i;
      keys.data<int32_t>()[i] = reason == valid ? raw.users.data<int32_t>()[i] : static_cast<int32_t>(raw.userCount);
    }
  });
  std::array<int64_t, reasonCount> total{};
  for (const Tally& tally : tallies) {
    if (options.refuse && tally.firstInvalid >= 0) {
      const int64_t i = tally.firstInvalid;
      const Reason reason = raw.reason(i, options);
      fail(reason == outOfRange ? ErrorCode::range : ErrorCode::value, "interaction ", i, " ", reasonText[reason],
           reason == notFinite || reason == outOfRange ? concat(" (", raw.value(i), ")") : "",
           "; pass invalid: 'drop' to leave such interactions out");
    }
    for (int r = 0; r < reasonCount; ++r) total[r] += tally.counts[r];
  }
  counts.missingUser = total[missingUser], counts.missingItem = total[missingItem];
  counts.missingValue = total[missingValue], counts.missingTime = total[missingTime];
  counts.unknownUser = total[unknownUser], counts.unknownItem = total[unknownItem];
  counts.notFinite = total[notFinite], counts.outOfRange = total[outOfRange];
  return keys;
}

/// Triplets by user: user u has entries ptr[u] to ptr[u] + size[u]; steps shrink the segments in place.
struct Segments {
  Tensor ptr, size;             // int64 [users + 1], int64 [users]
  Tensor items, values, times;  // int32, float32, float64 (empty without times) [n]
  bool timed;
  int64_t users;

  int64_t begin(int64_t u) const { return ptr.data<int64_t>()[u]; }
  int64_t& count(int64_t u) const { return size.data<int64_t>()[u]; }
  int64_t total() const { return std::accumulate(size.data<int64_t>(), size.data<int64_t>() + users, int64_t{0}); }
};

Segments byUser(const Raw& raw, const Tensor& keys, const Exec& exec) {
  const int64_t n = raw.count();
  Segments s{Tensor::host<int64_t>({raw.userCount + 2}),
             Tensor::host<int64_t>({raw.userCount}),
             Tensor::host<int32_t>({n}),
             Tensor::host<float>({n}),
             Tensor::host<double>({raw.times ? n : 0}),
             raw.times.has_value(),
             raw.userCount};
  countingSort(keys.span<int32_t>(), raw.userCount + 1, s.ptr.data<int64_t>(), exec, [&](int64_t i, int64_t at) {
    s.items.data<int32_t>()[at] = raw.items.data<int32_t>()[i];
    s.values.data<float>()[at] = raw.value(i);
    if (s.timed) s.times.data<double>()[at] = raw.times->data<double>()[i];
  });
  for (int64_t u = 0; u < s.users; ++u) s.count(u) = s.begin(u + 1) - s.begin(u);
  return s;
}

/// Works on one user's entries: order by time, merging, threshold. One per thread; keeps its scratch memory.
class UserCleaner {
 public:
  int64_t duplicates = 0, belowThreshold = 0;

  void clean(const Segments& s, int64_t user, const CleanOptions& options) {
    n_ = s.count(user);
    items_ = s.items.data<int32_t>() + s.begin(user);
    values_ = s.values.data<float>() + s.begin(user);
    times_ = s.timed ? s.times.data<double>() + s.begin(user) : nullptr;
    if (times_ && !std::is_sorted(times_, times_ + n_)) sortByTime();
    mergeDuplicates(user, options.duplicates);
    if (options.threshold) applyThreshold(*options.threshold);
    s.count(user) = n_;
  }

 private:
  void sortByTime() {
    order_.resize(static_cast<size_t>(n_));
    std::iota(order_.begin(), order_.end(), int64_t{0});
    std::stable_sort(order_.begin(), order_.end(), [&](int64_t a, int64_t b) { return times_[a] < times_[b]; });
    permute(items_, itemCopy_), permute(values_, valueCopy_), permute(times_, timeCopy_);
  }

  template <typename T>
  void permute(T* data, std::vector<T>& copy) {
    copy.assign(data, data + n_);
    for (int64_t i = 0; i < n_; ++i) data[i] = copy[order_[i]];
  }

  /// Keeps one entry of each item: the first, the last, the greatest (the first of equals), or, for 'sum', the last.
  void mergeDuplicates(int64_t user, Duplicates duplicates) {
    keys_.resize(static_cast<size_t>(n_));
    for (int64_t i = 0; i < n_; ++i) keys_[i] = static_cast<uint64_t>(items_[i]) << 32 | static_cast<uint64_t>(i);
    std::sort(keys_.begin(), keys_.end());
    dead_.assign(static_cast<size_t>(n_), false);
    bool any = false;
    for (int64_t a = 0, b = 0; a < n_; a = b) {
      const auto at = [&](int64_t k) { return static_cast<int64_t>(keys_[k] & UINT32_MAX); };
      for (b = a + 1; b < n_ && keys_[b] >> 32 == keys_[a] >> 32;) ++b;
      if (b == a + 1) continue;
      require(duplicates != Duplicates::refuse, ErrorCode::value, "duplicates: user row ", user, " has item row ",
              items_[at(a)], " ", b - a, " times; pass duplicates 'sum', 'first', 'last' or 'max' to merge them");
      any = true;
      int64_t kept = duplicates == Duplicates::first || duplicates == Duplicates::max ? at(a) : at(b - 1);
      double sum = 0;
      for (int64_t k = a; k < b; ++k) {
        sum += values_[at(k)];
        if (duplicates == Duplicates::max && values_[at(k)] > values_[kept]) kept = at(k);
        dead_[at(k)] = true;
      }
      if (duplicates == Duplicates::sum) values_[kept] = static_cast<float>(sum);
      require(std::isfinite(values_[kept]), ErrorCode::value, "duplicates: the values of user row ", user,
              " for item row ", items_[kept], " sum beyond float32");
      dead_[kept] = false;
      this->duplicates += b - a - 1;
    }
    if (any) keep([&](int64_t i) { return !dead_[i]; });
  }

  void applyThreshold(double threshold) {
    belowThreshold += keep([&](int64_t i) { return static_cast<double>(values_[i]) >= threshold; });
    std::fill_n(values_, n_, 1.0f);
  }

  /// Moves what passes to the front; returns how many did not.
  template <typename Pass>
  int64_t keep(Pass&& pass) {
    int64_t out = 0;
    for (int64_t i = 0; i < n_; ++i) {
      if (!pass(i)) continue;
      items_[out] = items_[i];
      values_[out] = values_[i];
      if (times_) times_[out] = times_[i];
      ++out;
    }
    const int64_t gone = n_ - out;
    n_ = out;
    return gone;
  }

  int64_t n_ = 0;
  int32_t* items_ = nullptr;
  float* values_ = nullptr;
  double* times_ = nullptr;
  std::vector<uint64_t> keys_;
  std::vector<bool> dead_;
  std::vector<int64_t> order_;
  std::vector<int32_t> itemCopy_;
  std::vector<float> valueCopy_;
  std::vector<double> timeCopy_;
};

void cleanUsers(const Segments& s, const CleanOptions& options, DropCounts& counts, const Exec& exec) {
  std::vector<UserCleaner> cleaners(maxThreads);
  parallelFor(s.users, userGrain, exec, [&](int64_t begin, int64_t end, int slot) {
    for (int64_t u = begin; u < end; ++u) cleaners[slot].clean(s, u, options);
  });
  for (const UserCleaner& c : cleaners) counts.duplicate += c.duplicates, counts.belowThreshold += c.belowThreshold;
}

/// Peels users and items below their minimum until none is left to peel (the largest such subset is unique), in time
/// linear in the interactions. Returns for each item whether it stays; users that go have their segment emptied.
void peel(const Segments& s, int64_t itemCount, const CleanOptions& options, DropCounts& counts) {
  const int32_t* items = s.items.data<int32_t>();
  // The users of each item, from the entries that are left.
  std::vector<int64_t> itemPtr(static_cast<size_t>(itemCount) + 1);
  const auto eachEntry = [&](auto&& visit) {
    for (int64_t u = 0; u < s.users; ++u) {
      for (int64_t i = s.begin(u); i < s.begin(u) + s.count(u); ++i) visit(u, items[i]);
    }
  };
  eachEntry([&](int64_t, int32_t item) { ++itemPtr[item + 1]; });
  std::partial_sum(itemPtr.begin(), itemPtr.end(), itemPtr.begin());
  std::vector<int64_t> next(itemPtr.begin(), itemPtr.end() - 1);
  std::vector<int32_t> usersOf(static_cast<size_t>(itemPtr.back()));
  eachEntry([&](int64_t u, int32_t item) { usersOf[next[item]++] = static_cast<int32_t>(u); });

  std::vector<int64_t> userLeft(s.size.data<int64_t>(), s.size.data<int64_t>() + s.users), itemLeft;
  for (int64_t item = 0; item < itemCount; ++item) itemLeft.push_back(itemPtr[item + 1] - itemPtr[item]);
  std::vector<bool> userGone(userLeft.size()), itemGone(itemLeft.size());
  std::vector<int64_t> pending;  // users as themselves, items as -1 - item
  const auto testUser = [&](int64_t u) {
    if (!userGone[u] && userLeft[u] < options.minUserCount) userGone[u] = true, pending.push_back(u);
  };
  const auto testItem = [&](int64_t item) {
    if (!itemGone[item] && itemLeft[item] < options.minItemCount) itemGone[item] = true, pending.push_back(-1 - item);
  };
  for (int64_t u = 0; u < s.users; ++u) testUser(u);
  for (int64_t item = 0; item < itemCount; ++item) testItem(item);
  while (!pending.empty()) {
    const int64_t gone = pending.back();
    pending.pop_back();
    if (gone >= 0) {
      for (int64_t i = s.begin(gone); i < s.begin(gone) + s.count(gone); ++i) --itemLeft[items[i]], testItem(items[i]);
    } else {
      for (int64_t i = itemPtr[-1 - gone]; i < itemPtr[-gone]; ++i) --userLeft[usersOf[i]], testUser(usersOf[i]);
    }
  }
  for (int64_t u = 0; u < s.users; ++u) {
    int64_t out = s.begin(u);
    for (int64_t i = out; i < s.begin(u) + s.count(u); ++i) {
      if (userGone[u] || itemGone[items[i]]) continue;
      s.items.data<int32_t>()[out] = items[i];
      s.values.data<float>()[out] = s.values.data<float>()[i];
      if (s.timed) s.times.data<double>()[out] = s.times.data<double>()[i];
      ++out;
    }
    counts.belowMinCount += s.begin(u) + s.count(u) - out;
    s.count(u) = out - s.begin(u);
  }
}

/// New rows for those that are used; `kept` lists their old rows, and is absent when all are used.
std::vector<int32_t> renumber(const std::vector<bool>& used, std::optional<Tensor>& kept) {
  std::vector<int32_t> rows(used.size(), -1);
  int32_t next = 0;
  for (size_t i = 0; i < used.size(); ++i) {
    if (used[i]) rows[i] = next++;
  }
  if (static_cast<size_t>(next) == used.size()) return rows;
  kept = Tensor::host<int32_t>({next});
  for (size_t i = 0; i < used.size(); ++i) {
    if (used[i]) kept->data<int32_t>()[rows[i]] = static_cast<int32_t>(i);
  }
  return rows;
}

Cleaned gathered(const Segments& s, int64_t itemCount, const CleanOptions& options, const Exec& exec) {
  Cleaned out;
  const int32_t* items = s.items.data<int32_t>();
  std::vector<bool> userUsed(static_cast<size_t>(s.users), options.keepUsers);
  std::vector<bool> itemUsed(static_cast<size_t>(itemCount), options.keepItems);
  std::vector<int64_t> ptr{0};
  for (int64_t u = 0; u < s.users; ++u) {
    if (s.count(u)) userUsed[u] = true;
    for (int64_t i = s.begin(u); i < s.begin(u) + s.count(u); ++i) itemUsed[items[i]] = true;
    ptr.push_back(ptr.back() + s.count(u));
  }
  const std::vector<int32_t> userRows = renumber(userUsed, out.keptUsers);
  const std::vector<int32_t> itemRows = renumber(itemUsed, out.keptItems);
  const int64_t n = ptr.back();
  out.data = {Tensor::host<int32_t>({n}), Tensor::host<int32_t>({n}), Tensor::host<float>({n})};
  if (s.timed) out.data.times = Tensor::host<double>({n});
  parallelFor(s.users, userGrain, exec, [&](int64_t begin, int64_t end, int) {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t from = s.begin(u), to = ptr[u], count = s.count(u);
      std::fill_n(out.data.users.data<int32_t>() + to, count, userRows[u]);
      for (int64_t i = 0; i < count; ++i) out.data.items.data<int32_t>()[to + i] = itemRows[items[from + i]];
      std::copy_n(s.values.data<float>() + from, count, out.data.values.data<float>() + to);
      if (s.timed) std::copy_n(s.times.data<double>() + from, count, out.data.times->data<double>() + to);
    }
  });
  return out;
}

}  // namespace

namespace ops {

Cleaned interactionsClean(Job& job, Tensor users, Tensor items, std::optional<Tensor> values,
                          std::optional<Tensor> times, std::optional<Tensor> reasons, int64_t userCount,
                          int64_t itemCount, CleanOptions options) {
  require(userCount >= 0 && userCount < INT32_MAX && itemCount >= 0 && itemCount < INT32_MAX, ErrorCode::range,
          "ids: expected fewer than 2147483647 users and items but received ", userCount, " and ", itemCount);
  const Raw raw{users, items, values, times, reasons, userCount, itemCount};
  check(raw);
  DropCounts counts;
  const Tensor keys = sortKeys(raw, options, counts, job.exec());
  job.checkCancelled();
  const Segments segments = byUser(raw, keys, job.exec());
  job.checkCancelled();
  cleanUsers(segments, options, counts, job.exec());
  job.checkCancelled();
  if (options.minUserCount > 1 || options.minItemCount > 1) peel(segments, itemCount, options, counts);
  Cleaned out = gathered(segments, itemCount, options, job.exec());
  job.checkCancelled();
  out.counts = counts;
  return out;
}

}  // namespace ops
}  // namespace topknot
