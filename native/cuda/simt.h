// The style that lets one kernel source compile as CUDA (nvcc) and as plain C++ against the SIMT emulator
// (test/simt/emulator.h), where its logic is tested without a GPU. Kernels are ordinary CUDA C++ except that
//  - shared memory is declared by SIMT_SHARED(Type, name, count), with trivial types;
//  - kernels are launched by Queue::launch alone, and device memory for work in between comes from Queue::workspace;
//  - warp collectives name their mask, all its lanes arrive, and no thread returns before a barrier;
//  - products are fused explicitly (fmaf), so that both builds round alike;
//  - there is no inline PTX, no CUB and no grid-wide barrier in a kernel body.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>

#include "backend/backend.h"
#include "core/error.h"

namespace topknot::cuda {

struct Grid {
  int64_t x = 1, y = 1;
};

inline constexpr unsigned allLanes = 0xffffffffu;

[[gnu::format(printf, 2, 3)]] inline Status failure(ErrorCode code, const char* format, ...) {
  Status status;
  status.code = static_cast<int32_t>(code);
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(status.message, sizeof status.message, format, arguments);
  va_end(arguments);
  return status;
}

}  // namespace topknot::cuda

#if defined(__CUDACC__)
#define SIMT_SHARED(Type, name, count) __shared__ Type name[count]
#include "cuda/queue.h"
#else
#include "test/simt/queue.h"
#endif
