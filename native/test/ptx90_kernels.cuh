// Small kernels for the wrappers of cuda/ptx90.h and cuda/ptx90_wgmma.h, and what they must give. As in
// ptx_kernels.cuh, elements are placed by the PTX ISA's formulas, written out here apart from the wrappers. Run by
// cuda_ptx90_test under the emulator and by ptx_check on a GPU of compute capability 9.0.
#pragma once
#include <algorithm>
#include <cstring>

#include "cuda/ptx90_wgmma.h"
#include "test/ptx_kernels.cuh"

namespace topknot::cuda {

/// out [64, N] = a [64, K] b [K, N], K = 2 tiles of depth (128 steps of 16 bits, 64 of 32). a and b come by copies, in
/// boxes of 128 bytes by 64 rows (b: N rows), or by K rows when they are down. One warpgroup.
template <RowFormat format, bool aDown, bool bDown, int N>
__global__ void __launch_bounds__(128, 1)
    ptxWgmma(const __grid_constant__ TensorMap aMap, const __grid_constant__ TensorMap bMap, float* out) {
#if SIMT_SM90A
  constexpr int wide = format == RowFormat::float32 ? 32 : 64, K = 2 * wide, perStep = wide / 4;
  constexpr int aBytes = 64 * K * 128 / wide, bBytes = N * K * 128 / wide;
  SIMT_DYNAMIC_SHARED(memory);
  SIMT_SHARED(Barrier, full, 1);
  unsigned char *a = swizzleAligned(memory), *b = a + aBytes;
  if (threadIdx.x == 0) {
    initBarrier(full, 1);
    fenceBarriers();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    arriveExpecting(full, aBytes + bBytes);
    if (aDown) copyTile(a, aMap, full, 0, 0);
    for (int t = 0; t < 2 && !aDown; ++t) copyTile(a + t * 8192, aMap, full, wide * t, 0);
    for (int t = 0; t < N / 64 && bDown; ++t) copyTile(b + t * K * 128, bMap, full, 64 * t, 0);
    for (int t = 0; t < 2 && !bDown; ++t) copyTile(b + t * N * 128, bMap, full, wide * t, 0);
  }
  waitPhase(full, 0);
  float sums[N / 2];
  for (int i = 0; i < N / 2; ++i) sums[i] = 7;  // which the first product does not add to
  fenceWgmma(sums);
  for (int k = 0; k < 8; ++k) {
    const uint64_t left =
        aDown ? advance(downTile(a, K), k * 16 * 128) : advance(acrossTile(a + k / 4 * 8192), k % 4 * 32);
    const uint64_t right =
        bDown ? advance(downTile(b, K), k * 16 * 128) : advance(acrossTile(b + k / 4 * N * 128), k % 4 * 32);
    wgmma<format, aDown, bDown>(sums, left, right, k > 0);
  }
  commitWgmma();
  waitForWgmma<0>(sums);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = 0; i < N / 2; ++i) {
    const int row = warp * 16 + lane / 4 + 8 * ((i / 2) & 1), column = (lane % 4) * 2 + (i & 1) + 8 * (i / 4);
    out[row * N + column] = sums[i];
  }
  static_assert(perStep > 0);
#endif
}

