// The order in which the ALS kernels take rows, and their working memory.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "backend/als_args.h"
#include "core/tensor.h"

namespace topknot {

/// Working memory of 64-byte aligned floats, not initialised.
class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(int64_t count) : buffer_(Buffer::host(static_cast<size_t>(count) * sizeof(float))) {}
  float* data() const { return static_cast<float*>(buffer_->data()); }

 private:
  std::shared_ptr<Buffer> buffer_;
};

/// Rows by falling count of entries, in chunks of about equal cost: the heavy rows start first, so that none is left
/// for the end. The result of a row never depends on the chunk it is in.
struct Schedule {
  std::vector<int32_t> order;    // row ids; empty rows are left out
  std::vector<int64_t> borders;  // chunk c is order[borders[c], borders[c + 1])

  /// A row costs its entries plus `overhead`.
  Schedule(const CsrView& rows, int64_t overhead) {
    const auto entries = [&](int64_t u) { return rows.indptr[u + 1] - rows.indptr[u]; };
    constexpr int64_t sorted = 1 << 16;  // rows beyond it, all heavy, stay in their own order
    std::vector<int64_t> first(sorted + 1, 0);
    for (int64_t u = 0; u < rows.rows; ++u) ++first[sorted - std::min(entries(u), sorted)];
    int64_t sum = 0;
    for (int64_t& f : first) sum += std::exchange(f, sum);
    order.resize(static_cast<size_t>(first[sorted]));
    for (int64_t u = 0; u < rows.rows; ++u) {
      if (entries(u) > 0) order[first[sorted - std::min(entries(u), sorted)]++] = static_cast<int32_t>(u);
    }
    const int64_t total = rows.indptr[rows.rows] - rows.indptr[0] + overhead * static_cast<int64_t>(order.size());
    const int64_t target = std::max<int64_t>(total / 1024, 8 * overhead);
    borders.push_back(0);
    int64_t cost = 0;
    for (size_t q = 0; q < order.size(); ++q) {
      cost += entries(order[q]) + overhead;
      if (cost < target && q + 1 < order.size()) continue;
      borders.push_back(static_cast<int64_t>(q) + 1);
      cost = 0;
    }
  }
  int64_t chunks() const { return static_cast<int64_t>(borders.size()) - 1; }
};

/// Prefetches the factors of the coming entries of some rows, up to 32 KB ahead of their use.
class Ahead {
 public:
  Ahead(const CsrView& rows, const int32_t* begin, const int32_t* end, const float* factors, int64_t ld)
      : rows_(rows), factors_(factors), ld_(ld), row_(begin), end_(end), most_(8192 / ld + 1) {
    open();
  }
  void step(int64_t count) {
    for (; count > 0 && lead_ < most_ && row_ < end_; --count, ++lead_) {
      const float* factor = factors_ + rows_.indices[e_] * ld_;
      for (int64_t j = 0; j < ld_; j += 16) __builtin_prefetch(factor + j, 0, 2);
      if (++e_ == last_) {
        ++row_;
        open();
      }
    }
  }
  /// Tells that the next `count` entries have been read.
  void used(int64_t count) {
    lead_ -= count;
    while (lead_ < 0 && row_ < end_) {  // overtaken: skip what has been read
      const int64_t skip = std::min(-lead_, last_ - e_);
      lead_ += skip;
      if ((e_ += skip) == last_) {
        ++row_;
        open();
      }
    }
  }

 private:
  void open() {
    if (row_ >= end_) return;
    e_ = rows_.indptr[*row_];
    last_ = rows_.indptr[*row_ + 1];
  }
  const CsrView& rows_;
  const float* factors_;
  int64_t ld_;
  const int32_t *row_, *end_;
  int64_t most_, e_ = 0, last_ = 0, lead_ = 0;
};

}  // namespace topknot
