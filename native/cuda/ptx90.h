// PTX of compute capability 9.0a: barriers in shared memory (mbarrier), copies of tiles by the copy engine (TMA), and
// what a producer and its consumers need besides; products of a warpgroup (wgmma) are in ptx90_wgmma.h. As in ptx.h
// every wrapper has a body for the device and one for the emulator (test/simt/sm90.h); cuda_ptx90_test checks the
// emulation against the PTX ISA, test/ptx_check the device. A kernel of these wrappers has its body inside
// `#if SIMT_SM90A`, so that it is empty on other GPUs, and its host code asks sm90aChosen() (sm90a.h).
//
// Tiles. A TensorMap (made on the host, tensorMap() in tensor_map.h; a kernel's parameter is `const __grid_constant__
// TensorMap map`, passed on by reference) describes a tensor in global memory and the box that one copy brings: rows of
// 128 bytes (64 numbers of 16 bits, 32 of 32), zeros outside the tensor. In shared memory row r of the box takes bytes
// 128 r to 128 r + 127, its 16-byte pieces permuted by the 128-byte swizzle, which is what the descriptors of
// ptx90_wgmma.h read. Where a box goes must be aligned to 1024 bytes (swizzleAligned).
//
// Barriers. A Barrier lies in shared memory (SIMT_SHARED(Barrier, full, stages)). One thread calls initBarrier for
// each, then fenceBarriers(), then the block __syncthreads(). A phase ends when `arrivals` threads have arrived and all
// bytes that were announced (arriveExpecting) have landed; then the next begins. waitPhase(barrier, parity) returns
// when the phase of that parity has ended: the first phase has parity 0, and waiting for parity 1 on a fresh barrier
// returns at once. A ring of stages keeps its place and parity in a RingPlace:
//
//   producer, one thread:  for each step: waitPhase(&empty[place.stage], place.parity ^ 1);
//                                         arriveExpecting(&full[place.stage], bytes); copyTile(...)...; place.next();
//   consumers:             for each step: waitPhase(&full[place.stage], place.parity); ... read the tiles ...;
//                                         arrive(&empty[place.stage]), by as many threads as it was initialised for;
//                                         where one lane arrives for its warp, __syncwarp(allLanes) before that
//
// Ordinary stores to shared memory that wgmma or the copy engine touches next need fenceAsyncProxy() by each thread
// that stored, then a barrier. Threads that split into roles never meet in __syncthreads again: syncThreads(id,
// threads) is the barrier of some of them, whole warps, with id 1 to 15.
#pragma once
#include <cstdint>

#include "cuda/ptx.h"
#include "cuda/tensor_map.h"

#if !defined(__CUDACC__)
#include "test/simt/sm90.h"
#endif

#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SIMT_SM90A 1
#else
#define SIMT_SM90A 0
#endif

namespace topknot::cuda {

/// What a GPU of compute capability 9.0 can give to a block; Grid::sharedLimit of a kernel that runs there alone.
inline constexpr int64_t maxDynamicShared90 = 227 << 10;
/// Where tiles may begin; a kernel asks for so many bytes more than its tiles take.
inline constexpr int64_t swizzleAlignment = 1024;

using Barrier = uint64_t;

/// Where a thread is in a ring of stages.
template <int stages>
struct RingPlace {
  int stage = 0, parity = 0;
  __device__ void next() {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

__device__ unsigned char* swizzleAligned(unsigned char* dynamicShared);

__device__ void initBarrier(Barrier* barrier, int arrivals);
__device__ void fenceBarriers();
__device__ void arrive(Barrier* barrier SIMT_AT);
/// Arrives, and announces bytes that copies will bring in this phase: whole boxes, with what is outside the tensor.
__device__ void arriveExpecting(Barrier* barrier, int bytes SIMT_AT);
__device__ void waitPhase(Barrier* barrier, int parity SIMT_AT);

/// Begins to copy the box at these coordinates (the fastest dimension first; they may be negative), by one thread. Its
/// bytes count towards the barrier's phase when they land.
__device__ void copyTile(void* shared, const TensorMap& map, Barrier* barrier, int x, int y SIMT_AT);
__device__ void copyTile(void* shared, const TensorMap& map, Barrier* barrier, int x, int y, int z SIMT_AT);
__device__ void copyTile(void* shared, const TensorMap& map, Barrier* barrier, int x, int y, int z, int w SIMT_AT);

__device__ void fenceAsyncProxy();

/// Gives registers back, or takes them, so that each thread of the warpgroup has this many from here on: a multiple of
/// 8 from 24 to 256. By all warps of a warpgroup, in a kernel whose launch bounds name one block.
template <int registers>
__device__ void shrinkRegisters();
template <int registers>
__device__ void growRegisters();

__device__ void syncThreads(int id, int threads SIMT_AT);

#if defined(__CUDACC__)

__device__ inline unsigned char* swizzleAligned(unsigned char* dynamicShared) {
  return dynamicShared + (-sharedAddress(dynamicShared) & (swizzleAlignment - 1));
}

#if SIMT_SM90A

__device__ inline void initBarrier(Barrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(sharedAddress(barrier)), "r"(arrivals) : "memory");
}

__device__ inline void fenceBarriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(sharedAddress(barrier)) : "memory");
}

