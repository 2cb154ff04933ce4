// Elements of one type as another, the CUDA side of cpu/kernels/cast.cpp. Numbers are read as the widest of their kind
// (float, double or int64, which changes none of them) and written as what is wanted, so that there is a kernel for
// each kind and target rather than for each pair. The least of all places that do not fit is the same in whichever
// order threads find theirs.
#pragma once
#include <algorithm>

#include "backend/copy_args.h"
#include "core/convert.h"
#include "cuda/simt.h"

namespace topknot::cuda {

inline constexpr int castThreads = 256;

template <typename Wide>
SIMT_DEVICE Wide numberAt(const CastArgs& a, int64_t i) {
  if constexpr (std::is_same_v<Wide, double>) {
    return static_cast<const double*>(a.x)[i];
  } else if constexpr (std::is_same_v<Wide, float>) {
    if (a.from == DType::float16) return toFloat(static_cast<const Float16*>(a.x)[i]);
    if (a.from == DType::bfloat16) return toFloat(static_cast<const BFloat16*>(a.x)[i]);
    return static_cast<const float*>(a.x)[i];
  } else {
    if (a.from == DType::int64) return static_cast<const int64_t*>(a.x)[i];
    if (a.from == DType::int32) return static_cast<const int32_t*>(a.x)[i];
    if (a.from == DType::int8) return static_cast<const int8_t*>(a.x)[i];
    return static_cast<const uint8_t*>(a.x)[i];  // and truth values, which are 0 or 1
  }
}

__global__ void castNothing(CastArgs a) { *a.first = a.count; }

template <typename Wide, typename To>
__global__ void __launch_bounds__(castThreads) castElements(CastArgs a) {
  const int64_t step = int64_t{gridDim.x} * castThreads;
  for (int64_t i = int64_t{blockIdx.x} * castThreads + threadIdx.x; i < a.count; i += step) {
    const Wide x = numberAt<Wide>(a, i);
    if (holds<To>(x)) {
      static_cast<To*>(a.out)[i] = convert<To>(x);
    } else {
      atomicMin(reinterpret_cast<unsigned long long*>(a.first), static_cast<unsigned long long>(i));
    }
  }
}

/// The `cast` slot. `first` is device memory.
inline Status cast(const Exec& exec, const CastArgs& a) {
  Queue queue(exec);
  queue.launch("castNothing", castNothing, {1}, 1, a);
  if (a.count == 0) return queue.status();
  const int64_t blocks = std::min<int64_t>((a.count + castThreads - 1) / castThreads, 8 * queue.multiprocessors());
  dispatch(a.to, [&]<typename To>(To) {
    if (a.from == DType::float64) {
      queue.launch("castElements", castElements<double, To>, {blocks}, castThreads, a);
    } else if (a.from <= DType::bfloat16) {
      queue.launch("castElements", castElements<float, To>, {blocks}, castThreads, a);
    } else {
      queue.launch("castElements", castElements<int64_t, To>, {blocks}, castThreads, a);
    }
  });
  return queue.status();
}

}  // namespace topknot::cuda
