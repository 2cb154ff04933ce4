// Attention, backward. A task is one head of keys and a range of its keys: it meets the queries of every head that
// shares it, makes their weights again block by block, and adds up dk and dv where no one else writes. The sums of dq
// stay in panels; where the keys of a head are split over several tasks, each has its own dq and these are added in
// order. So nothing is ever added by two threads, and the bytes do not depend on their number.
#include <atomic>
#include <cstring>

#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/attention_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/attention-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

constexpr int64_t widest = 2 * lanes;  // queries in a panel
constexpr int64_t wantedTasks = 32;    // fewer heads than this are split by their keys
constexpr int64_t splitKeys = 256;     // into parts of at least so many

inline int64_t roundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// What a panel of queries needs to make its weights and their gradients again.
struct Panel {
  float *queries, *outGradients, *sums;  // [dims][width]; sums: of dq, or scratch
  float *reference, *delta;              // [width] the log-sum-exp, in powers of two; do_i·out_i
};

struct Scratch {
  Scratch(int64_t dims, int64_t panels, int64_t rows)
      : block(keysPerBlock(dims)),
        columns(roundUp(dims, lanes)),
        memory(panels * (3 * dims + 2) * widest + 2 * roundUp(rows * columns, lanes) +
               block * (3 * widest + 2 * columns) + 2 * widest) {
    float* next = memory.data();
    const auto take = [&next](int64_t n) { return std::exchange(next, next + n); };
    weights = take(block * widest);
    gradients = take(block * widest);
    kept = take(block * widest);
    keySums = take(block * columns);
    valueSums = take(block * columns);
    maxima = take(widest);
    factors = take(widest);
    queryRows = take(roundUp(rows * columns, lanes));
    outRows = take(roundUp(rows * columns, lanes));
    firstPanel = next;
    this->dims = dims;
  }
  Panel panel(int64_t i) const {
    float* at = firstPanel + i * (3 * dims + 2) * widest;
    const int64_t n = dims * widest;
    return {at, at + n, at + 2 * n, at + 3 * n, at + 3 * n + widest};
  }

  int64_t block, columns, dims;
  AlignedFloats memory;
  float *weights, *gradients, *kept;  // [block][width]
  float *keySums, *valueSums;         // [block][columns]
  float *maxima, *factors;            // [width]
  float *queryRows, *outRows;         // [rows][columns] scale * q and do of one head
  float* firstPanel;
};

/// Calls body<V>(i0, count, index) for every panel of n queries.
template <typename Body>
void eachPanel(int64_t begin, int64_t end, Body&& body) {
  for (int64_t i0 = begin; i0 < end; i0 += widest) {
    const int64_t count = std::min(widest, end - i0);
    if (count > lanes) body.template operator()<2>(i0, count, (i0 - begin) / widest);
    else body.template operator()<1>(i0, count, (i0 - begin) / widest);
  }
}

template <int V>
void preparePanel(const Head& head, const AttentionBackwardArgs& a, int64_t start, int64_t i0, int64_t count,
                  const Panel& panel) {
  const int64_t row = head.problem.queryLayout.row, dims = head.problem.dims, at = start + i0 * row;
  packColumns<V>(a.q + at, row, count, dims, head.problem.scale * log2e, panel.queries);
  packColumns<V>(a.outGradient + at, row, count, dims, 1.0f, panel.outGradients);
  packColumns<V>(a.out + at, row, count, dims, 1.0f, panel.sums);
  for (int64_t v = 0; v < V; ++v) {
    Floats delta = hn::Zero(floats);
    for (int64_t c = 0; c < dims; ++c) {
      const int64_t lane = (c * V + v) * lanes;
      delta = hn::MulAdd(hn::Load(floats, panel.outGradients + lane), hn::Load(floats, panel.sums + lane), delta);
    }
    hn::Store(delta, floats, panel.delta + v * lanes);
  }
  std::fill_n(panel.sums, dims * V * lanes, 0.0f);
  for (int64_t i = 0; i < V * lanes; ++i) {
    const float reference = a.logSumExp[head.row + i0 + std::min(i, count - 1)] * log2e;
    // A query that sees no key: every score lies infinitely far below, so that every weight is 0.
    panel.reference[i] = reference == minusInfinity ? -minusInfinity : reference;
  }
}

