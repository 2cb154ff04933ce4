// Rows of ids: from 64-bit keys to positions in a list of known keys, and from one numbering to another.
#include <bit>

#include "ops/interactions.h"
#include "ops/ops.h"

namespace topknot {
namespace {

constexpr int64_t entryGrain = 1 << 16;

/// From key to its index: open addressing, at most half full.
class KeyTable {
 public:
  explicit KeyTable(std::span<const int64_t> known)
      : slots_(std::bit_ceil(2 * known.size() + 2)), shift_(64 - std::countr_zero(slots_.size())) {
    for (size_t i = 0; i < known.size(); ++i) {
      Slot* slot = find(known[i]);
      require(slot->row < 0, ErrorCode::value, "known: key ", known[i], " at entry ", i, " repeats that of entry ",
              slot->row);
      *slot = {known[i], static_cast<int32_t>(i)};
    }
  }

  void prefetch(int64_t key) const { __builtin_prefetch(&slots_[start(key)]); }
  int32_t row(int64_t key) const { return const_cast<KeyTable*>(this)->find(key)->row; }

 private:
  struct Slot {
    int64_t key = 0;
    int32_t row = -1;
  };

  /// Fibonacci hashing: integers that follow each other land far apart.
  size_t start(int64_t key) const {
    const uint64_t k = static_cast<uint64_t>(key);
    return static_cast<size_t>(((k ^ k >> 32) * 0x9E3779B97F4A7C15u) >> shift_);
  }

  /// The slot of the key, or the empty one where it belongs.
  Slot* find(int64_t key) {
    for (size_t at = start(key);; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at].row < 0 || slots_[at].key == key) return &slots_[at];
    }
  }

  std::vector<Slot> slots_;
  int shift_;
};

}  // namespace

namespace ops {

Tensor rowsOfKeys(Job& job, Tensor keys, Tensor known) {
  expect(keys, "keys", DType::int64, 1);
  expect(known, "known", DType::int64, 1);
  const KeyTable table(known.span<int64_t>());
  Tensor rows = Tensor::host<int32_t>({keys.count()});
  const int64_t* in = keys.data<int64_t>();
  int32_t* out = rows.data<int32_t>();
  parallelFor(keys.count(), entryGrain, job.exec(), [&](int64_t begin, int64_t end, int) {
    constexpr int64_t ahead = 16;
    for (int64_t i = begin; i < end; ++i) {
      if (i + ahead < end) table.prefetch(in[i + ahead]);
      out[i] = table.row(in[i]);
    }
  });
  job.checkCancelled();
  return rows;
}

Tensor remapRows(Job& job, Tensor rows, Tensor map) {
  expect(rows, "rows", DType::int32, 1);
  expect(map, "map", DType::int32, 1);
  Tensor out = Tensor::host<int32_t>({rows.count()});
  parallelFor(rows.count(), entryGrain, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int32_t row = rows.data<int32_t>()[i];
      require(row < map.count(), ErrorCode::range, "rows: expected rows below ", map.count(), " but received ", row);
      out.data<int32_t>()[i] = row < 0 ? row : map.data<int32_t>()[row];
    }
  });
  job.checkCancelled();
  return out;
}

}  // namespace ops
}  // namespace topknot
