// Top-k over scores that are already there: one pass that compares with the threshold of the row.
#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/kernels/candidates.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/select_topk.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

constexpr int64_t chunkScores = 64 << 10;
constexpr int64_t keptBytes = 256 << 20;

/// Columns [begin, end) of one row; `local` is its place in `candidates`.
void scanScores(const SelectTopkArgs& a, Candidates& candidates, int64_t row, int64_t local, int64_t begin,
                int64_t end) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const float* scores = a.scores.row(row);
  const auto offer = [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const int32_t id = static_cast<int32_t>(i);
      if (scores[i] <= candidates.thresholds()[local] || !admits(a.filter, row, id)) continue;
      candidates.push(local, keyOf(scores[i], id));
    }
  };
  int64_t i = begin;
  for (; i + 4 * lanes <= end; i += 4 * lanes) {
    const auto threshold = hn::Set(d, candidates.thresholds()[local]);
    const auto dropped = [&](int64_t v) { return hn::Le(hn::LoadU(d, scores + i + v * lanes), threshold); };
    const auto all = hn::And(hn::And(dropped(0), dropped(1)), hn::And(dropped(2), dropped(3)));
    if (!hn::AllTrue(d, all)) offer(i, i + 4 * lanes);
  }
  offer(i, end);
}

void selectRows(const Exec& exec, const SelectTopkArgs& a, int64_t first, int64_t rows) {
  const int64_t cols = a.scores.cols;
  const int64_t chunks = (cols + chunkScores - 1) / chunkScores;
  const std::vector<double> shifts(rows, 0.0);
  CandidatesBySlot kept(maxThreads);
  const int64_t grain = std::max<int64_t>(1, chunkScores / cols);
  parallelFor(rows * chunks, grain, exec, [&](int64_t begin, int64_t end, int slot) {
    if (!kept[slot]) kept[slot] = std::make_unique<Candidates>(rows, rows, a.k, cols, shifts.data());
    for (int64_t task = begin; task < end; ++task) {
      const int64_t local = task / chunks, chunk = task % chunks * chunkScores;
      scanScores(a, *kept[slot], first + local, local, chunk, std::min(chunk + chunkScores, cols));
    }
  });
  if (exec.cancelled()) return;
  parallelFor(rows, 16, exec, [&](int64_t begin, int64_t end, int) {
    std::vector<Key> best;
    for (int64_t local = begin; local < end; ++local) {
      bestOf(kept, local, a.k, best);
      sortBestFirst(best);
      writeBest(best, a.k, a.ids + (first + local) * a.k, a.out + (first + local) * a.k);
    }
  });
}

}  // namespace

Status selectTopk(const Exec& exec, const SelectTopkArgs& a) {
  return guard([&] {
    const int64_t perRow = Candidates::capacity(a.k, a.scores.cols) * static_cast<int64_t>(sizeof(Key)) * threadCount();
    const int64_t step = std::max<int64_t>(1, keptBytes / perRow);
    for (int64_t first = 0; first < a.scores.rows && !exec.cancelled(); first += step) {
      selectRows(exec, a, first, std::min(step, a.scores.rows - first));
    }
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