/// s.weights = p' and s.gradients = ds of one panel and keys [begin, end).
template <int V>
void scoreGradients(const Head& head, const Panel& panel, int64_t i0, int64_t count, int64_t begin, int64_t end,
                    const Scratch& s) {
  constexpr int64_t width = V * lanes;
  const int64_t row = head.problem.keyLayout.row, dims = head.problem.dims;
  scoreKeys<V>(head, panel.queries, i0, count, begin, end, s.weights, s.maxima);
  multiply<V, Start::zero>(end - begin, head.v + begin * row, row, 1, panel.outGradients, width, dims, s.gradients,
                           width);
  const bool dropout = head.problem.dropout > 0;
  if (dropout) {
    std::fill_n(s.kept, (end - begin) * width, 1.0f);
    dropWeights<V>(head, i0, begin, end, s.kept);
  }
  Floats reference[V], delta[V];
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) {
    reference[v] = hn::Load(floats, panel.reference + v * lanes);
    delta[v] = hn::Load(floats, panel.delta + v * lanes);
  }
  for (int64_t at = 0; at < (end - begin) * width; at += width) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      float* weight = s.weights + at + v * lanes;
      float* gradient = s.gradients + at + v * lanes;
      const Floats p = exp2(hn::Sub(hn::Load(floats, weight), reference[v]));
      Floats g = hn::Load(floats, gradient);
      if (dropout) {
        const Floats z = hn::Load(floats, s.kept + at + v * lanes);
        g = hn::Mul(g, z);
        hn::Store(hn::Mul(p, z), floats, weight);
      } else {
        hn::Store(p, floats, weight);
      }
      hn::Store(hn::Mul(p, hn::Sub(g, delta[v])), floats, gradient);
    }
  }
}

/// sums[keys][columns] += weights[keys][count of width] rows[count][columns]
template <int V>
void addRows(int64_t keys, const float* weights, const float* rows, int64_t count, int64_t columns, float* sums) {
  int64_t c = 0;
  for (; c + 2 * lanes <= columns; c += 2 * lanes) {
    multiply<2, Start::given>(keys, weights, V * lanes, 1, rows + c, columns, count, sums + c, columns);
  }
  if (c < columns) {
    multiply<1, Start::given>(keys, weights, V * lanes, 1, rows + c, columns, count, sums + c, columns);
  }
}

/// Copies rows of dims floats, times `scale`, to rows of `columns`, whose rest becomes 0.
void padRows(const float* from, int64_t stride, int64_t rows, int64_t dims, float scale, int64_t columns, float* to) {
  for (int64_t i = 0; i < rows; ++i, from += stride, to += columns) {
    for (int64_t c = 0; c < dims; ++c) to[c] = from[c] * scale;
    for (int64_t c = dims; c < columns; ++c) to[c] = 0;
  }
}

/// Writes, or adds, sums [keys][columns] to rows of dims. Returns false if one is not finite.
bool writeRows(const float* sums, int64_t keys, int64_t columns, int64_t dims, int64_t stride, bool add, float* rows) {
  Floats zeros = hn::Zero(floats);
  for (int64_t at = 0; at < keys * columns; at += lanes) {
    zeros = hn::MulAdd(hn::Load(floats, sums + at), hn::Zero(floats), zeros);
  }
  for (int64_t j = 0; j < keys; ++j, sums += columns, rows += stride) {
    if (add) {
      for (int64_t c = 0; c < dims; ++c) rows[c] += sums[c];
    } else {
      std::memcpy(rows, sums, static_cast<size_t>(dims) * sizeof(float));
    }
  }
  return hn::AllTrue(floats, hn::Eq(zeros, zeros));
}

