// Attention, forward. A task is one head of one sequence and a group of query panels; keys and values come in blocks
// that stay in the caches while every panel of the group meets them. Each query keeps the largest score so far and the
// sum of its weights relative to it, so that the scores of a block are all that there ever is (Milakov and Gimelshein
// 2018; Dao et al. 2022).
#include <atomic>
#include <cstring>

#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/attention.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

#include "cpu/kernels/attention-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

constexpr int64_t groupPanels = 4;       // query panels that share a block of keys and values
constexpr int64_t chunkFlops = 1 << 20;  // work that is worth handing to a thread

/// The state of one panel of queries.
struct Panel {
  float *queries, *sums;    // [dims][width]
  float *largest, *weight;  // [width] the largest score so far; the sum of the weights, relative to it
  bool started;
};

struct Scratch {
  explicit Scratch(int64_t dims)
      : block(keysPerBlock(dims)),
        memory(2 * lanes * (groupPanels * 2 * (dims + 1) + block + 2) + 2 * roundToLanes(block * dims)) {
    float* next = memory.data();
    const auto take = [&next](int64_t n) { return std::exchange(next, next + n); };
    for (Panel& p : panels) {
      p = {take(dims * 2 * lanes), take(dims * 2 * lanes), take(2 * lanes), take(2 * lanes), false};
    }
    scores = take(block * 2 * lanes);
    factors = take(2 * lanes);
    maxima = take(2 * lanes);
    keys = take(roundToLanes(block * dims));
    values = take(block * dims);
  }
  static int64_t roundToLanes(int64_t n) { return (n + lanes - 1) / lanes * lanes; }

  int64_t block;
  AlignedFloats memory;
  Panel panels[groupPanels];
  float *scores, *factors, *maxima;
  float *keys, *values;  // [block][dims]
};

template <int V, typename T>
void startPanel(const Head& head, const T* q, int64_t i0, int64_t count, Panel& panel) {
  const int64_t row = head.problem.queryLayout.row;
  packColumns<V>(q + i0 * row, row, count, head.problem.dims, head.problem.scale * log2e, panel.queries);
  std::fill_n(panel.largest, V * lanes, minusInfinity);
  std::fill_n(panel.weight, V * lanes, 0.0f);
  panel.started = false;
}

/// Keys [begin, end), all within one block: the rows of `keys` and `values`.
template <int V>
void meetKeys(const Head& head, int64_t i0, int64_t count, Rows keys, Rows values, int64_t begin, int64_t end,
              Panel& panel, const Scratch& s) {
  constexpr int64_t width = V * lanes;
  std::memcpy(s.maxima, panel.largest, width * sizeof(float));
  scoreKeys<V>(head, panel.queries, i0, count, keys, begin, end, s.scores, s.maxima);
  Floats reference[V], sum[V];
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) {
    const Floats largest = hn::Load(floats, s.maxima + v * lanes);
    // A query that has seen no key has only scores of -inf: their weights must be 0, not exp(-inf + inf).
    reference[v] = hn::IfThenZeroElse(hn::Eq(largest, hn::Set(floats, minusInfinity)), largest);
    const Floats factor = exp2(hn::Sub(hn::Load(floats, panel.largest + v * lanes), reference[v]));
    hn::Store(factor, floats, s.factors + v * lanes);
    hn::Store(largest, floats, panel.largest + v * lanes);
    sum[v] = hn::Mul(hn::Load(floats, panel.weight + v * lanes), factor);
  }
  float* at = s.scores;
  for (int64_t j = begin; j < end; ++j, at += width) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      const Floats weight = exp2(hn::Sub(hn::Load(floats, at + v * lanes), reference[v]));
      sum[v] = hn::Add(sum[v], weight);
      hn::Store(weight, floats, at + v * lanes);
    }
  }
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) hn::Store(sum[v], floats, panel.weight + v * lanes);
  if (head.problem.dropout > 0) dropWeights<V>(head, i0, begin, end, s.scores);
  const int64_t dims = head.problem.dims;
  if (panel.started) {
    multiply<V, Start::scaled>(dims, values.data, 1, values.stride, s.scores, width, end - begin, panel.sums, width,
                               s.factors);
  } else {
    multiply<V, Start::zero>(dims, values.data, 1, values.stride, s.scores, width, end - begin, panel.sums, width);
    panel.started = true;
  }
}

