// Optimizer steps on the rows that were looked up, and no others. A row's gradient is summed and used at once, while it
// is in the nearest cache; the rows themselves come from all over the table, so they are prefetched.
#include <algorithm>
#include <cmath>

#include "cpu/kernels/als_schedule.h"
#include "cpu/kernels/embedding_chunks.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/embedding_update.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/embedding_gradient-inl.h"
#include "cpu/kernels/embedding_rounding-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

using Args = EmbeddingUpdateArgs;

/// Prefetches rows of the table and of the optimizer's state, to be written. All of it is inlined: GCC takes a function
/// that only prefetches for one without effect, and drops its calls.
class Targets {
 public:
  explicit Targets(const Args& a) : a_(a), cols_(a.rows.gradient.cols) {
    rowBytes_ = cols_ * (a.format == RowFormat::float32 ? 4 : 2);
    const int64_t all = rowBytes_ + (a.optimizer == EmbeddingOptimizer::adam ? 8 * cols_ : 0);
    distance_ = std::clamp<int64_t>(8192 / all, 1, 16);
  }
  HWY_INLINE void ahead(int64_t g, int64_t last) const {
    if (g + distance_ >= last) return;
    const int64_t row = a_.rows.rows[g + distance_];
    fetch(static_cast<const char*>(a_.table) + row * rowBytes_, rowBytes_);
    if (a_.sums) __builtin_prefetch(a_.sums + row, 1, 3);
    if (a_.means) fetch(a_.means + row * cols_, cols_ * 4), fetch(a_.squares + row * cols_, cols_ * 4);
  }
  HWY_INLINE void start(int64_t first, int64_t last) const {
    for (int64_t g = first - distance_; g < first; ++g) ahead(g, last);
  }

 private:
  static HWY_INLINE void fetch(const void* data, int64_t bytes) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(data);
    for (uintptr_t line = at & ~uintptr_t{63}; line < at + static_cast<uintptr_t>(bytes); line += 64) {
      __builtin_prefetch(reinterpret_cast<const void*>(line), 1, 3);
    }
  }
  const Args& a_;
  int64_t cols_, rowBytes_, distance_;
};

/// The mean of squares, summed in fixed order.
HWY_INLINE float meanSquare(const float* g, int64_t cols) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sum = hn::Zero(d);
  int64_t c = 0;
  for (; c + lanes <= cols; c += lanes) {
    const auto x = hn::LoadU(d, g + c);
    sum = hn::MulAdd(x, x, sum);
  }
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; c < cols; ++c) total += g[c] * g[c];
  return total / static_cast<float>(cols);
}

/// What the optimizer subtracts from columns [c, c + Lanes(d)) of a row with the gradient g.
template <class D>
HWY_INLINE hn::Vec<D> stepOf(D d, const Args& a, int64_t row, float rate, const float* gradient, int64_t c) {
  const auto g = hn::LoadU(d, gradient + c);
  if (a.optimizer != EmbeddingOptimizer::adam) return hn::Mul(hn::Set(d, rate), g);
  float* means = a.means + row * a.rows.gradient.cols + c;
  float* squares = a.squares + row * a.rows.gradient.cols + c;
  auto m = hn::LoadU(d, means), v = hn::LoadU(d, squares);
  m = hn::MulAdd(hn::Set(d, 1.0f - a.beta1), hn::Sub(g, m), m);
  v = hn::MulAdd(hn::Set(d, 1.0f - a.beta2), hn::Sub(hn::Mul(g, g), v), v);
  hn::StoreU(m, d, means);
  hn::StoreU(v, d, squares);
  const auto root = hn::Add(hn::Sqrt(hn::Div(v, hn::Set(d, a.correction2))), hn::Set(d, a.epsilon));
  return hn::Div(hn::Mul(hn::Set(d, rate / a.correction1), m), root);
}