/// Keys [begin, end) of head h of sequence b of queries; `add`: an earlier head of queries has written dk and dv.
bool gradientsOfHead(const AttentionBackwardArgs& a, int64_t b, int64_t h, int64_t begin, int64_t end, bool add,
                     float* qGradient, Scratch& s) {
  const AttentionProblem& p = a.problem;
  const Head head(p, b, h, a.q, a.k, a.v);
  const int64_t start = p.queryStart(b, h), keyStart = p.keyStart(b, h / (p.heads / p.kvHeads));
  const int64_t queryRow = p.queryLayout.row, keyRow = p.keyLayout.row, dims = p.dims;
  eachPanel(0, head.queries, [&]<int V>(int64_t i0, int64_t count, int64_t index) {
    preparePanel<V>(head, a, start, i0, count, s.panel(index));
  });
  padRows(a.q + start, queryRow, head.queries, dims, p.scale, s.columns, s.queryRows);
  padRows(a.outGradient + start, queryRow, head.queries, dims, 1.0f, s.columns, s.outRows);
  bool finite = true;
  for (int64_t j0 = begin; j0 < end; j0 += s.block) {
    const int64_t j1 = std::min(j0 + s.block, end);
    std::fill_n(s.keySums, (j1 - j0) * s.columns, 0.0f);
    std::fill_n(s.valueSums, (j1 - j0) * s.columns, 0.0f);
    eachPanel(0, head.queries, [&]<int V>(int64_t i0, int64_t count, int64_t index) {
      const int64_t from = std::max(j0, head.first(i0)), to = std::min(j1, head.last(i0 + count - 1));
      if (from >= to) return;
      const Panel panel = s.panel(index);
      scoreGradients<V>(head, panel, i0, count, from, to, s);
      multiply<V, Start::given>(dims, head.k + from * keyRow, 1, keyRow, s.gradients, V * lanes, to - from, panel.sums,
                                V * lanes);
      const int64_t rows = i0 * s.columns, sums = (from - j0) * s.columns;
      addRows<V>(to - from, s.weights, s.outRows + rows, count, s.columns, s.valueSums + sums);
      addRows<V>(to - from, s.gradients, s.queryRows + rows, count, s.columns, s.keySums + sums);
    });
    const int64_t at = keyStart + j0 * keyRow;
    finite &= writeRows(s.keySums, j1 - j0, s.columns, dims, keyRow, add, a.kGradient + at);
    finite &= writeRows(s.valueSums, j1 - j0, s.columns, dims, keyRow, add, a.vGradient + at);
  }
  std::fill_n(s.factors, widest, p.scale);
  eachPanel(0, head.queries, [&]<int V>(int64_t i0, int64_t count, int64_t index) {
    finite &=
        unpackColumns<V>(s.panel(index).sums, s.factors, queryRow, count, dims, qGradient + start + i0 * queryRow);
  });
  return finite;
}

