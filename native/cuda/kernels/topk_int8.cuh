// Top-k by 8-bit codes, the CUDA side of cpu/kernels/topk_int8.cpp, which explains the bounds: the scan picks
// candidates by the codes, in the same float32 operations; their scores are then computed in float64 from the rows
// themselves.
#pragma once
#include "cuda/kernels/int8_codes.cuh"
#include "cuda/kernels/topk.cuh"

namespace topknot::cuda {

/// Times the length of an item: more than the scan's float32 rounding.
inline constexpr double int8Slack = 0x1p-18;
/// Squared lengths beyond this have products that float32 may not hold: nothing is proven then.
inline constexpr float int8LargestNorm = 1e36f;

/// The queries of the call as codes from -most to most, of length 1 before.
struct Int8Queries {
  int8_t* codes;  // [queries, cols]
  double* lengths;
  float *steps, *weights;
  Key* residual;  // the bits of the largest |q - q'| of the call, a double that is not negative
};

/// Eight lanes for each query.
__global__ void __launch_bounds__(pairThreads)
    int8PrepareQueries(MatrixView queries, bool l2, int most, Int8Queries out) {
  constexpr RowFormat float32 = RowFormat::float32;
  const int64_t query = pairGroup();
  const bool inside = query < queries.rows;
  const int64_t n = inside ? queries.cols : 0, row = inside ? query : 0;
  const float* x = queries.data + row * queries.cols;
  const double length = sqrt(pairDot<float32, float32>(x, x, n)), factor = length > 0 ? 1 / length : 0;
  const Int8Row made = quantizeRow<float32>(x, n, factor, most, 0, out.codes + row * queries.cols);
  if (!inside || pairLane() != 0) return;
  out.lengths[query] = length;
  out.steps[query] = made.scale;
  // q·x - |x|²/2 is (|q|² - |q - x|²) / 2; all of it over |q|.
  out.weights[query] = l2 ? static_cast<float>(0.5 / (length > 0 ? length : 1)) : 0.0f;
  atomicMax(out.residual, static_cast<Key>(__double_as_longlong(made.residual)));
}

/// Upper bounds of q·x - q'·x' for each item. `unknown` becomes 1 when an item is too long for float32 to bound
/// anything.
__global__ void int8ItemBounds(TopkInt8Args a, const Key* residual, float* bounds, float* norms, int* unknown) {
  const int64_t i = int64_t{blockIdx.x} * topkThreads + threadIdx.x;
  if (i >= a.topk.items.rows) return;
  const double norm = static_cast<double>(a.topk.itemNorms[i]), left = static_cast<double>(a.residuals[i]);
  const double length = a.topk.metric == Metric::cosine ? 1 + 1e-6 : sqrt(norm) * (1 + 1e-6) + 1e-22;
  const double spread = (__longlong_as_double(static_cast<long long>(*residual)) + int8Slack) * (length + left);
  bounds[i] = static_cast<float>((left + spread) * (1 + 1e-6));
  if (norms) norms[i] = static_cast<float>(norm * (1 - int8Slack));
  if (!(norm <= static_cast<double>(int8LargestNorm))) atomicOr(unknown, 1);
}

struct AddCodeProducts {
  /// Item bytes are code + 128: without their highest bit they are the codes, as signed bytes.
  __device__ int operator()(int sum, uint32_t query, uint32_t item) const {
    return __dp4a(static_cast<int>(item ^ 0x80808080u), static_cast<int>(query), sum);
  }
};

/// A Source: sum * scale, or step * sum * scale + bound - weight * norm where there are bounds or norms.
struct CodePairs {
  static constexpr bool sharesItems = true;
  ByteRows queries, items;
  const float *scales, *bounds, *norms;  // [items]; bounds and norms may be null
  const float *steps, *weights;          // [queries]