/// Writes the results of a panel. Returns false if one is not finite.
template <int V, typename T>
bool finishPanel(const Head& head, int64_t i0, int64_t count, Panel& panel, T* out, float* logSumExp) {
  constexpr int64_t width = V * lanes;
  HWY_ALIGN float inverse[width], sums[width];
  for (int64_t v = 0; v < V; ++v) {
    const Floats weight = hn::Load(floats, panel.weight + v * lanes), one = hn::Set(floats, 1.0f);
    const auto none = hn::Eq(weight, hn::Zero(floats));
    hn::Store(hn::IfThenZeroElse(none, hn::Div(one, weight)), floats, inverse + v * lanes);
    const Floats largest = hn::Mul(hn::Load(floats, panel.largest + v * lanes), hn::Set(floats, ln2));
    const Floats sum = hn::Add(largest, hn::Log(floats, hn::IfThenElse(none, one, weight)));
    hn::Store(hn::IfThenElse(none, hn::Set(floats, minusInfinity), sum), floats, sums + v * lanes);
  }
  std::copy_n(sums, count, logSumExp + i0);
  const int64_t row = head.problem.queryLayout.row, dims = head.problem.dims;
  if (!panel.started) std::fill_n(panel.sums, dims * width, 0.0f);
  return unpackColumns<V>(panel.sums, inverse, row, count, dims, out + i0 * row);
}

/// q, k, v and out, from the first query and the first key of a head.
template <typename T>
struct Tensors {
  const T *q, *k, *v;
  T* out;
};

/// Queries [begin, end) of one head.
template <typename T>
bool attendGroup(const Head& head, const Tensors<T>& t, int64_t begin, int64_t end, float* logSumExp, Scratch& s) {
  constexpr int64_t width = 2 * lanes;
  const int64_t dims = head.problem.dims, row = head.problem.keyLayout.row;
  const auto eachPanel = [&](auto&& body) {
    for (int64_t i0 = begin; i0 < end; i0 += width) {
      const int64_t count = std::min(width, end - i0);
      Panel& panel = s.panels[(i0 - begin) / width];
      if (count > lanes) body.template operator()<2>(i0, count, panel);
      else body.template operator()<1>(i0, count, panel);
    }
  };
  eachPanel([&]<int V>(int64_t i0, int64_t count, Panel& panel) { startPanel<V>(head, t.q, i0, count, panel); });
  const int64_t last = head.last(end - 1);
  for (int64_t j0 = head.first(begin); j0 < last; j0 += s.block) {
    const int64_t j1 = std::min(j0 + s.block, last);
    const Rows keys = asFloats(t.k + j0 * row, row, j1 - j0, dims, s.keys);
    Rows values = asFloats(t.v + j0 * row, row, j1 - j0, dims, s.values);
    if (values.stride != dims) {  // rows of other heads lie between: side by side they share the cache's sets better
      copyRows(values.data, row, j1 - j0, dims, 1.0f, dims, s.values);
      values = {s.values, dims};
    }
    eachPanel([&]<int V>(int64_t i0, int64_t count, Panel& panel) {
      const int64_t from = std::max(j0, head.first(i0)), to = std::min(j1, head.last(i0 + count - 1));
      if (from >= to) return;
      meetKeys<V>(head, i0, count, keys.from(from - j0), values.from(from - j0), from, to, panel, s);
    });
  }
  bool finite = true;
  eachPanel([&]<int V>(int64_t i0, int64_t count, Panel& panel) {
    finite &= finishPanel<V>(head, i0, count, panel, t.out, logSumExp);
  });
  return finite;
}

template <typename T>
void attend(const Exec& exec, const AttentionArgs& a) {
  const AttentionProblem& p = a.problem;
  constexpr int64_t group = groupPanels * 2 * lanes;
  int64_t longest = 0;
  for (int64_t b = 0; b < p.batch; ++b) longest = std::max(longest, p.queryCount(b));
  const int64_t groups = (longest + group - 1) / group;  // of each head; some stay empty where lengths differ
  const double flops = 4.0 * static_cast<double>(std::min(group, longest) * p.dims) *
                       static_cast<double>(p.keyOffsets ? p.keys / std::max<int64_t>(p.batch, 1) : p.keys);
  const int64_t grain = std::clamp<int64_t>(static_cast<int64_t>(chunkFlops / std::max(flops, 1.0)), 1, 64);
  parallelFor(p.batch * p.heads * groups, grain, exec, [&](int64_t begin, int64_t end, int) {
    Scratch scratch(p.dims);
    bool finite = true;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / groups / p.heads, h = task / groups % p.heads, first = task % groups * group;
      const Head head(p, b, h);
      const int64_t last = std::min(first + group, head.queries);
      if (first >= last) continue;
      const Tensors<T> tensors{static_cast<const T*>(a.q) + head.query, static_cast<const T*>(a.k) + head.key,
                               static_cast<const T*>(a.v) + head.key, static_cast<T*>(a.out) + head.query};
      finite &= attendGroup(head, tensors, first, last, a.logSumExp + head.row, scratch);
    }
    if (!finite) std::atomic_ref(*a.notFinite).store(1, std::memory_order_relaxed);
  });
}

}  // namespace

Status attention(const Exec& exec, const AttentionArgs& a) {
  return guard([&] { a.problem.dtype == DType::bfloat16 ? attend<BFloat16>(exec, a) : attend<float>(exec, a); });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
