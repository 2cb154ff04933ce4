// Tasks of BPR, each on one thread. The negatives of a batch of positives are drawn first, because the draws do not
// depend on the factors: the rows that the batch needs are then on their way from the caches while the next draws are
// made.
#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/bpr_args.h"
#include "backend/negatives.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/bpr.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/padded_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {
/// The three rows after a step: decay = 1 - η λ, step = η g.
template <bool itemsFixed>
HWY_INLINE void update(float* x, float* y, float* z, int64_t stride, float decay, float step) {
  const V keep = hn::Set(d, decay), move = hn::Set(d, step);
  for (int64_t c = 0; c < stride; c += 16) {
    for (int64_t k = 0; k < 16 / N; ++k) {
      const int64_t at = c + k * N;
      const V xs = hn::Load(d, x + at), ys = hn::Load(d, y + at), zs = hn::Load(d, z + at);
      hn::Store(hn::MulAdd(move, hn::Sub(ys, zs), hn::Mul(keep, xs)), d, x + at);
      if (itemsFixed) continue;
      const V push = hn::Mul(move, xs);
      hn::Store(hn::MulAdd(keep, ys, push), d, y + at);
      hn::Store(hn::MulSub(keep, zs, push), d, z + at);
    }
  }
}

/// The candidates of a batch: those of positive p at [p * a.candidates, ...), -1 where none was found.
HWY_INLINE void drawBatch(const BprArgs& a, const BprTask& task, int64_t begin, int64_t end, Random& random,
                          int32_t* drawn) {
  constexpr int64_t ahead = 8;
  const int32_t* pool = a.pool + task.poolBegin;
  const int64_t places = task.poolEnd - task.poolBegin;
  for (int64_t p = begin; p < end; ++p) {
    if (p + 2 * ahead < task.end) __builtin_prefetch(a.users.rows.indptr + a.positiveUsers[p + 2 * ahead]);
    if (p + ahead < task.end) {
      const int64_t* row = a.users.rows.indptr + a.positiveUsers[p + ahead];
      for (int64_t byte = 2 * row[0]; byte < std::min(2 * row[1], 2 * row[0] + 512); byte += 64) {
        __builtin_prefetch(a.users.bits + byte);
      }
    }
    const int32_t user = a.positiveUsers[p];
    const OwnItems own(a.users, user);
    prefetchRow(a.userFactors + user * a.stride, a.stride);
    prefetchRow(a.itemFactors + a.positiveItems[p] * a.stride, a.stride);
    for (int32_t n = 0; n < a.candidates; ++n) {
      const int32_t item = *drawn++ = drawNegative(own, pool, places, random);
      if (item >= 0) prefetchRow(a.itemFactors + item * a.stride, a.stride);
    }
  }
}

/// The best-scored candidate, the first of equals; -1 without any.
HWY_INLINE int32_t bestOf(const BprArgs& a, const float* x, const int32_t* candidates) {
  if (a.candidates == 1) return *candidates;
  int32_t best = -1;
  float most = 0;
  for (int32_t n = 0; n < a.candidates; ++n) {
    const int32_t item = candidates[n];
    if (item < 0) continue;
    const float score =
        dot<false>(x, a.itemFactors + item * a.stride, nullptr, a.stride) + (a.itemBiases ? a.itemBiases[item] : 0.0f);
    if (best >= 0 && !(score > most)) continue;
    best = item;
    most = score;
  }
  return best;
}

template <bool itemsFixed>
HWY_INLINE void step(const BprArgs& a, int64_t p, const int32_t* candidates, BprOutcome& outcome) {
  const int32_t i = a.positiveItems[p];
  float* x = a.userFactors + a.positiveUsers[p] * a.stride;
  const int32_t j = bestOf(a, x, candidates);
  if (j < 0) return;
  float *y = a.itemFactors + i * a.stride, *z = a.itemFactors + j * a.stride;
  float margin = dot<true>(x, y, z, a.stride);
  if (a.itemBiases) margin += a.itemBiases[i] - a.itemBiases[j];
  const float g = 1.0f / (1.0f + std::exp(margin)), decay = 1.0f - a.rate * a.regularization, move = a.rate * g;
  update<itemsFixed>(x, y, z, a.stride, decay, move);
  if (a.itemBiases && !itemsFixed) {
    a.itemBiases[i] = decay * a.itemBiases[i] + move;
    a.itemBiases[j] = decay * a.itemBiases[j] - move;
  }
  ++outcome.samples;
  if (a.wantLoss) {
    const double m = static_cast<double>(margin);
    outcome.loss += std::max(-m, 0.0) + std::log1p(std::exp(-std::abs(m)));
  }
}

}  // namespace

Status bpr(const Exec& exec, const BprArgs& a) {
  return guard([&] {
    const int64_t batch = std::clamp<int64_t>(8192 / (a.stride * (2 + a.candidates)), 4, 32);  // 32 KB of rows
    parallelFor(a.taskCount, 1, exec, [&](int64_t t, int64_t, int) {
      const BprTask& task = a.tasks[t];
      std::vector<int32_t> drawn(static_cast<size_t>(batch * a.candidates));
      Random random(a.seed, task.stream);
      BprOutcome outcome{};
      for (int64_t begin = task.begin; begin < task.end && !exec.cancelled(); begin += batch) {
        const int64_t end = std::min(task.end, begin + batch);
        drawBatch(a, task, begin, end, random, drawn.data());
        const int32_t* candidates = drawn.data();
        for (int64_t p = begin; p < end; ++p, candidates += a.candidates) {
          if (a.itemsFixed) {
            step<true>(a, p, candidates, outcome);
          } else {
            step<false>(a, p, candidates, outcome);
          }
        }
      }
      a.outcomes[t] = outcome;
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
