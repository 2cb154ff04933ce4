// A ring of stages between the thread that copies tiles of two operands and the two warpgroups that multiply them.
#pragma once
#include "cuda/ptx90_wgmma.h"

namespace topknot::cuda {

/// A block of three warpgroups: the first copies, the other two multiply 64 x N each. A stage has 128 rows of a, 64 for
/// each of them, and N rows of b, with 128 bytes of depth (or the same turned, 16-bit numbers only).
template <int N>
struct WgmmaRing {
  static constexpr int threads = 384, consumerWarps = 8, rows = 128;
  static constexpr int boxBytes = 64 * 128, aBytes = rows * 128, stageBytes = aBytes + N * 128;
  static constexpr int stages = N == 256 ? 4 : 6;
  static constexpr int64_t bytes = int64_t{stages} * stageBytes;
  // Registers of a producer's and a consumer's thread, out of those that 384 threads have at the start.
  static constexpr int few = 24, many = 240;
  static_assert(128 * few + 256 * many <= threads * (65536 / threads / 8 * 8));

  unsigned char* tiles;
  Barrier *full, *empty;
  RingPlace<stages> place;

  /// By the whole block; ends with a barrier.
  __device__ void start() {
    if (threadIdx.x == 0) {
      for (int s = 0; s < stages; ++s) {
        initBarrier(&full[s], 1);
        initBarrier(&empty[s], consumerWarps);
      }
      fenceBarriers();
    }
    __syncthreads();
  }

  /// The producer's thread, for each step: the stage, announced, into which copy(a, b, barrier) copies.
  template <typename Copy>
  __device__ void send(Copy&& copy) {
    waitPhase(&empty[place.stage], place.parity ^ 1);
    arriveExpecting(&full[place.stage], stageBytes);
    unsigned char* const a = tiles + place.stage * stageBytes;
    copy(a, a + aBytes, &full[place.stage]);
    place.next();
  }

  /// The consumers: sums = the products of the next `steps` stages, at least one.
  template <RowFormat format, bool aDown, bool bDown>
  __device__ void multiply(float (&sums)[N / 2], int steps) {
    const int consumer = static_cast<int>(threadIdx.x) / 128 - 1, lane = static_cast<int>(threadIdx.x) % 32;
    int before = 0;  // the stage of the step before
    for (int step = 0; step < steps; ++step, place.next()) {
      const unsigned char* stage = tiles + place.stage * stageBytes;
      const unsigned char *a = stage + consumer * boxBytes, *b = stage + aBytes;
      const uint64_t atA = aDown ? downTile(a, 64) : acrossTile(a), atB = bDown ? downTile(b, 64) : acrossTile(b);
      waitPhase(&full[place.stage], place.parity);
      fenceWgmma(sums);
      SIMT_UNROLL
      for (int k = 0; k < 4; ++k) {
        wgmma<format, aDown, bDown>(sums, advance(atA, k * (aDown ? 16 * 128 : 32)),
                                    advance(atB, k * (bDown ? 16 * 128 : 32)), step + k > 0);
      }
      commitWgmma();
      // The products of this step go on while the stage of the last one is given back.
      waitForWgmma<1>();
      if (step > 0 && lane == 0) arrive(&empty[before]);
      before = place.stage;
    }
    waitForWgmma<0>(sums);
    if (lane == 0) arrive(&empty[before]);
  }
};

}  // namespace topknot::cuda
