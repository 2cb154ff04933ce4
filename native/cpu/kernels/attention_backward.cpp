// Attention, backward. A task is one head of keys and a range of its keys: it meets the queries of every head that
// shares it, makes their weights again block by block, and adds up dk and dv in sums of its own. The sums of dq stay in
// panels; where the keys of a head are split over several tasks, each has its own dq and these are added in order. So
// nothing is ever added by two threads, and the bytes do not depend on their number.
#include <atomic>

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
  /// For heads of up to `rows` queries in `panels` panels, of which up to `keys` keys get gradients.
  Scratch(int64_t dims, int64_t panels, int64_t rows, int64_t keys)
      : block(keysPerBlock(dims)),
        columns(roundUp(dims, lanes)),
        memory(panels * (3 * dims + 2) * widest + 2 * (rows + keys + block) * columns + 3 * block * widest +
               2 * widest) {
    float* next = memory.data();
    const auto take = [&next](int64_t n) { return std::exchange(next, next + n); };
    weights = take(block * widest);
    gradients = take(block * widest);
    kept = take(block * widest);
    keySums = take(keys * columns);
    valueSums = take(keys * columns);
    keyBlock = take(block * columns);
    valueBlock = take(block * columns);
    maxima = take(widest);
    factors = take(widest);
    queryRows = take(rows * columns);
    outRows = take(rows * columns);
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
  float *keySums, *valueSums;         // [keys][columns] of dk and dv
  float *keyBlock, *valueBlock;       // [block][dims] keys and values that had to be widened
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

/// The inputs of a call, from the first query and the first key of a head.
template <typename T>
struct Inputs {
  Inputs(const AttentionBackwardArgs& a, const Head& head)
      : q(static_cast<const T*>(a.q) + head.query),
        out(static_cast<const T*>(a.out) + head.query),
        outGradient(static_cast<const T*>(a.outGradient) + head.query),
        k(static_cast<const T*>(a.k) + head.key),
        v(static_cast<const T*>(a.v) + head.key),
        logSumExp(a.logSumExp + head.row) {}
  const T *q, *out, *outGradient, *k, *v;
  const float* logSumExp;
};

/// Makes a panel of `count` queries from i0 on; the lanes behind them get no weight.
template <int V, typename T>
void preparePanel(const Head& head, const Inputs<T>& in, int64_t i0, int64_t count, const Panel& panel) {
  const int64_t row = head.problem.queryLayout.row, dims = head.problem.dims, at = i0 * row;
  packColumns<V>(in.q + at, row, count, dims, head.problem.scale * log2e, panel.queries);
  packColumns<V>(in.outGradient + at, row, count, dims, 1.0f, panel.outGradients);
  packColumns<V>(in.out + at, row, count, dims, 1.0f, panel.sums);
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
    const float reference = i < count ? in.logSumExp[i0 + i] * log2e : minusInfinity;
    // A query that sees no key: every score lies infinitely far below, so that every weight is 0.
    panel.reference[i] = reference == minusInfinity ? -minusInfinity : reference;
  }
}

