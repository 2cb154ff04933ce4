// The emulator's side of cuda/ptx90.h and cuda/ptx90_wgmma.h, after the PTX ISA and the driver's rules for tensor maps.
//
// Nothing asynchronous is early by chance. A copy lands when a thread waits for its barrier; the products of a warp
// read their tiles when the warp waits for them, and until then its sums are poison. Random schedules carry out every
// other one at once, so that memory which is given back too early shows. Faults are: copies and products that nobody
// waits for, sums that change under a product, products without fenceWgmma, warps of a warpgroup that multiply
// different things, barriers without initBarrier or fenceBarriers or with too many arrivals, boxes and descriptors off
// the swizzle's pattern, and tiles that ordinary stores changed without fenceAsyncProxy.
#pragma once
#include <array>

#include "backend/embedding_args.h"
#include "cuda/tensor_map.h"
#include "test/simt/emulator.h"

namespace simt::sm90 {

void initBarrier(uint64_t* barrier, int arrivals);
/// Announces `bytes` first.
void arrive(uint64_t* barrier, int bytes, const At& at);
void waitPhase(uint64_t* barrier, int parity, const At& at);
void copyBox(void* to, const topknot::cuda::TensorMap& map, uint64_t* barrier, int rank, std::array<int, 4> from,
             const At& at);
void fenceAsyncProxy();

/// What a thread gives to a product of its warpgroup.
struct Product {
  float* sums;
  int count;          // of them
  const uint32_t* a;  // four registers; null: in shared memory
  uint64_t aTile, bTile;
  bool accumulate, aDown, bDown;
  topknot::RowFormat format;
  At at;
};
void product(Product mine);
void fenceProducts();
void commitProducts();
void waitForProducts(int groupsLeft);
void checkLanded(const float* sums);

// Called by the emulator.
void startBlock();
void publish(char* data, size_t bytes);  // a new variable of shared memory
void endThread(unsigned thread);
void endBlock(const char* kernel);

}  // namespace simt::sm90