__device__ inline void arriveExpecting(Barrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(sharedAddress(barrier)), "r"(bytes)
               : "memory");
}

__device__ inline void waitPhase(Barrier* barrier, int parity) {
  uint32_t ended;
  do {
    asm volatile(
        "{\n.reg .pred ended;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
        "selp.u32 %0, 1, 0, ended;\n}"
        : "=r"(ended)
        : "r"(sharedAddress(barrier)), "r"(parity)
        : "memory");
  } while (ended == 0);
}

__device__ inline void copyTile(void* shared, const TensorMap& map, Barrier* barrier, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::
          "r"(sharedAddress(shared)),
      "l"(&map), "r"(sharedAddress(barrier)), "r"(x), "r"(y)
      : "memory");
}

__device__ inline void copyTile(void* shared, const TensorMap& map, Barrier* barrier, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
      "[%2];" ::"r"(sharedAddress(shared)),
      "l"(&map), "r"(sharedAddress(barrier)), "r"(x), "r"(y), "r"(z)
      : "memory");
}

__device__ inline void copyTile(void* shared, const TensorMap& map, Barrier* barrier, int x, int y, int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
      "[%2];" ::"r"(sharedAddress(shared)),
      "l"(&map), "r"(sharedAddress(barrier)), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}

__device__ inline void fenceAsyncProxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

template <int registers>
__device__ void shrinkRegisters() {
  static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

template <int registers>
__device__ void growRegisters() {
  static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

__device__ inline void syncThreads(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#endif

#else

__device__ unsigned char* swizzleAligned(unsigned char* dynamicShared) {
  return dynamicShared + (-simt::sharedOffset(dynamicShared) & (swizzleAlignment - 1));
}

__device__ void initBarrier(Barrier* barrier, int arrivals) { simt::sm90::initBarrier(barrier, arrivals); }
__device__ void fenceBarriers() { simt::sm90::fenceAsyncProxy(); }
__device__ void arrive(Barrier* barrier, simt::At at) { simt::sm90::arrive(barrier, 0, at); }
__device__ void arriveExpecting(Barrier* barrier, int bytes, simt::At at) { simt::sm90::arrive(barrier, bytes, at); }
__device__ void waitPhase(Barrier* barrier, int parity, simt::At at) { simt::sm90::waitPhase(barrier, parity, at); }

__device__ void copyTile(void* shared, const TensorMap& map, Barrier* barrier, int x, int y, simt::At at) {
  simt::sm90::copyBox(shared, map, barrier, 2, {x, y, 0, 0}, at);
}
__device__ void copyTile(void* shared, const TensorMap& map, Barrier* barrier, int x, int y, int z, simt::At at) {
  simt::sm90::copyBox(shared, map, barrier, 3, {x, y, z, 0}, at);
}
__device__ void copyTile(void* shared, const TensorMap& map, Barrier* barrier, int x, int y, int z, int w,
                         simt::At at) {
  simt::sm90::copyBox(shared, map, barrier, 4, {x, y, z, w}, at);
}

__device__ void fenceAsyncProxy() { simt::sm90::fenceAsyncProxy(); }

template <int registers>
void shrinkRegisters() {
  static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
}
template <int registers>
void growRegisters() {
  static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
}

__device__ void syncThreads(int id, int threads, simt::At at) { simt::syncSome(id, threads, at); }

#endif

}  // namespace topknot::cuda
