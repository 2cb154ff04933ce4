// The style that lets one kernel source compile as CUDA (nvcc) and as plain C++ against the SIMT emulator
// (test/simt/emulator.h), where its logic is tested without a GPU. Kernels are ordinary CUDA C++ except that
//  - functions are SIMT_DEVICE, members __device__, kernels of headers that several families include SIMT_LOCAL;
//  - shared memory is declared by SIMT_SHARED(Type, name, count), with trivial types, or for more than 48 KB by
//    SIMT_DYNAMIC_SHARED(name), whose size goes with the launch;
//  - kernels are launched by Queue::launch alone, and device memory for work in between comes from Queue::workspace;
//  - warp collectives name their mask, all its lanes arrive, and no thread returns before a barrier;
//  - a kernel whose registers ptxas would spill to fit more blocks says in its launch bounds how many are enough
//    (scripts/cuda-spills.mjs looks);
//  - products are fused explicitly (fmaf) where equal bits count: nvcc fuses others too, the emulator does not;
//  - inline PTX is in cuda/ptx.h and ptx90*.h alone; there is no CUB and no grid-wide barrier in a kernel body.
#pragma once
#include <cstdint>

#include "backend/backend.h"
#include "cuda/failure.h"
#include "cuda/lost.h"

namespace topknot::cuda {

inline constexpr int maxWorkspaces = 16;  // of a Queue at a time

/// What every GPU from compute capability 8.0 can give to a block.
inline constexpr int64_t maxDynamicShared = 99 << 10;

struct Grid {
  int64_t x = 1, y = 1;
  int64_t shared = 0;                      // bytes of the kernel's SIMT_DYNAMIC_SHARED
  int64_t sharedLimit = maxDynamicShared;  // of the GPUs that the kernel is for

  bool fits() const { return x >= 1 && x <= INT32_MAX && y >= 1 && y <= 65535; }
};

inline constexpr unsigned allLanes = 0xffffffffu;

}  // namespace topknot::cuda

#if defined(__CUDACC__)
#define SIMT_DEVICE __device__ inline  // a function of a header, which several files may include
#define SIMT_LOCAL static              // before a kernel of such a header, unless it is a template
#define SIMT_SHARED(Type, name, count) __shared__ Type name[count]
#define SIMT_UNROLL _Pragma("unroll")    // before loops over arrays that must stay in registers
#define SIMT_ROLLED _Pragma("unroll 1")  // before loops with so much in them that copies of it would cost
#define SIMT_AT                          // where a warp-wide wrapper is called: the emulator tells call sites apart
#define SIMT_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#include "cuda/queue.h"
#else
#include "test/simt/queue.h"
#endif