  template <int Q>
  __device__ void scores(int64_t firstQuery, int64_t firstItem, float (&out)[Q]) const {
    int sums[Q];
    tileSums(queries, items, firstQuery, firstItem, sums, AddCodeProducts());
    const int64_t item = firstItem + threadIdx.x < items.rows ? firstItem + threadIdx.x : 0;
    const bool bounded = bounds || norms;
    const float scale = scales[item], bound = bounds ? bounds[item] : 0.0f, norm = norms ? norms[item] : 0.0f;
    for (int q = 0; q < Q; ++q) {
      out[q] = static_cast<float>(sums[q]) * scale;
      if (!bounded || firstQuery + q >= queries.rows) continue;
      out[q] = fmaf(out[q], steps[firstQuery + q], bound);
      out[q] = fmaf(-norm, weights[firstQuery + q], out[q]);
    }
  }
};

/// The score that a pair of this upper bound can have at most, rounded as scores are.
SIMT_DEVICE float bestPossible(Metric metric, double bound, double length) {
  if (metric == Metric::innerProduct) {
    return static_cast<float>(bound * length * (bound > 0 ? 1 + 1e-9 : 1 - 1e-9));
  }
  if (metric == Metric::cosine) return static_cast<float>(bound + 1e-9);
  return static_cast<float>(2 * (length > 0 ? length : 1) * bound - length * length +
                            1e-9 * (length * length + 2 * length * fabs(bound)));
}

/// As topkRescore, of the best by the codes; worst[q] = the last candidate's key by the codes.
template <RowFormat format>
__global__ void __launch_bounds__(pairThreads)
    int8Rescore(TopkInt8Args a, QueryChunk chunk, Key* keys, int64_t width, Key* worst) {
  const int64_t place = pairGroup(), query = chunk.begin + blockIdx.y;
  Key* mine = keys + blockIdx.y * width + place;
  const Key key = place < a.candidates ? *mine : noKey;
  const float score = pairScore<format>(a.topk, query, key == noKey ? -1 : idOf(key));
  if (place < a.candidates && pairLane() == 0) {
    *mine = key == noKey ? noKey : keyOf(score, idOf(key));
    if (place == a.candidates - 1) worst[blockIdx.y] = key;
  }
  clearBehind(keys, a.candidates, width);
}

/// Block (t, q): places of the q-th query of the chunk, from its sorted keys [width]; and whether they are proven.
__global__ void int8Write(TopkInt8Args a, ScoredIds out, QueryChunk chunk, const Key* sorted, int64_t width,
                          const Key* worst, const double* lengths, const int* unknown) {
  const int64_t place = int64_t{blockIdx.x} * topkThreads + threadIdx.x, query = chunk.begin + blockIdx.y;
  if (place >= a.topk.k) return;
  const Key key = sorted[blockIdx.y * width + place];
  out.write(chunk, blockIdx.y, place, key);
  if (!a.proven || place != a.topk.k - 1) return;
  const bool all = worst[blockIdx.y] == noKey || a.topk.items.rows <= a.candidates;
  const double bound = static_cast<double>(scoreOf(worst[blockIdx.y]));
  a.proven[query] = all || (!*unknown && scoreOf(key) > bestPossible(a.topk.metric, bound, lengths[query]));
}

/// An Output: the candidates of a chunk, of which finish() makes the answers.
template <RowFormat format>
struct Int8Candidates : TopkOutput {
  TopkInt8Args args;
  const double* lengths;
  const int* unknown;
  int64_t width;
  Key *keys = nullptr, *worst = nullptr;

  Int8Candidates(const TopkInt8Args& args, const double* lengths, const int* unknown)
      : args(args), lengths(lengths), unknown(unknown), width(sortWidth(args.candidates)) {}
  int64_t chunkBytes() const { return (width + 1) * static_cast<int64_t>(sizeof(Key)); }
  void prepare(Queue& queue, int64_t step) {
    keys = queue.workspace<Key>(step * width);
    worst = queue.workspace<Key>(step);
  }
  __device__ void write(QueryChunk, int64_t local, int64_t place, Key key) const { keys[local * width + place] = key; }
  void finish(Queue& queue, QueryChunk chunk) const {
    const int64_t count = chunk.end - chunk.begin;
    const ScoredIds out(args.topk.k, args.topk.ids, args.topk.scores, args.topk.metric == Metric::l2);
    queue.launch("int8Rescore", int8Rescore<format>, {ceilDiv(args.candidates, pairGroups), count}, pairThreads, args,
                 chunk, keys, width, worst);
    sortRows(queue, keys, width, count);
    queue.launch("int8Write", int8Write, {ceilDiv(args.topk.k, topkThreads), count}, topkThreads, args, out, chunk,
                 keys, width, worst, lengths, unknown);
  }
};

/// The `topkInt8` slot.
inline Status topkInt8(const Exec& exec, const TopkInt8Args& a, const TopkPlan& plan = {}) {
  Queue queue(exec);
  const TopkArgs& t = a.topk;
  if (t.queries.rows == 0 || t.k == 0) return queue.status();
  const bool l2 = t.metric == Metric::l2;
  const int64_t queries = t.queries.rows, dims = t.items.cols, rows = t.items.rows;
  const Int8Queries prepared{queue.workspace<int8_t>(queries * dims), queue.workspace<double>(queries),
                             queue.workspace<float>(queries), queue.workspace<float>(queries), queue.zero<Key>()};
  int* unknown = queue.zero<int>();
  float *bounds = nullptr, *norms = nullptr;
  queue.launch("int8PrepareQueries", int8PrepareQueries, pairGrid(queries), pairThreads, t.queries, l2,
               a.proven ? 63 : 31, prepared);  // as the CPU, so that both have the same candidates
  if (a.proven && rows > 0) {
    bounds = queue.workspace<float>(rows);
    norms = l2 ? queue.workspace<float>(rows) : nullptr;
    queue.launch("int8ItemBounds", int8ItemBounds, {ceilDiv(rows, topkThreads)}, topkThreads, a, prepared.residual,
                 bounds, norms, unknown);
  }
  const CodePairs pairs{{reinterpret_cast<const uint8_t*>(prepared.codes), queries, dims},
                        {a.codes, rows, dims},
                        a.scales,
                        bounds,
                        !l2        ? nullptr
                        : a.proven ? norms
                                   : t.itemNorms,
                        prepared.steps,
                        prepared.weights};
  withFloats(t.items.type, [&](auto type) {
    topkSearch(queue, exec, {queries, rows, a.candidates, t.filter}, pairs,
               Int8Candidates<decltype(type)::value>(a, prepared.lengths, unknown), plan);
  });
  return queue.status();
}

}  // namespace topknot::cuda
