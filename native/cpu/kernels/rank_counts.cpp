// Ranks of the positives among all items, for AUC and for metrics of a full ranking: tiles of scores, written to a
// block that stays in the first-level cache, where excluded items become NaN (which compares false) and each
// positive's score is compared with the rest.
#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "cpu/kernels/candidates.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/rank_counts.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

constexpr int V = 2, R = tileRows<V>();
constexpr int64_t width = V * lanes;
constexpr int64_t blockRows = 16 * R;
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// A run of rising item ids, walked along with the blocks of items.
struct Ids {
  const int32_t* next;
  const int32_t* end;
};

/// Up to `width` queries, one to a lane, with the counts of their positives.
class Panel {
 public:
  Panel(const RankCountsArgs& args, const int64_t* queries, int64_t count);
  void run();

 private:
  void scorePositives();
  void scoreBlock(int64_t begin, int64_t rows);
  void exclude(int64_t begin, int64_t rows);
  void countBlock(int64_t rows);
  int64_t positives(int64_t lane) const {
    return a_.positives.indptr[queries_[lane] + 1] - a_.positives.indptr[queries_[lane]];
  }
  void multiply(const float* rows, int64_t tiles);

  const RankCountsArgs& a_;
  const int64_t* queries_;
  int64_t count_, dims_, most_ = 0;  // most_: positives of the query that has most
  AlignedFloats packed_, scratch_, scores_;
  std::vector<Ids> excluded_[width];
  std::vector<float> targets_;          // [most_][width] scores of the positives, NaN where a lane has fewer
  std::vector<int32_t> above_, equal_;  // [most_][width]
};

Panel::Panel(const RankCountsArgs& args, const int64_t* queries, int64_t count)
    : a_(args),
      queries_(queries),
      count_(count),
      dims_(args.items.cols),
      packed_(width * dims_),
      scratch_(blockRows * dims_),
      scores_(blockRows * width) {
  for (int64_t lane = 0; lane < width; ++lane) {
    for (int64_t k = 0; k < dims_; ++k) {
      packed_.data()[k * width + lane] = lane < count ? args.queries.row(queries[lane])[k] : 0.0f;
    }
    if (lane >= count) continue;
    const int64_t q = queries[lane];
    most_ = std::max(most_, positives(lane));
    const auto exclude = [&](const int32_t* ids, const int64_t* ptr, int64_t row) {
      excluded_[lane].push_back({ids + ptr[row], ids + ptr[row + 1]});
    };
    exclude(args.positives.indices, args.positives.indptr, q);
    if (args.filter.seenPtr) {
      exclude(args.filter.seenIds, args.filter.seenPtr, args.filter.seenRows ? args.filter.seenRows[q] : q);
    }
  }
  targets_.assign(most_ * width, nan);
  above_.assign(most_ * width, 0);
  equal_.assign(most_ * width, 0);
}

/// scores_ = `tiles` tiles of item rows against the panel.
void Panel::multiply(const float* rows, int64_t tiles) {
  const FloatTag d;
  for (int64_t t = 0; t < tiles; ++t) {
    Floats tile[R][V];
    multiplyTile<V>(packed_.data(), rows + t * R * dims_, dims_, 1, dims_, tile);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) hn::Store(tile[r][v], d, scores_.data() + (t * R + r) * width + v * lanes);
    }
  }
}

/// By the same tile as all other items, so that equal items tie.
void Panel::scorePositives() {
  for (int64_t lane = 0; lane < count_; ++lane) {
    const int32_t* ids = excluded_[lane][0].next;
    for (int64_t first = 0; first < positives(lane); first += blockRows) {
      const int64_t rows = std::min(blockRows, positives(lane) - first);
      const int64_t tiles = (rows + R - 1) / R;
      std::fill_n(scratch_.data(), tiles * R * dims_, 0.0f);
      for (int64_t r = 0; r < rows; ++r) {
        std::memcpy(scratch_.data() + r * dims_, a_.items.row(ids[first + r]), dims_ * sizeof(float));
      }
      multiply(scratch_.data(), tiles);
      for (int64_t r = 0; r < rows; ++r) targets_[(first + r) * width + lane] = scores_.data()[r * width + lane];
    }
  }
}

void Panel::scoreBlock(int64_t begin, int64_t rows) {
  const int64_t tiles = (rows + R - 1) / R;
  const float* items = a_.items.row(begin);
  if (rows % R) {
    std::memcpy(scratch_.data(), items, rows * dims_ * sizeof(float));
    std::fill_n(scratch_.data() + rows * dims_, (tiles * R - rows) * dims_, 0.0f);
    items = scratch_.data();
  }
  multiply(items, tiles);
}

void Panel::exclude(int64_t begin, int64_t rows) {
  float* scores = scores_.data();
  if (a_.filter.allowed) {
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t i = begin + r;
      if (!(a_.filter.allowed[i / 64] >> (i % 64) & 1)) std::fill_n(scores + r * width, width, nan);
    }
  }
  for (int64_t lane = 0; lane < count_; ++lane) {
    for (Ids& ids : excluded_[lane]) {
      for (; ids.next != ids.end && *ids.next < begin + rows; ++ids.next) {
        scores[(*ids.next - begin) * width + lane] = nan;
      }
    }
  }
}

void Panel::countBlock(int64_t rows) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  for (int64_t at = 0; at < most_ * width; at += lanes) {
    const Floats target = hn::LoadU(d, targets_.data() + at);
    const float* scores = scores_.data() + at % width;
    auto above = hn::LoadU(di, above_.data() + at), equal = hn::LoadU(di, equal_.data() + at);
    for (int64_t r = 0; r < rows; ++r, scores += width) {
      const Floats score = hn::Load(d, scores);  // a mask is -1 in each lane where it holds
      above = hn::Sub(above, hn::BitCast(di, hn::VecFromMask(d, hn::Gt(score, target))));
      equal = hn::Sub(equal, hn::BitCast(di, hn::VecFromMask(d, hn::Eq(score, target))));
    }
    hn::StoreU(above, di, above_.data() + at);
    hn::StoreU(equal, di, equal_.data() + at);
  }
}

void Panel::run() {
  if (most_ == 0) return;
  scorePositives();
  for (int64_t begin = 0; begin < a_.items.rows; begin += blockRows) {
    const int64_t rows = std::min(blockRows, a_.items.rows - begin);
    scoreBlock(begin, rows);
    exclude(begin, rows);
    countBlock(rows);
  }
  for (int64_t lane = 0; lane < count_; ++lane) {
    const int64_t out = a_.positives.indptr[queries_[lane]];
    for (int64_t j = 0; j < positives(lane); ++j) {
      a_.above[out + j] = above_[j * width + lane];
      a_.equal[out + j] = equal_[j * width + lane];
    }
  }
}

}  // namespace

Status rankCounts(const Exec& exec, const RankCountsArgs& a) {
  return guard([&] {
    // Queries with about as many positives share a panel, whose cost goes by the one that has most.
    std::vector<int64_t> order(a.queries.rows);
    std::iota(order.begin(), order.end(), int64_t{0});
    const auto positives = [&](int64_t q) { return a.positives.indptr[q + 1] - a.positives.indptr[q]; };
    std::sort(order.begin(), order.end(),
              [&](int64_t x, int64_t y) { return positives(x) != positives(y) ? positives(x) > positives(y) : x < y; });
    const int64_t panels = (a.queries.rows + width - 1) / width;
    parallelFor(panels, 1, exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        Panel(a, order.data() + p * width, std::min(width, a.queries.rows - p * width)).run();
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
