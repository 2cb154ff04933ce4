// Bags of very different lengths in chunks of about equal work.
#pragma once
#include <algorithm>
#include <cstdint>

#include "backend/embedding_args.h"

namespace topknot {

/// How many of the entries [begin, end) are not padding.
inline float rowsIn(const BagsView& bags, int64_t begin, int64_t end) {
  if (bags.padding < 0) return static_cast<float>(end - begin);
  int64_t rows = 0;
  for (int64_t i = begin; i < end; ++i) rows += bags.ids[i] != bags.padding;
  return static_cast<float>(rows);
}

/// Work is counted in entries, plus one for each bag. A chunk [begin, end) of it is the bags [bagAt(begin),
/// bagAt(end)).
class BagChunks {
 public:
  BagChunks(const BagsView& bags, int64_t rowBytes)
      : offsets_(bags.offsets),
        bags_(bags.bags),
        grain_(std::clamp<int64_t>((int64_t{128} << 10) / std::max<int64_t>(rowBytes, 1), 16, 4096)) {}

  int64_t work() const { return offsets_[bags_] + bags_; }
  int64_t grain() const { return grain_; }
  /// The first bag that starts at this amount of work or later.
  int64_t bagAt(int64_t work) const {
    int64_t low = 0, high = bags_;
    while (low < high) {
      const int64_t mid = (low + high) / 2;
      offsets_[mid] + mid < work ? low = mid + 1 : high = mid;
    }
    return low;
  }

 private:
  const int64_t* offsets_;
  int64_t bags_, grain_;
};

}  // namespace topknot