/// The same with a [64, 16] (8 columns of 32 bits) from registers and b of one step of depth, in two groups: out = a b,
/// then a b + a b, and what a wait for the first group alone gives of other sums.
template <RowFormat format, bool bDown, int N>
__global__ void __launch_bounds__(128, 1)
    ptxWgmmaRegisters(const uint32_t* a, const __grid_constant__ TensorMap bMap, float* out) {
#if SIMT_SM90A
  constexpr int K = format == RowFormat::float32 ? 8 : 16, boxes = bDown ? (N + 63) / 64 : 1;
  SIMT_DYNAMIC_SHARED(memory);
  SIMT_SHARED(Barrier, full, 1);
  unsigned char* b = swizzleAligned(memory);
  if (threadIdx.x == 0) {
    initBarrier(full, 1);
    fenceBarriers();
    arriveExpecting(full, boxes * (bDown ? K : N) * 128);
    for (int box = 0; box < boxes; ++box) copyTile(b + box * K * 128, bMap, full, 64 * box, 0);
  }
  __syncthreads();
  waitPhase(full, 0);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int group = lane / 4, quad = lane % 4;
  uint32_t fragment[4];
  for (int i = 0; i < 4; ++i) {  // in pairs of 16 bits, or one number of 32
    const int row = warp * 16 + (i == 0 || i == 2 ? group : group + 8), column = quad + (i >= 2 ? 4 : 0);
    fragment[i] = a[row * 8 + column];
  }
  const uint64_t right = bDown ? downTile(b, K) : acrossTile(b);
  float sums[N / 2], twice[N / 2] = {};
  fenceWgmma(sums, twice);
  wgmma<format, bDown>(sums, fragment, right, false);
  commitWgmma();
  wgmma<format, bDown>(twice, fragment, right, true);
  wgmma<format, bDown>(twice, fragment, right, true);
  commitWgmma();
  waitForWgmma<1>(sums);
  for (int i = 0; i < N / 2; ++i)
    out[(warp * 16 + group + 8 * ((i / 2) & 1)) * N + quad * 2 + (i & 1) + 8 * (i / 4)] = sums[i];
  waitForWgmma<0>(twice);
  for (int i = 0; i < N / 2; ++i) {
    out[(64 + warp * 16 + group + 8 * ((i / 2) & 1)) * N + quad * 2 + (i & 1) + 8 * (i / 4)] = twice[i];
  }
#endif
}

/// A box of up to four dimensions, byte for byte as it lies in shared memory. 128 threads.
__global__ void __launch_bounds__(128, 1)
    ptxCopyTile(const __grid_constant__ TensorMap map, int rank, int x, int y, int z, int w, int bytes, uint8_t* out) {
#if SIMT_SM90A
  SIMT_DYNAMIC_SHARED(memory);
  SIMT_SHARED(Barrier, full, 1);
  unsigned char* box = swizzleAligned(memory);
  if (threadIdx.x == 0) {
    initBarrier(full, 1);
    fenceBarriers();
    arriveExpecting(full, bytes);
    if (rank == 2) copyTile(box, map, full, x, y);
    else if (rank == 3) copyTile(box, map, full, x, y, z);
    else copyTile(box, map, full, x, y, z, w);
  }
  __syncthreads();
  waitPhase(full, 0);
  for (int i = static_cast<int>(threadIdx.x); i < bytes; i += 128) out[i] = box[i];
#endif
}

/// A producer warpgroup sends `steps` boxes of 8 rows through a ring of three stages to two consumers, which double the
/// bytes and store them, each half of a box, in registers that the producer gave back. 384 threads.
__global__ void __launch_bounds__(384, 1) ptxRing(const __grid_constant__ TensorMap map, int steps, uint8_t* out) {
#if SIMT_SM90A
  constexpr int stages = 3;
  SIMT_DYNAMIC_SHARED(memory);
  SIMT_SHARED(Barrier, full, stages);
  SIMT_SHARED(Barrier, empty, stages);
  SIMT_SHARED(int, told, 2);
  unsigned char* ring = swizzleAligned(memory);
  if (threadIdx.x == 0) {
    for (int s = 0; s < stages; ++s) {
      initBarrier(&full[s], 1);
      initBarrier(&empty[s], 8);
    }
    fenceBarriers();
  }
  __syncthreads();
  RingPlace<stages> place;
  if (threadIdx.x < 128) {
    shrinkRegisters<24>();
    for (int step = 0; step < steps && threadIdx.x == 0; ++step, place.next()) {
      waitPhase(&empty[place.stage], place.parity ^ 1);
      arriveExpecting(&full[place.stage], 1024);
      copyTile(ring + place.stage * 1024, map, &full[place.stage], 0, 8 * step);
    }
  } else {
    growRegisters<240>();
    const int consumer = static_cast<int>(threadIdx.x) / 128 - 1, thread = static_cast<int>(threadIdx.x) % 128;
    for (int step = 0; step < steps; ++step, place.next()) {
      waitPhase(&full[place.stage], place.parity);
      for (int i = consumer * 512 + thread; i < consumer * 512 + 512; i += 128) {
        out[step * 1024 + i] = static_cast<uint8_t>(2 * ring[place.stage * 1024 + i]);
      }
      __syncwarp(allLanes);  // or lane 0 gives back what others still read
      if (thread % 32 == 0) arrive(&empty[place.stage]);
    }
    if (thread == 0) told[consumer] = consumer + 1;
    syncThreads(1 + consumer, 128);
    if (thread == 127) out[steps * 1024 + consumer] = static_cast<uint8_t>(told[consumer]);
    syncThreads(3, 256);
    if (thread == 64) out[steps * 1024 + 2 + consumer] = static_cast<uint8_t>(told[1 - consumer]);
  }
#endif
}

