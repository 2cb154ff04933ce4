// Functions of one and of two tensors, element by element, at the speed of memory.
#include <algorithm>
#include <cmath>

#include "backend/blocks_args.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/elementwise.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/elementwise-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

constexpr int64_t elementsPerChunk = 1 << 15;

template <Unary f>
HWY_NOINLINE void applyAll(const float* x, int64_t n, float* out) {
  forVectors(n,
             [&](int64_t i, int64_t count) HWY_ATTR { storeSome(apply<f>(loadSome(x + i, count)), out + i, count); });
}

template <Unary f, bool fromOut>
HWY_NOINLINE void applyGradient(const float* x, const float* gradient, int64_t n, float* out) {
  forVectors(n, [&](int64_t i, int64_t count) HWY_ATTR {
    const Floats slope = derivative<f, fromOut>(loadSome(x + i, count));
    storeSome(hn::Mul(slope, loadSome(gradient + i, count)), out + i, count);
  });
}

template <Binary f>
HWY_INLINE Floats combine(Floats a, Floats b) {
  if constexpr (f == Binary::add) return hn::Add(a, b);
  if constexpr (f == Binary::subtract) return hn::Sub(a, b);
  if constexpr (f == Binary::multiply) return hn::Mul(a, b);
  return hn::Div(a, b);
}

/// One run of the last dimension; a step of 0 repeats an operand.
template <Binary f>
HWY_NOINLINE void combineRun(const float* a, int64_t aStep, const float* b, int64_t bStep, int64_t n, float* out) {
  if (aStep == 0) {
    const Floats x = all(*a);
    forVectors(n, [&](int64_t i, int64_t count)
                      HWY_ATTR { storeSome(combine<f>(x, loadSome(b + i, count)), out + i, count); });
  } else if (bStep == 0) {
    const Floats y = all(*b);
    forVectors(n, [&](int64_t i, int64_t count)
                      HWY_ATTR { storeSome(combine<f>(loadSome(a + i, count), y), out + i, count); });
  } else {
    forVectors(n, [&](int64_t i, int64_t count) HWY_ATTR {
      storeSome(combine<f>(loadSome(a + i, count), loadSome(b + i, count)), out + i, count);
    });
  }
}

template <Binary f>
void combineAll(const Exec& exec, const BinaryArgs& args) {
  const int last = args.rank - 1;
  const int64_t run = args.dims[last];
  int64_t runs = 1;
  for (int d = 0; d < last; ++d) runs *= args.dims[d];
  // Chunks are pieces of one run, or some whole runs.
  const int64_t pieces = std::max<int64_t>(1, run / elementsPerChunk), piece = (run + pieces - 1) / pieces;
  const int64_t grain = std::max<int64_t>(1, elementsPerChunk / std::max<int64_t>(run, 1));
  parallelFor(runs * pieces, grain, exec, [&](int64_t begin, int64_t end, int) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t from = task % pieces * piece, count = std::min(piece, run - from);
      int64_t a = from * args.aStride[last], b = from * args.bStride[last], rest = task / pieces;
      for (int d = last - 1; d >= 0; rest /= args.dims[d--]) {
        a += rest % args.dims[d] * args.aStride[d];
        b += rest % args.dims[d] * args.bStride[d];
      }
      float* out = args.out + task / pieces * run + from;
      if (count > 0) combineRun<f>(args.a + a, args.aStride[last], args.b + b, args.bStride[last], count, out);
    }
  });
}

}  // namespace

Status unary(const Exec& exec, const UnaryArgs& a) {
  return guard([&] {
    parallelFor(a.count, elementsPerChunk, exec, [&](int64_t begin, int64_t end, int) {
      withFunction(a.function, [&](auto f) { applyAll<f.value>(a.x + begin, end - begin, a.out + begin); });
    });
  });
}

Status unaryGradient(const Exec& exec, const UnaryGradientArgs& a) {
  return guard([&] {
    parallelFor(a.count, elementsPerChunk, exec, [&](int64_t begin, int64_t end, int) {
      withFunction(a.function, [&](auto f) {
        const auto to = a.fromOut ? applyGradient<f.value, true> : applyGradient<f.value, false>;
        to(a.x + begin, a.gradient + begin, end - begin, a.out + begin);
      });
    });
  });
}

Status binary(const Exec& exec, const BinaryArgs& a) {
  return guard([&] {
    switch (a.function) {
      case Binary::add:
        return combineAll<Binary::add>(exec, a);
      case Binary::subtract:
        return combineAll<Binary::subtract>(exec, a);
      case Binary::multiply:
        return combineAll<Binary::multiply>(exec, a);
      case Binary::divide:
        return combineAll<Binary::divide>(exec, a);
    }
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