/// s.weights = p' and s.gradients = ds of one panel and keys [begin, end), the rows of `keys` and `values`.
template <int V>
void scoreGradients(const Head& head, const Panel& panel, int64_t i0, int64_t count, Rows keys, Rows values,
                    int64_t begin, int64_t end, const Scratch& s) {
  constexpr int64_t width = V * lanes;
  scoreKeys<V>(head, panel.queries, i0, count, keys, begin, end, s.weights, s.maxima);
  multiply<V, Start::zero>(end - begin, values.data, values.stride, 1, panel.outGradients, width, head.problem.dims,
                           s.gradients, width);
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

/// Writes sums [keys][columns] to rows of dims. Returns false if one is not finite.
template <typename T>
bool writeRows(const float* sums, int64_t keys, int64_t columns, int64_t dims, int64_t stride, T* rows) {
  Floats zeros = hn::Zero(floats);
  for (int64_t at = 0; at < keys * columns; at += lanes) {
    zeros = hn::MulAdd(hn::Load(floats, sums + at), hn::Zero(floats), zeros);
  }
  for (int64_t j = 0; j < keys; ++j, sums += columns, rows += stride) {
    forColumns(dims, [&](auto d, int64_t c) HWY_ATTR { storeElements(hn::LoadU(d, sums + c), d, rows + c); });
  }
  return hn::AllTrue(floats, hn::Eq(zeros, zeros));
}

/// What one head of queries adds to the sums of keys [begin, end); writes its dq, or that of these keys, to qGradient.
template <typename T, typename Q>
bool addHead(const AttentionBackwardArgs& a, const Head& head, int64_t begin, int64_t end, Q* qGradient, Scratch& s) {
  const AttentionProblem& p = a.problem;
  const int64_t queryRow = p.queryLayout.row, keyRow = p.keyLayout.row, dims = p.dims;
  const Inputs<T> in(a, head);
  eachPanel(0, head.queries, [&]<int V>(int64_t i0, int64_t count, int64_t index) {
    preparePanel<V>(head, in, i0, count, s.panel(index));
  });
  copyRows(in.q, queryRow, head.queries, dims, p.scale, s.columns, s.queryRows);
  copyRows(in.outGradient, queryRow, head.queries, dims, 1.0f, s.columns, s.outRows);
  for (int64_t j0 = begin; j0 < end; j0 += s.block) {
    const int64_t j1 = std::min(j0 + s.block, end);
    const Rows keyRows = asFloats(in.k + j0 * keyRow, keyRow, j1 - j0, dims, s.keyBlock);
    const Rows valueRows = asFloats(in.v + j0 * keyRow, keyRow, j1 - j0, dims, s.valueBlock);
    eachPanel(0, head.queries, [&]<int V>(int64_t i0, int64_t count, int64_t index) {
      const int64_t from = std::max(j0, head.first(i0)), to = std::min(j1, head.last(i0 + count - 1));
      if (from >= to) return;
      const Panel panel = s.panel(index);
      const Rows keys = keyRows.from(from - j0), values = valueRows.from(from - j0);
      scoreGradients<V>(head, panel, i0, count, keys, values, from, to, s);
      multiply<V, Start::given>(dims, keys.data, 1, keys.stride, s.gradients, V * lanes, to - from, panel.sums,
                                V * lanes);
      const int64_t rows = i0 * s.columns, sums = (from - begin) * s.columns;
      addRows<V>(to - from, s.weights, s.outRows + rows, count, s.columns, s.valueSums + sums);
      addRows<V>(to - from, s.gradients, s.queryRows + rows, count, s.columns, s.keySums + sums);
    });
  }
  bool finite = true;
  std::fill_n(s.factors, widest, p.scale);
  eachPanel(0, head.queries, [&]<int V>(int64_t i0, int64_t count, int64_t index) {
    finite &= unpackColumns<V>(s.panel(index).sums, s.factors, queryRow, count, dims, qGradient + i0 * queryRow);
  });
  return finite;
}

/// The gradient of the bias for its rows [begin, end), summed over what shares the bias, in order.
template <typename T>
bool gradientsOfBias(const AttentionBackwardArgs& a, int64_t biasBatch, int64_t biasHead, int64_t begin, int64_t end,
                     Scratch& s) {
  const AttentionProblem& p = a.problem;
  const AttentionBias& bias = p.bias;
  const AlignedFloats columns(bias.keys * widest);
  std::fill_n(s.factors, widest, 1.0f);
  bool finite = true;
  eachPanel(begin, end, [&]<int V>(int64_t i0, int64_t rows, int64_t) {
    constexpr int64_t width = V * lanes;
    std::fill_n(columns.data(), bias.keys * width, 0.0f);
    const Panel panel = s.panel(0);
    for (int64_t b = biasBatch; b < p.batch; b += bias.batches) {
      const int64_t count = std::min(rows, p.queryCount(b) - i0);
      if (count <= 0) continue;
      for (int64_t h = biasHead; h < p.heads; h += bias.heads) {
        const Head head(p, b, h);
        const Inputs<T> in(a, head);
        preparePanel<V>(head, in, i0, count, panel);
        const int64_t last = head.last(i0 + count - 1), row = p.keyLayout.row;
        for (int64_t j0 = head.first(i0); j0 < last; j0 += s.block) {
          const int64_t j1 = std::min(j0 + s.block, last);
          const Rows keys = asFloats(in.k + j0 * row, row, j1 - j0, p.dims, s.keyBlock);
          const Rows values = asFloats(in.v + j0 * row, row, j1 - j0, p.dims, s.valueBlock);
          scoreGradients<V>(head, panel, i0, count, keys, values, j0, j1, s);
          for (int64_t at = 0; at < (j1 - j0) * width; at += lanes) {
            float* sum = columns.data() + j0 * width + at;
            hn::Store(hn::Add(hn::Load(floats, sum), hn::Load(floats, s.gradients + at)), floats, sum);
          }
        }
      }
    }
    float* out = a.biasGradient + ((biasBatch * bias.heads + biasHead) * bias.queries + i0) * bias.keys;
    finite &= unpackColumns<V>(columns.data(), s.factors, bias.keys, rows, bias.keys, out);
  });
  return finite;
}

template <typename T>
void backward(const Exec& exec, const AttentionBackwardArgs& a) {
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
  const auto sizeOfPart = [&](int64_t keys) { return roundUp((keys + parts - 1) / parts, keysPerBlock(p.dims)); };
  const int64_t elements = p.heads * p.dims * p.queries * (p.queryOffsets ? 1 : p.batch);
  const AlignedFloats partial(parts > 1 ? parts * elements : 0);
  T* const qGradient = static_cast<T*>(a.qGradient);
  parallelFor(tasks * parts, 1, exec, [&](int64_t begin, int64_t end, int) {
    Scratch scratch(p.dims, panels, longest, std::min(sizeOfPart(most), most));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t part = task % parts, b = task / parts / p.kvHeads, g = task / parts % p.kvHeads;
      const int64_t size = sizeOfPart(p.keyCount(b)), row = p.keyLayout.row;
      const int64_t first = std::min(part * size, p.keyCount(b)), last = std::min(first + size, p.keyCount(b));
      const int64_t sums = (last - first) * scratch.columns, at = p.keyStart(b, g) + first * row;
      std::fill_n(scratch.keySums, sums, 0.0f);
      std::fill_n(scratch.valueSums, sums, 0.0f);
      for (int64_t h = g * shared; h < (g + 1) * shared; ++h) {
        const Head head(p, b, h);
        if (parts == 1) note(addHead<T>(a, head, first, last, qGradient + head.query, scratch));
        else note(addHead<T>(a, head, first, last, partial.data() + part * elements + head.query, scratch));
      }
      const auto write = [&](const float* from, void* to) {
        note(writeRows(from, last - first, scratch.columns, p.dims, row, static_cast<T*>(to) + at));
      };
      write(scratch.keySums, a.kGradient);
      write(scratch.valueSums, a.vGradient);
    }
  });
  if (parts > 1) {
    parallelFor(elements, 1 << 14, exec, [&](int64_t begin, int64_t end, int) {
      forColumns(end - begin, [&](auto d, int64_t i) HWY_ATTR {
        const float* from = partial.data() + begin + i;
        auto sum = hn::LoadU(d, from);
        for (int64_t part = 1; part < parts; ++part) sum = hn::Add(sum, hn::LoadU(d, from + part * elements));
        storeElements(sum, d, qGradient + begin + i);
      });
    });
  }
  if (a.biasGradient) {
    const int64_t groups = (p.bias.queries + 4 * widest - 1) / (4 * widest);
    parallelFor(p.bias.batches * p.bias.heads * groups, 1, exec, [&](int64_t begin, int64_t end, int) {
      Scratch scratch(p.dims, 1, 0, 0);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t batch = task / groups / p.bias.heads, h = task / groups % p.bias.heads;
        const int64_t first = task % groups * 4 * widest, last = std::min(first + 4 * widest, p.bias.queries);
        note(gradientsOfBias<T>(a, batch, h, first, last, scratch));
      }
    });
  }
}

}  // namespace

Status attentionBackward(const Exec& exec, const AttentionBackwardArgs& a) {
  return guard([&] { a.problem.dtype == DType::bfloat16 ? backward<BFloat16>(exec, a) : backward<float>(exec, a); });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