/// What ordinary stores put into a tile, times itself: d [64, 64] = a aᵀ with a [64, 64] bfloat16. One warpgroup.
template <bool fenced>
__global__ void __launch_bounds__(128, 1) ptxStoredTile(const uint16_t* a, float* out) {
#if SIMT_SM90A
  SIMT_DYNAMIC_SHARED(memory);
  unsigned char* tile = swizzleAligned(memory);
  for (int i = static_cast<int>(threadIdx.x); i < 64 * 64; i += 128) {
    const int linear = 2 * i, row = linear / 128 % 8;
    *reinterpret_cast<uint16_t*>(tile + (linear ^ row * 16)) = a[i];  // bits 4 to 6 change by bits 7 to 9
  }
  if (fenced) fenceAsyncProxy();
  __syncthreads();
  float sums[32];
  fenceWgmma(sums);
  for (int k = 0; k < 4; ++k) {
    wgmma<RowFormat::bfloat16>(sums, advance(acrossTile(tile), 32 * k), advance(acrossTile(tile), 32 * k), k > 0);
  }
  commitWgmma();
  waitForWgmma<0>(sums);
  for (int i = 0; i < 32; ++i) out[wgmmaRow(i) * 64 + wgmmaColumn(i)] = sums[i];
#endif
}

namespace ptx90 {

inline constexpr int64_t tileMemory = 160 << 10;
inline Grid oneBlock(int64_t bytes) { return {1, 1, bytes + swizzleAlignment, maxDynamicShared90}; }

/// Numbers of a format as they lie in memory.
inline std::vector<uint8_t> packed(const std::vector<float>& x, RowFormat format) {
  const size_t bytes = format == RowFormat::float32 ? 4 : 2;
  std::vector<uint8_t> out(x.size() * bytes);
  for (size_t i = 0; i < x.size(); ++i) {
    const uint16_t half = format == RowFormat::float16 ? toFloat16(x[i]).bits : toBFloat16(x[i]).bits;
    if (bytes == 4) std::memcpy(&out[i * 4], &x[i], 4);
    else std::memcpy(&out[i * 2], &half, 2);
  }
  return out;
}

template <RowFormat format, bool aDown, bool bDown, int N, typename D>
bool wgmmaAgrees(Queue& queue, D& device) {
  // Three rows of a and five columns of b less than a tile has: those are zeros.
  constexpr int wide = format == RowFormat::float32 ? 32 : 64, K = 2 * wide, rows = 61, columns = N - 5,
                bytes = 128 / wide;
  constexpr int aStride = aDown ? 64 : K, bStride = bDown ? N : K;
  std::vector<float> a(64 * K, 3), b(static_cast<size_t>(N) * K, 3), got(64 * N), expected(64 * N, 0);
  const std::vector<float> left = ptxNumbers(rows * K, 7), right = ptxNumbers(K * columns, 5);
  for (int k = 0; k < K; ++k) {
    for (int r = 0; r < rows; ++r) a[aDown ? k * 64 + r : r * K + k] = left[r * K + k];
    for (int c = 0; c < columns; ++c) b[bDown ? k * N + c : c * K + k] = right[k * columns + c];
  }
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) {
      for (int k = 0; k < K; ++k) expected[r * N + c] += left[r * K + k] * right[k * columns + c];
    }
  }
  const auto tiles = [&](const std::vector<float>& x, bool down, int count, int stride, int boxRows) {
    const uint8_t* data = device.give(packed(x, format));
    return tensorMap(queue, down ? matrixTiles(data, bytes, K, count, stride, K)
                                 : matrixTiles(data, bytes, count, K, stride, boxRows));
  };
  const TensorMap aMap = tiles(a, aDown, rows, aStride, 64), bMap = tiles(b, bDown, columns, bStride, N);
  float* out = device.give(got);
  queue.launch("ptxWgmma", ptxWgmma<format, aDown, bDown, N>, oneBlock(tileMemory), 128, aMap, bMap, out);
  device.take(got, out);
  return queue.status().ok() && got == expected;
}

