// Entries by the row that they look up: a stable radix sort of (row, entry), least digit first. Blocks are fixed by the
// number of entries, so every entry lands in the same place at any thread count.
#include <algorithm>
#include <bit>
#include <vector>

#include "backend/embedding_args.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/embedding_group.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

using Key = uint64_t;  // row << 32 | entry

constexpr int64_t blockKeys = 8192;
constexpr int mostDigitBits = 11;

/// Cuts [0, count) into blocks and calls body(block, begin, end).
template <typename F>
void forBlocks(const Exec& exec, int64_t count, F&& body) {
  parallelFor((count + blockKeys - 1) / blockKeys, 1, exec, [&](int64_t block, int64_t, int) {
    body(block, block * blockKeys, std::min(count, (block + 1) * blockKeys));
  });
}

class Sorter {
 public:
  Sorter(const Exec& exec, const EmbeddingGroupArgs& a) : exec_(exec), a_(a) {
    const int bits = std::max(1, static_cast<int>(std::bit_width(static_cast<uint64_t>(a.tableRows - 1))));
    passes_ = (bits + mostDigitBits - 1) / mostDigitBits;
    digitBits_ = (bits + passes_ - 1) / passes_;
    keys_.resize(static_cast<size_t>(a.count));
    if (passes_ > 1) spare_.resize(static_cast<size_t>(a.count));
  }

  /// Returns how many entries are not padding; they are in keys().
  int64_t sort() {
    const int32_t* ids = a_.ids;
    int64_t count = pass(0, a_.count, keys_.data(),
                         [ids](int64_t i) { return Key{static_cast<uint32_t>(ids[i])} << 32 | static_cast<Key>(i); });
    for (int p = 1; p < passes_; ++p) {
      const Key* from = keys_.data();
      pass(p, count, spare_.data(), [from](int64_t i) { return from[i]; });
      keys_.swap(spare_);
    }
    return count;
  }
  const std::vector<Key>& keys() const { return keys_; }

 private:
  template <typename KeyAt>
  int64_t pass(int p, int64_t count, Key* out, KeyAt keyAt) {
    const int shift = 32 + p * digitBits_;
    const int64_t digits = int64_t{1} << digitBits_, blocks = (count + blockKeys - 1) / blockKeys;
    const Key mask = static_cast<Key>(digits - 1), padding = p == 0 ? static_cast<Key>(a_.padding) : ~Key{0};
    places_.assign(static_cast<size_t>(blocks * digits), 0);
    forBlocks(exec_, count, [&](int64_t block, int64_t begin, int64_t end) {
      uint32_t* places = places_.data() + block * digits;
      for (int64_t i = begin; i < end; ++i) {
        const Key key = keyAt(i);
        places[key >> shift & mask] += key >> 32 != padding;
      }
    });
    uint32_t sum = 0;
    for (int64_t digit = 0; digit < digits; ++digit) {
      for (int64_t block = 0; block < blocks; ++block) {
        uint32_t& place = places_[block * digits + digit];
        const uint32_t here = place;
        place = sum;
        sum += here;
      }
    }
    forBlocks(exec_, count, [&](int64_t block, int64_t begin, int64_t end) {
      uint32_t* places = places_.data() + block * digits;
      for (int64_t i = begin; i < end; ++i) {
        const Key key = keyAt(i);
        if (key >> 32 != padding) out[places[key >> shift & mask]++] = key;
      }
    });
    return sum;
  }

  const Exec& exec_;
  const EmbeddingGroupArgs& a_;
  int passes_, digitBits_;
  std::vector<Key> keys_, spare_;
  std::vector<uint32_t> places_;
};

}  // namespace

Status embeddingGroup(const Exec& exec, const EmbeddingGroupArgs& a) {
  return guard([&] {
    Sorter sorter(exec, a);
    const int64_t count = sorter.sort();
    const Key* keys = sorter.keys().data();
    const auto first = [keys](int64_t i) { return i == 0 || keys[i] >> 32 != keys[i - 1] >> 32; };
    std::vector<int64_t> groupsBefore(static_cast<size_t>((count + blockKeys - 1) / blockKeys) + 1, 0);
    forBlocks(exec, count, [&](int64_t block, int64_t begin, int64_t end) {
      int64_t groups = 0;
      for (int64_t i = begin; i < end; ++i) groups += first(i);
      groupsBefore[block + 1] = groups;
    });
    for (size_t b = 1; b < groupsBefore.size(); ++b) groupsBefore[b] += groupsBefore[b - 1];
    forBlocks(exec, count, [&](int64_t block, int64_t begin, int64_t end) {
      int64_t group = groupsBefore[block];
      for (int64_t i = begin; i < end; ++i) {
        a.order[i] = static_cast<int32_t>(keys[i] & 0xffffffffu);
        if (!first(i)) continue;
        a.rows[group] = static_cast<int32_t>(keys[i] >> 32);
        a.starts[group++] = i;
      }
    });
    *a.groups = groupsBefore.back();
    a.starts[*a.groups] = count;
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
