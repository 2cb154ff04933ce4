// The k rows of bits with the least Hamming distance: xor and a count of bits, nothing else.
#include <algorithm>
#include <vector>

#include "cpu/kernels/guard.h"
#include "cpu/kernels/topk_codes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/topk_binary.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/topk_codes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {

Status topkBinary(const Exec& exec, const TopkBinaryArgs& a) {
  return guard([&] {
    const CodesScan scan{a.items, a.rows, a.cols, a.filter, ScanItems(a.filter, a.rows)};
    const int64_t step = codeBlockQueries(a.k, a.rows, a.cols);
    const std::vector<double> shifts(step, 0.0);
    const std::vector<int32_t> starts(step + 2 * lanes, 0);
    for (int64_t first = 0; first < a.queryCount && !exec.cancelled(); first += step) {
      const int64_t n = std::min(step, a.queryCount - first);
      const CodesBlock block{scan, first, n, nullptr, starts.data(), nullptr, nullptr};
      const CandidatesBySlot kept = scanCodes<BitSum, CodeScore::negative>(
          exec, block, a.queryCount, a.k, shifts.data(), [&](int64_t q) { return a.queries + q * a.cols; });
      if (exec.cancelled()) return;
      parallelFor(n, 16, exec, [&](int64_t begin, int64_t end, int) {
        std::vector<Key> best;
        for (int64_t q = begin; q < end; ++q) {
          bestOf(kept, q, a.k, best);
          sortBestFirst(best);
          float* scores = a.scores + (first + q) * a.k;
          writeBest(best, a.k, a.ids + (first + q) * a.k, scores);
          for (int64_t j = 0; j < a.k; ++j) scores[j] = 0 - scores[j];
        }
      });
    }
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