template <RowFormat format, bool bDown, int N = 64, typename D>
bool registersAgree(Queue& queue, D& device) {
  constexpr int K = format == RowFormat::float32 ? 8 : 16;
  const std::vector<float> a = ptxNumbers(64 * K, 7), right = ptxNumbers(K * N, 5);
  std::vector<float> b(K * N), got(2 * 64 * N), expected(2 * 64 * N, 0);
  for (int r = 0; r < 64; ++r) {
    for (int c = 0; c < N; ++c) {
      float sum = 0;
      for (int k = 0; k < K; ++k) sum += a[r * K + k] * right[k * N + c];
      expected[r * N + c] = sum;
      expected[(64 + r) * N + c] = 2 * sum;
    }
  }
  for (int k = 0; k < K; ++k) {
    for (int c = 0; c < N; ++c) b[bDown ? k * N + c : c * K + k] = right[k * N + c];
  }
  const int bytes = format == RowFormat::float32 ? 4 : 2;
  const uint8_t* data = device.give(packed(b, format));
  const TensorMap map =
      tensorMap(queue, bDown ? matrixTiles(data, bytes, K, N, N, K) : matrixTiles(data, bytes, N, K, K, N));
  float* out = device.give(got);
  const uint8_t* fragments = device.give(packed(a, format));
  queue.launch("ptxWgmmaRegisters", ptxWgmmaRegisters<format, bDown, N>, oneBlock(8192), 128,
               reinterpret_cast<const uint32_t*>(fragments), map, out);
  device.take(got, out);
  return queue.status().ok() && got == expected;
}

/// A box that begins before the tensor and ends behind it, in every dimension.
template <typename D>
bool copyAgrees(Queue& queue, D& device, int rank, int elementBytes) {
  const int wide = 128 / elementBytes;
  TensorTiles t{nullptr, elementBytes, rank, {wide - 8, 5, 3, 2}, {1, 64, 7 * 64, 30 * 64}, {wide, 8, 4, 3}};
  const int from[4] = {-3, -2, -1, -1};
  std::vector<uint8_t> data(static_cast<size_t>(64 * elementBytes * 64));
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 31 % 251 + 1);
  t.data = device.give(data);
  const size_t bytes = static_cast<size_t>(t.boxBytes());
  std::vector<uint8_t> got(bytes), expected(bytes);
  for (size_t i = 0; i < bytes; ++i) {
    int64_t at[4] = {static_cast<int64_t>(i % 128) / elementBytes, static_cast<int64_t>(i / 128), 0, 0};
    for (int d = 1; d + 1 < rank; ++d) {
      at[d + 1] = at[d] / t.box[d];
      at[d] %= t.box[d];
    }
    int64_t source = static_cast<int64_t>(i) % elementBytes;
    bool inside = true;
    for (int d = 0; d < rank; ++d) {
      at[d] += from[d];
      inside = inside && at[d] >= 0 && at[d] < t.sizes[d];
      source += at[d] * t.strides[d] * elementBytes;
    }
    // Row r of 128 bytes: its pieces of 16 bytes are exchanged by r mod 8.
    expected[i ^ i / 128 % 8 * 16] = inside ? data[static_cast<size_t>(source)] : uint8_t{0};
  }
  uint8_t* out = device.give(got);
  const TensorMap map = tensorMap(queue, t);
  queue.launch("ptxCopyTile", ptxCopyTile, oneBlock(static_cast<int64_t>(bytes)), 128, map, rank, from[0], from[1],
               from[2], from[3], static_cast<int>(bytes), out);
  device.take(got, out);
  return queue.status().ok() && got == expected;
}

template <typename D>
bool ringAgrees(Queue& queue, D& device) {
  constexpr int steps = 11;
  std::vector<uint8_t> data(steps * 1024), got(steps * 1024 + 4), expected(got.size());
  for (size_t i = 0; i < data.size(); ++i) {
    data[i] = static_cast<uint8_t>(i * 7 % 127);
    expected[i ^ i / 128 % 8 * 16] = static_cast<uint8_t>(2 * data[i]);
  }
  const uint8_t meetings[] = {1, 2, 2, 1};
  std::copy_n(meetings, 4, expected.end() - 4);
  const TensorMap map = tensorMap(queue, matrixTiles(device.give(data), 2, 8 * steps, 64, 64, 8));
  uint8_t* out = device.give(got);
  queue.launch("ptxRing", ptxRing, oneBlock(3 * 1024), 384, map, steps, out);
  device.take(got, out);
  return queue.status().ok() && got == expected;
}

