// Nearest neighbours of sparse rows: one row of the product a · b at a time, in a dense accumulator of the thread, with
// the k best of it selected at once, so that the product is never held.
#include <algorithm>
#include <vector>

#include "backend/neighbours_args.h"
#include "cpu/kernels/candidates.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/neighbours.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

constexpr int64_t grain = 16;  // rows
constexpr int64_t span = 64;   // columns that one mark stands for

/// The row being computed, as one thread holds it.
class RowProduct {
 public:
  explicit RowProduct(const NeighboursArgs& a)
      : a_(a),
        marks_(static_cast<size_t>((a.b.cols + span - 1) / span)),
        sums_(static_cast<int64_t>(marks_.size()) * span),
        norms_(static_cast<int64_t>(marks_.size()) * span),
        best_(1, 1, a.k, a.b.cols, &noSlack) {
    std::fill_n(sums_.data(), static_cast<int64_t>(marks_.size()) * span, 0.0f);
    std::fill_n(std::copy_n(a.bNorms, a.b.cols, norms_.data()), padding(), 1.0f);
  }

  void neighboursOf(int64_t row) {
    multiply(row);
    best_.restart(0);
    const hn::ScalableTag<float> d;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    const auto norm = hn::Set(d, a_.aNorms[row]), shrinkage = hn::Set(d, a_.shrinkage), zero = hn::Zero(d);
    const int64_t self = a_.self < 0 ? -1 : a_.self + row;
    for (size_t m = 0; m < marks_.size(); ++m) {
      if (!marks_[m]) continue;
      marks_[m] = 0;
      const int64_t begin = static_cast<int64_t>(m) * span;
      for (int64_t c = begin; c < begin + span; c += lanes) {
        const auto sum = hn::Load(d, sums_.data() + c);
        hn::Store(zero, d, sums_.data() + c);
        const auto above = hn::Gt(sum, zero);
        if (hn::AllFalse(d, above)) continue;
        HWY_ALIGN float similarity[HWY_MAX_BYTES / sizeof(float)];
        const auto s = hn::Div(sum, hn::MulAdd(norm, hn::Load(d, norms_.data() + c), shrinkage));
        hn::Store(hn::IfThenElseZero(above, s), d, similarity);
        for (int64_t lane = 0; lane < lanes; ++lane) {
          if (!(similarity[lane] > 0) || similarity[lane] <= best_.thresholds()[0] || c + lane == self) continue;
          best_.push(0, keyOf(similarity[lane], static_cast<int32_t>(c + lane)));
        }
      }
    }
    const std::span<Key> found = best_.of(0);
    sortBestFirst(found);
    const int64_t count = std::min<int64_t>(a_.k, static_cast<int64_t>(found.size()));
    writeBest(found.first(static_cast<size_t>(count)), a_.k, a_.ids + row * a_.k, a_.scores + row * a_.k);
  }

 private:
  static constexpr double noSlack = 0;

  int64_t padding() const { return static_cast<int64_t>(marks_.size()) * span - a_.b.cols; }

  void multiply(int64_t row) {
    float* sums = sums_.data();
    for (int64_t e = a_.a.indptr[row]; e < a_.a.indptr[row + 1]; ++e) {
      const int64_t term = a_.a.indices[e];
      const float weight = a_.a.values[e];
      for (int64_t f = a_.b.indptr[term]; f < a_.b.indptr[term + 1]; ++f) {
        const int32_t c = a_.b.indices[f];
        sums[c] += weight * a_.b.values[f];
        marks_[c / span] = 1;
      }
    }
  }

  const NeighboursArgs& a_;
  std::vector<uint8_t> marks_;  // spans of columns that the row has reached
  AlignedFloats sums_, norms_;  // all sums are zero between rows
  Candidates best_;
};

}  // namespace

Status neighbours(const Exec& exec, const NeighboursArgs& a) {
  return guard([&] {
    std::vector<std::unique_ptr<RowProduct>> products(maxThreads);
    parallelFor(a.a.rows, grain, exec, [&](int64_t begin, int64_t end, int slot) {
      if (!products[slot]) products[slot] = std::make_unique<RowProduct>(a);
      for (int64_t row = begin; row < end; ++row) products[slot]->neighboursOf(row);
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
