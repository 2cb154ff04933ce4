// Functions of one and of two tensors, the CUDA side of cpu/kernels/elementwise.cpp. A thread has four neighbours where
// memory allows it, one otherwise.
#pragma once
#include <cmath>

#include "backend/blocks_args.h"
#include "cuda/kernels/team.cuh"

namespace topknot::cuda {

inline constexpr int elementThreads = 256;

inline Grid elementGrid(int64_t threads) { return {(threads + elementThreads - 1) / elementThreads}; }
SIMT_DEVICE int64_t threadOfGrid() { return int64_t{blockIdx.x} * elementThreads + threadIdx.x; }

SIMT_DEVICE float sigmoid(float x) { return 1 / (1 + expf(-x)); }

/// The density and the distribution function of the standard normal distribution.
SIMT_DEVICE float normalDensity(float x) { return 0.398942280f * expf(-0.5f * x * x); }
SIMT_DEVICE float normalBelow(float x) { return 0.5f * erfcf(-0.707106781f * x); }

/// gelu by tanh is x sigmoid(2 u), u = sqrt(2 / π) (x + 0.044715 x³): 2 u, and its derivative.
SIMT_DEVICE float geluArgument(float x) { return x * fmaf(x * x, 0.0713548163f, 1.59576912f); }
SIMT_DEVICE float geluSlope(float x) { return fmaf(x * x, 3 * 0.0713548163f, 1.59576912f); }

/// f(x). Comparisons are such that a NaN stays one.
SIMT_DEVICE float apply(Unary f, float x) {
  switch (f) {
    case Unary::none:
      return x;
    case Unary::relu:
      return x > 0 || x != x ? x : 0.0f;
    case Unary::gelu:
      return x * normalBelow(x);
    case Unary::geluTanh:
      return x * sigmoid(geluArgument(x));
    case Unary::sigmoid:
      return sigmoid(x);
    case Unary::tanh:
      return tanhf(x);
    case Unary::silu:
      return x * sigmoid(x);
    case Unary::exp:
      return expf(x);
    case Unary::log:
      return logf(x);
    case Unary::sqrt:
      return sqrtf(x);
  }
  return x;
}

/// f'(x); with fromOut x is a result of f.
SIMT_DEVICE float derivative(Unary f, bool fromOut, float x) {
  switch (f) {
    case Unary::none:
      return 1;
    case Unary::relu:
      return x != x ? x : x > 0 ? 1.0f : 0.0f;
    case Unary::gelu:
      return fmaf(x, normalDensity(x), normalBelow(x));
    case Unary::geluTanh: {
      const float s = sigmoid(geluArgument(x));
      return fmaf(x * geluSlope(x), s * (1 - s), s);
    }
    case Unary::sigmoid: {
      const float s = fromOut ? x : sigmoid(x);
      return s * (1 - s);
    }
    case Unary::tanh: {
      const float t = fromOut ? x : tanhf(x);
      return fmaf(-t, t, 1.0f);
    }
    case Unary::silu: {
      const float s = sigmoid(x);
      return fmaf(x * s, 1 - s, s);
    }
    case Unary::exp:
      return expf(x);
    case Unary::log:
      return 1 / x;
    case Unary::sqrt:
      return 0.5f / sqrtf(x);
  }
  return 1;
}

/// Calls f with the function as a constant, so that a kernel holds one function only.
template <typename F>
void withFunction(Unary function, F&& f) {
  withConstant<Unary::none, Unary::relu, Unary::gelu, Unary::geluTanh, Unary::sigmoid, Unary::tanh, Unary::silu,
               Unary::exp, Unary::log, Unary::sqrt>(function, f);
}

template <Unary f, int V>
SIMT_DEVICE void applyPack(const UnaryArgs& a, int64_t i) {
  float x[V];
  loadPack(a.x + i, x);
  for (int k = 0; k < V; ++k) x[k] = apply(f, x[k]);
  storePack(x, a.out + i);
}

template <Unary f, int V>
SIMT_DEVICE void applyPack(const UnaryGradientArgs& a, int64_t i) {
  float x[V], gradient[V];
  loadPack(a.x + i, x);
  loadPack(a.gradient + i, gradient);
  for (int k = 0; k < V; ++k) x[k] = derivative(f, a.fromOut, x[k]) * gradient[k];
  storePack(x, a.out + i);
}

/// Four elements for each of the first `fours` threads, one for each of the others.
template <Unary f, typename Args>
__global__ void __launch_bounds__(elementThreads) unaryElements(Args a, int64_t fours) {
  const int64_t thread = threadOfGrid(), one = thread + 3 * fours;
  if (thread < fours) applyPack<f, 4>(a, 4 * thread);
  else if (one < a.count) applyPack<f, 1>(a, one);
}

template <typename Args>
Status launchUnary(const Exec& exec, const char* name, const Args& a, bool aligned) {
  Queue queue(exec);
  if (a.count == 0) return queue.status();
  const int64_t fours = aligned ? a.count / 4 : 0;
  withFunction(a.function, [&](auto f) {
    queue.launch(name, unaryElements<decltype(f)::value, Args>, elementGrid(a.count - 3 * fours), elementThreads, a,
                 fours);
  });
  return queue.status();
}

/// The `unary` slot.
inline Status unary(const Exec& exec, const UnaryArgs& a) {
  return launchUnary(exec, "unary", a, aligned16({a.x, a.out}));
}

/// The `unaryGradient` slot.
inline Status unaryGradient(const Exec& exec, const UnaryGradientArgs& a) {
  return launchUnary(exec, "unaryGradient", a, aligned16({a.x, a.gradient, a.out}));
}

template <Binary f>
SIMT_DEVICE float combine(float x, float y) {
  if constexpr (f == Binary::add) return x + y;
  if constexpr (f == Binary::subtract) return x - y;
  if constexpr (f == Binary::multiply) return x * y;
  return x / y;
}

/// V neighbours in the last dimension, or one number for all of them where its stride is 0.
template <int V>
SIMT_DEVICE void loadOperand(const float* from, int64_t stride, float (&x)[V]) {
  if (stride == 0) {
    for (int k = 0; k < V; ++k) x[k] = *from;
  } else {
    loadPack(from, x);
  }
}

template <Binary f, int V>
__global__ void __launch_bounds__(elementThreads) binaryElements(BinaryArgs args, int64_t packs) {
  const int64_t pack = threadOfGrid();
  if (pack >= packs) return;
  const int last = args.rank - 1;
  const float *a = args.a, *b = args.b;
  int64_t rest = pack;
  for (int d = last; d >= 0; --d) {
    const int64_t size = d == last ? args.dims[d] / V : args.dims[d];
    const int64_t place = (d > 0 ? rest % size : rest) * (d == last ? V : 1);
    a += place * args.aStride[d];
    b += place * args.bStride[d];
    if (d > 0) rest /= size;
  }
  float x[V], y[V];
  loadOperand(a, args.aStride[last], x);
  loadOperand(b, args.bStride[last], y);
  for (int k = 0; k < V; ++k) x[k] = combine<f>(x[k], y[k]);
  storePack(x, args.out + pack * V);
}

/// The same elements in as few dimensions as will do.
inline BinaryArgs merged(const BinaryArgs& a) {
  BinaryArgs m = a;
  m.rank = 0;
  for (int d = 0; d < a.rank; ++d) {
    if (a.dims[d] == 1) continue;
    const int before = m.rank - 1;
    const bool joins =
        before >= 0 && m.aStride[before] == a.aStride[d] * a.dims[d] && m.bStride[before] == a.bStride[d] * a.dims[d];
    const int to = joins ? before : m.rank++;
    m.dims[to] = joins ? m.dims[to] * a.dims[d] : a.dims[d];
    m.aStride[to] = a.aStride[d];
    m.bStride[to] = a.bStride[d];
  }
  if (m.rank == 0) {
    m.rank = 1;
    m.dims[0] = m.aStride[0] = m.bStride[0] = 1;
  }
  return m;
}

/// Whether an operand of merged() can be read by four neighbours.
inline bool readsByFour(const float* data, const int64_t* strides, int32_t rank) {
  if (strides[rank - 1] == 0) return true;
  if (strides[rank - 1] != 1 || !aligned16({data})) return false;
  for (int d = 0; d < rank - 1; ++d) {
    if (strides[d] % 4 != 0) return false;
  }
  return true;
}

/// The `binary` slot.
inline Status binary(const Exec& exec, const BinaryArgs& args) {
  Queue queue(exec);
  int64_t count = 1;
  for (int d = 0; d < args.rank; ++d) count *= args.dims[d];
  if (count == 0) return queue.status();
  const BinaryArgs a = merged(args);
  const bool fours = a.dims[a.rank - 1] % 4 == 0 && aligned16({a.out}) && readsByFour(a.a, a.aStride, a.rank) &&
                     readsByFour(a.b, a.bStride, a.rank);
  withConstant<Binary::add, Binary::subtract, Binary::multiply, Binary::divide>(a.function, [&](auto function) {
    constexpr Binary f = decltype(function)::value;
    const int64_t packs = fours ? count / 4 : count;
    queue.launch("binary", fours ? binaryElements<f, 4> : binaryElements<f, 1>, elementGrid(packs), elementThreads, a,
                 packs);
  });
  return queue.status();
}

}  // namespace topknot::cuda