template <typename D>
bool storedTileAgrees(Queue& queue, D& device) {
  const std::vector<float> a = ptxNumbers(64 * 64, 7);
  std::vector<float> got(64 * 64), expected(64 * 64, 0);
  for (int r = 0; r < 64; ++r) {
    for (int c = 0; c < 64; ++c) {
      for (int k = 0; k < 64; ++k) expected[r * 64 + c] += a[r * 64 + k] * a[c * 64 + k];
    }
  }
  float* out = device.give(got);
  queue.launch("ptxStoredTile", ptxStoredTile<true>, oneBlock(8192), 128, device.give(toHalves(a, false)), out);
  device.take(got, out);
  return queue.status().ok() && got == expected;
}

}  // namespace ptx90

/// As checkPtx, for the wrappers of compute capability 9.0a.
template <typename D>
std::vector<const char*> checkPtx90(D& device) {
  using enum RowFormat;
  Queue queue(Exec{});
  std::vector<const char*> wrong;
  const auto want = [&](bool right, const char* name) {
    if (!right) wrong.push_back(name);
  };
  want(ptx90::copyAgrees(queue, device, 2, 2), "copyTile of 2 dimensions");
  want(ptx90::copyAgrees(queue, device, 3, 2), "copyTile of 3 dimensions");
  want(ptx90::copyAgrees(queue, device, 4, 2), "copyTile of 4 dimensions");
  want(ptx90::copyAgrees(queue, device, 2, 4), "copyTile of float32");
  want(ptx90::ringAgrees(queue, device), "barriers, setmaxnreg, syncThreads");
  want(ptx90::storedTileAgrees(queue, device), "fenceAsyncProxy, wgmmaRow and wgmmaColumn");
  want(ptx90::wgmmaAgrees<bfloat16, false, false, 64>(queue, device), "wgmma bfloat16 n64");
  want(ptx90::wgmmaAgrees<bfloat16, false, true, 128>(queue, device), "wgmma bfloat16 n128, b down");
  want(ptx90::wgmmaAgrees<bfloat16, true, false, 96>(queue, device), "wgmma bfloat16 n96, a down");
  want(ptx90::wgmmaAgrees<bfloat16, true, true, 256>(queue, device), "wgmma bfloat16 n256, a and b down");
  want(ptx90::wgmmaAgrees<float16, false, false, 256>(queue, device), "wgmma float16 n256");
  want(ptx90::wgmmaAgrees<float16, false, false, 192>(queue, device), "wgmma float16 n192");
  want(ptx90::wgmmaAgrees<float16, true, true, 64>(queue, device), "wgmma float16 n64, a and b down");
  want(ptx90::wgmmaAgrees<float32, false, false, 32>(queue, device), "wgmma tf32 n32");
  want(ptx90::wgmmaAgrees<float32, false, false, 128>(queue, device), "wgmma tf32 n128");
  want(ptx90::registersAgree<bfloat16, false>(queue, device), "wgmma bfloat16, a in registers");
  want(ptx90::registersAgree<bfloat16, true>(queue, device), "wgmma bfloat16, a in registers, b down");
  want(ptx90::registersAgree<bfloat16, true, 32>(queue, device), "wgmma bfloat16 n32, a in registers, b down");
  want(ptx90::registersAgree<bfloat16, true, 96>(queue, device), "wgmma bfloat16 n96, a in registers, b down");
  want(ptx90::registersAgree<bfloat16, true, 128>(queue, device), "wgmma bfloat16 n128, a in registers, b down");
  want(ptx90::registersAgree<float16, false>(queue, device), "wgmma float16, a in registers");
  want(ptx90::registersAgree<float32, false>(queue, device), "wgmma tf32, a in registers");
  if (!queue.status().ok()) std::printf("%s\n", queue.status().message);
  return wrong;
}

}  // namespace topknot::cuda