/// The gradient of the bias for the panels of queries [begin, end), summed over what shares the bias, in order.
bool gradientsOfBias(const AttentionBackwardArgs& a, int64_t biasBatch, int64_t biasHead, int64_t begin, int64_t end,
                     Scratch& s) {
  const AttentionProblem& p = a.problem;
  const AlignedFloats columns(p.keys * widest);
  std::fill_n(s.factors, widest, 1.0f);
  bool finite = true;
  eachPanel(begin, end, [&]<int V>(int64_t i0, int64_t count, int64_t) {
    constexpr int64_t width = V * lanes;
    std::fill_n(columns.data(), p.keys * width, 0.0f);
    const Panel panel = s.panel(0);
    for (int64_t b = biasBatch; b < p.batch; b += a.biasBatches) {
      for (int64_t h = biasHead; h < p.heads; h += a.biasHeads) {
        const Head head(p, b, h, a.q, a.k, a.v);
        preparePanel<V>(head, a, p.queryStart(b, h), i0, count, panel);
        const int64_t last = head.last(i0 + count - 1);
        for (int64_t j0 = head.first(i0); j0 < last; j0 += s.block) {
          const int64_t j1 = std::min(j0 + s.block, last);
          scoreGradients<V>(head, panel, i0, count, j0, j1, s);
          for (int64_t at = 0; at < (j1 - j0) * width; at += lanes) {
            float* sum = columns.data() + j0 * width + at;
            hn::Store(hn::Add(hn::Load(floats, sum), hn::Load(floats, s.gradients + at)), floats, sum);
          }
        }
      }
    }
    float* out = a.biasGradient + ((biasBatch * a.biasHeads + biasHead) * p.queries + i0) * p.keys;
    finite &= unpackColumns<V>(columns.data(), s.factors, p.keys, count, p.keys, out);
  });
  return finite;
}

}  // namespace

Status attentionBackward(const Exec& exec, const AttentionBackwardArgs& a) {
  return guard([&] {
    const AttentionProblem& p = a.problem;
    const auto note = [&](bool finite) {
      if (!finite) std::atomic_ref(*a.notFinite).store(1, std::memory_order_relaxed);
    };
    int64_t longest = 0, most = 0;
    for (int64_t b = 0; b < p.batch; ++b) {
      longest = std::max(longest, p.queryCount(b));
      most = std::max(most, p.keyCount(b));
    }
    const int64_t panels = (longest + widest - 1) / widest, shared = p.heads / p.kvHeads;
    const int64_t tasks = p.batch * p.kvHeads;
    const int64_t parts =
        std::clamp<int64_t>(wantedTasks / std::max<int64_t>(tasks, 1), 1, std::max<int64_t>(most / splitKeys, 1));
    const int64_t elements = p.batch * p.heads * p.dims * (p.queryOffsets ? 0 : p.queries) +
                             (p.queryOffsets ? p.queries * p.heads * p.dims : 0);
    const AlignedFloats partial(parts > 1 ? parts * elements : 0);
    parallelFor(tasks * parts, 1, exec, [&](int64_t begin, int64_t end, int) {
      Scratch scratch(p.dims, panels, longest);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t part = task % parts, b = task / parts / p.kvHeads, g = task / parts % p.kvHeads;
        const int64_t size = roundUp((p.keyCount(b) + parts - 1) / parts, scratch.block);
        const int64_t first = std::min(part * size, p.keyCount(b)), last = std::min(first + size, p.keyCount(b));
        float* qGradient = parts > 1 ? partial.data() + part * elements : a.qGradient;
        for (int64_t i = 0; i < shared; ++i) {
          note(gradientsOfHead(a, b, g * shared + i, first, last, i > 0, qGradient, scratch));
        }
      }
    });
    if (parts > 1) {
      parallelFor(elements, 1 << 14, exec, [&](int64_t begin, int64_t end, int) {
        std::copy(partial.data() + begin, partial.data() + end, a.qGradient + begin);
        for (int64_t part = 1; part < parts; ++part) {
          const float* from = partial.data() + part * elements;
          for (int64_t i = begin; i < end; ++i) a.qGradient[i] += from[i];
        }
      });
    }
    if (a.biasGradient) {
      const int64_t groups = (p.queries + 4 * widest - 1) / (4 * widest);
      parallelFor(a.biasBatches * a.biasHeads * groups, 1, exec, [&](int64_t begin, int64_t end, int) {
        Scratch scratch(p.dims, 1, 0);
        for (int64_t task = begin; task < end; ++task) {
          const int64_t batch = task / groups / a.biasHeads, h = task / groups % a.biasHeads;
          const int64_t first = task % groups * 4 * widest, last = std::min(first + 4 * widest, p.queries);
          note(gradientsOfBias(a, batch, h, first, last, scratch));
        }
      });
    }
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
