// Sparse matrices for tests of kernels.
#pragma once
#include <algorithm>
#include <cstdint>
#include <set>
#include <vector>

#include "core/random.h"
#include "test/placed.h"

namespace topknot::test {

/// Row r has as many entries as `lengths` says, over and over; values in (0, 2].
struct Sparse {
  int64_t rows, cols;
  std::vector<int64_t> indptr{0};
  std::vector<int32_t> indices;
  std::vector<float> values;

  Sparse(int64_t rows, int64_t cols, const std::vector<int64_t>& lengths, uint64_t seed = 1) : rows(rows), cols(cols) {
    for (int64_t r = 0; r < rows; ++r) {
      Random random(seed, static_cast<uint64_t>(r));
      const int64_t length = std::min(lengths[static_cast<size_t>(r) % lengths.size()], cols);
      std::set<int32_t> row;
      while (static_cast<int64_t>(row.size()) < length) {
        row.insert(static_cast<int32_t>(random.below(static_cast<uint64_t>(cols))));
      }
      indices.insert(indices.end(), row.begin(), row.end());
      for (int64_t e = 0; e < length; ++e) values.push_back(static_cast<float>(2 - 2 * random.uniform()));
      indptr.push_back(static_cast<int64_t>(indices.size()));
    }
  }
  CsrView view(Placed& memory) const {
    return {memory.place(indptr), memory.place(indices), memory.place(values), rows, cols};
  }
};

inline std::vector<float> normals(int64_t count, uint64_t seed) {
  std::vector<float> out;
  Random random(seed, 0);
  for (int64_t i = 0; i < count; ++i) out.push_back(static_cast<float>(random.normal()));
  return out;
}

}  // namespace topknot::test