/// Calls f(d, c) for vectors that cover the columns once.
template <typename F>
HWY_INLINE void forColumns(int64_t cols, F&& f) {
  const hn::ScalableTag<float> d;
  const hn::FixedTag<float, 1> one;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t c = 0;
  for (; c + lanes <= cols; c += lanes) f(d, c);
  for (; c < cols; ++c) f(one, c);
}

/// The row minus the steps, in float32.
template <RowFormat format>
HWY_INLINE void subtractSteps(const Args& a, int64_t row, const void* from, float rate, const float* gradient,
                              float* out) {
  forColumns(a.rows.gradient.cols, [&](auto d, int64_t c) HWY_ATTR {
    const auto step = stepOf(d, a, row, rate, gradient, c);
    hn::StoreU(hn::Sub(loadColumns<format>(d, from, c), step), d, out + c);
  });
}

/// What a thread works with.
struct Buffers {
  float *gradient, *updated;  // [cols]
  uint16_t* bits;             // [cols]

  static int64_t floats(int64_t cols) { return 3 * ((cols + bitColumns - 1) / bitColumns * bitColumns); }
  Buffers(float* memory, int64_t cols)
      : gradient(memory),
        updated(memory + floats(cols) / 3),
        bits(reinterpret_cast<uint16_t*>(memory + floats(cols) / 3 * 2)) {}
};

template <RowFormat format, typename Half>
HWY_INLINE void updateHalf(const Args& a, int64_t row, int64_t key, float rate, const Buffers& b) {
  const int64_t cols = a.rows.gradient.cols;
  Half* data = static_cast<Half*>(a.table) + row * cols;
  subtractSteps<format>(a, row, data, rate, b.gradient, b.updated);
  rowBits(a.seed, static_cast<uint64_t>(key), a.step, cols, b.bits);
  forColumns(cols,
             [&](auto d, int64_t c) HWY_ATTR { storeRounded(hn::LoadU(d, b.updated + c), d, b.bits + c, data + c); });
}

HWY_INLINE void updateRow(const Args& a, int64_t g, const Buffers& b) {
  const int64_t row = a.rows.rows[g], key = a.keys ? a.keys[g] : row;
  float rate = a.rate;
  if (a.optimizer == EmbeddingOptimizer::adagrad) {
    const float sum = a.sums[row] += meanSquare(b.gradient, a.rows.gradient.cols);
    rate /= std::sqrt(sum) + a.epsilon;
  }
  switch (a.format) {
    case RowFormat::float16:
      return updateHalf<RowFormat::float16, Float16>(a, row, key, rate, b);
    case RowFormat::bfloat16:
      return updateHalf<RowFormat::bfloat16, BFloat16>(a, row, key, rate, b);
    default: {
      float* data = static_cast<float*>(a.table) + row * a.rows.gradient.cols;
      subtractSteps<RowFormat::float32>(a, row, data, rate, b.gradient, data);
    }
  }
}

}  // namespace

Status embeddingUpdate(const Exec& exec, const EmbeddingUpdateArgs& a) {
  return guard([&] {
    const RowGradientsView& view = a.rows;
    const int64_t cols = view.gradient.cols, size = Buffers::floats(cols);
    const Scratch scratch(maxThreads * size);
    const Targets targets(a);
    const BagChunks chunks(view.groups, view.gradient.rowBytes());
    parallelFor(chunks.work(), chunks.grain(), exec, [&](int64_t begin, int64_t end, int slot) {
      const int64_t first = chunks.bagAt(begin), last = chunks.bagAt(end);
      const RowsAhead ahead(view.gradient, view.groups.ids, view.groups.offsets[first], view.groups.offsets[last]);
      const Buffers buffers(scratch.data() + slot * size, cols);
      withVectors<RowFormat::float32>(cols, [&](auto d) {
        targets.start(first, last);
        for (int64_t g = first; g < last; ++g) {
          targets.ahead(g, last);
          rowGradient(d, view, g, ahead, buffers.gradient);
          updateRow(a, g, buffers);
        }
      });
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
