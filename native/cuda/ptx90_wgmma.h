// wgmma: products of 64 rows by N columns of sums in the registers of a warpgroup, by the tensor cores of compute
// capability 9.0a, without waiting for them. Read ptx90.h first.
//
//   sums (64 x N, float32) += a (64 x K) b (K x N), by four warps whose first is a multiple of four. K = 16 for float16
//   and bfloat16, 8 for float32, which is read as tf32: the 13 lowest bits do not count. N = 32, 64, 96, 128, 192, 256.
//
//   float sums[N / 2]: a thread has in sums[i] row wgmmaRow(i), column wgmmaColumn(i). Warp w has rows 16 (w % 4) to
//     16 (w % 4) + 15, eight columns in four registers as mma.sync has them.
//   a in registers: as for mmaBf16, mmaF16 and mmaTf32 (ptx.h), the 16 rows of each warp. So sixteen columns of sums,
//     rounded to 16 bits, are the a of another product's 16 steps of depth: a[i] = (sums[8 j + 2 i], [8 j + 2 i + 1]).
//   a, b in shared memory: descriptors of tiles as copyTile leaves them, in one of two ways:
//     acrossTile(tile): a row of the tile is a row of a (or a column of b), with its depth across: 64 steps of 16 bits,
//       32 of 32 bits. The next K: advance(descriptor, 32).
//     downTile(tile, rows): a row of the tile is a step of depth, with 64 rows of a (or columns of b) across; 16-bit
//       numbers only, and aDown or bDown is true. For more columns of b there are tiles of `rows` rows behind each
//       other. The next K: advance(descriptor, 16 * 128).
//
// A loop over a ring of stages, 64 steps of depth each:
//
//   float sums[64];                                     // 64 x 128, zero to begin with or by accumulate = false
//   for (int step = 0; step < steps; ++step, place.next()) {
//     waitPhase(&full[place.stage], place.parity);
//     fenceWgmma(sums);                                 // before products, whenever a thread has touched sums or a
//     for (int k = 0; k < 4; ++k) {
//       wgmma<RowFormat::bfloat16>(sums, advance(acrossTile(a), 32 * k), advance(acrossTile(b), 32 * k), step + k > 0);
//     }
//     commitWgmma();
//     waitForWgmma<0>(sums);                            // until then sums, a's registers and the tiles are in use
//     if (threadIdx.x % 32 == 0) arrive(&empty[place.stage]);
//   }
//
// waitForWgmma<left> waits for all but the `left` latest groups and names the sums that are read next. It covers a
// warp's own rows, so every warp arrives when a stage is given back. All four warps do all of this, alike.
#pragma once
#include "backend/embedding_args.h"
#include "cuda/ptx90.h"

namespace topknot::cuda {

/// Where a thread has sums[i].
SIMT_DEVICE int wgmmaRow(int i) {
  const int thread = static_cast<int>(threadIdx.x) % 128;
  return thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
}
SIMT_DEVICE int wgmmaColumn(int i) { return i / 4 * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + i % 2; }

/// Of a tile at this address of shared memory with the 128-byte swizzle; strides in bytes. (PTX ISA, "Matrix Descriptor
/// Format": each field without its four lowest bits.)
SIMT_DEVICE uint64_t tileDescriptor(uint32_t address, uint32_t leading, uint32_t stride) {
  return (address & 0x3ffffu) >> 4 | static_cast<uint64_t>(leading >> 4 & 0x3fffu) << 16 |
         static_cast<uint64_t>(stride >> 4 & 0x3fffu) << 32 | uint64_t{1} << 62;
}
SIMT_DEVICE uint64_t advance(uint64_t descriptor, int bytes) { return descriptor + static_cast<uint32_t>(bytes >> 4); }

__device__ uint64_t acrossTile(const void* tile);
__device__ uint64_t downTile(const void* tile, int rows);

/// accumulate false: sums = a b.
template <RowFormat format, bool aDown = false, bool bDown = false, int R>
__device__ void wgmma(float (&sums)[R], uint64_t a, uint64_t b, bool accumulate SIMT_AT);
template <RowFormat format, bool bDown = false, int R>
__device__ void wgmma(float (&sums)[R], const uint32_t (&a)[4], uint64_t b, bool accumulate SIMT_AT);

template <int... R>
__device__ void fenceWgmma(float (&... sums)[R]);
__device__ void commitWgmma();
template <int left, int... R>
__device__ void waitForWgmma(float (&... sums)[R]);

template <RowFormat format, bool aDown, bool bDown, int R>
inline constexpr bool isWgmma = (R == 16 || R == 32 || R == 48 || R == 64 || R == 96 || R == 128) &&
                                (format == RowFormat::float16 || format == RowFormat::bfloat16 ||
                                 (format == RowFormat::float32 && !aDown && !bDown));

#if defined(__CUDACC__)

SIMT_DEVICE uint64_t acrossTile(const void* tile) { return tileDescriptor(sharedAddress(tile), 16, 1024); }
SIMT_DEVICE uint64_t downTile(const void* tile, int rows) {
  return tileDescriptor(sharedAddress(tile), static_cast<uint32_t>(rows) * 128, 1024);
}

#if SIMT_SM90A

// The registers of the sums, by 16: as text and as operands.
#define WGMMA_SUMS_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define WGMMA_SUMS_32 \
  WGMMA_SUMS_16       \
  ", "                \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_SUMS_48 \
  WGMMA_SUMS_32       \
  ", "                \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define WGMMA_SUMS_64 \
  WGMMA_SUMS_48       \
  ", "                \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_SUMS_80 \
  WGMMA_SUMS_64       \
  ", "                \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define WGMMA_SUMS_96 \
  WGMMA_SUMS_80       \
  ", "                \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define WGMMA_SUMS_112 \
  WGMMA_SUMS_96        \
  ", "                 \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define WGMMA_SUMS_128 \
  WGMMA_SUMS_112       \
  ", "                 \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_16(i)                                                                                             \
  "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3]), "+f"(sums[i + 4]), "+f"(sums[i + 5]), \
      "+f"(sums[i + 6]), "+f"(sums[i + 7]), "+f"(sums[i + 8]), "+f"(sums[i + 9]), "+f"(sums[i + 10]),           \
      "+f"(sums[i + 11]), "+f"(sums[i + 12]), "+f"(sums[i + 13]), "+f"(sums[i + 14]), "+f"(sums[i + 15])
#define WGMMA_OPERANDS_16 WGMMA_16(0)
#define WGMMA_OPERANDS_32 WGMMA_OPERANDS_16, WGMMA_16(16)
#define WGMMA_OPERANDS_48 WGMMA_OPERANDS_32, WGMMA_16(32)
#define WGMMA_OPERANDS_64 WGMMA_OPERANDS_48, WGMMA_16(48)
#define WGMMA_OPERANDS_96 WGMMA_OPERANDS_64, WGMMA_16(64), WGMMA_16(80)
#define WGMMA_OPERANDS_128 WGMMA_OPERANDS_96, WGMMA_16(96), WGMMA_16(112)

// One instruction, its inputs numbered from R on: a, b, accumulate, and whether a and b are down, for 16-bit numbers;
// or four registers of a, b, accumulate and whether b is down.
#define WGMMA_SHARED(R, N, type, a_, b_, accumulate_, turns)                                                     \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " accumulate_ ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N type \
               " {" WGMMA_SUMS_##R "}, " a_ ", " b_ ", p, 1, 1" turns ";\n}"                                     \
               : WGMMA_OPERANDS_##R                                                                              \
               : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(static_cast<int>(aDown)),                \
                 "n"(static_cast<int>(bDown))                                                                    \
               : "memory")
#define WGMMA_REGISTERS(R, N, type, a_, b_, accumulate_, turns)                                                  \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " accumulate_ ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N type \
               " {" WGMMA_SUMS_##R "}, {" a_ "}, " b_ ", p, 1, 1" turns ";\n}"                                   \
               : WGMMA_OPERANDS_##R                                                                              \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)),          \
                 "n"(static_cast<int>(bDown))                                                                    \
               : "memory")
#define WGMMA_FORMATS(form, R, N, a_, b_, accumulate_, turns)                                                   \
  if constexpr (R == sizeof(sums) / sizeof(float)) {                                                            \
    if constexpr (format == RowFormat::bfloat16) form(R, N, "k16.f32.bf16.bf16", a_, b_, accumulate_, turns);   \
    else if constexpr (format == RowFormat::float16) form(R, N, "k16.f32.f16.f16", a_, b_, accumulate_, turns); \
    else form(R, N, "k8.f32.tf32.tf32", a_, b_, accumulate_, "");                                               \
  }

template <RowFormat format, bool aDown, bool bDown, int R>
__device__ void wgmma(float (&sums)[R], uint64_t a, uint64_t b, bool accumulate) {
  static_assert(isWgmma<format, aDown, bDown, R>);
  WGMMA_FORMATS(WGMMA_SHARED, 16, 32, "%16", "%17", "%18", ", %19, %20")
  WGMMA_FORMATS(WGMMA_SHARED, 32, 64, "%32", "%33", "%34", ", %35, %36")
  WGMMA_FORMATS(WGMMA_SHARED, 48, 96, "%48", "%49", "%50", ", %51, %52")
  WGMMA_FORMATS(WGMMA_SHARED, 64, 128, "%64", "%65", "%66", ", %67, %68")
  WGMMA_FORMATS(WGMMA_SHARED, 96, 192, "%96", "%97", "%98", ", %99, %100")
  WGMMA_FORMATS(WGMMA_SHARED, 128, 256, "%128", "%129", "%130", ", %131, %132")
}

template <RowFormat format, bool bDown, int R>
__device__ void wgmma(float (&sums)[R], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  static_assert(isWgmma<format, false, bDown, R>);
  WGMMA_FORMATS(WGMMA_REGISTERS, 16, 32, "%16, %17, %18, %19", "%20", "%21", ", %22")
  WGMMA_FORMATS(WGMMA_REGISTERS, 32, 64, "%32, %33, %34, %35", "%36", "%37", ", %38")
  WGMMA_FORMATS(WGMMA_REGISTERS, 48, 96, "%48, %49, %50, %51", "%52", "%53", ", %54")
  WGMMA_FORMATS(WGMMA_REGISTERS, 64, 128, "%64, %65, %66, %67", "%68", "%69", ", %70")
  WGMMA_FORMATS(WGMMA_REGISTERS, 96, 192, "%96, %97, %98, %99", "%100", "%101", ", %102")
  WGMMA_FORMATS(WGMMA_REGISTERS, 128, 256, "%128, %129, %130, %131", "%132", "%133", ", %134")
}

/// For the compiler: the registers may have changed here.
template <int R>
__device__ void holdRegisters(float (&sums)[R]) {
  SIMT_UNROLL
  for (int i = 0; i < R; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

template <int... R>
__device__ void fenceWgmma(float (&... sums)[R]) {
  (holdRegisters(sums), ...);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ inline void commitWgmma() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int left, int... R>
__device__ void waitForWgmma(float (&... sums)[R]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
  (holdRegisters(sums), ...);
}

#endif

#else

__device__ uint64_t acrossTile(const void* tile) {
  return tileDescriptor(static_cast<uint32_t>(simt::sharedOffset(tile)), 16, 1024);
}
__device__ uint64_t downTile(const void* tile, int rows) {
  return tileDescriptor(static_cast<uint32_t>(simt::sharedOffset(tile)), static_cast<uint32_t>(rows) * 128, 1024);
}

template <RowFormat format, bool aDown, bool bDown, int R>
void wgmma(float (&sums)[R], uint64_t a, uint64_t b, bool accumulate, simt::At at) {
  static_assert(isWgmma<format, aDown, bDown, R>);
  simt::sm90::product({sums, R, nullptr, a, b, accumulate, aDown, bDown, format, at});
}

template <RowFormat format, bool bDown, int R>
void wgmma(float (&sums)[R], const uint32_t (&a)[4], uint64_t b, bool accumulate, simt::At at) {
  static_assert(isWgmma<format, false, bDown, R>);
  simt::sm90::product({sums, R, a, 0, b, accumulate, false, bDown, format, at});
}

template <int... R>
void fenceWgmma([[maybe_unused]] float (&... sums)[R]) {
  simt::sm90::fenceProducts();
}

__device__ void commitWgmma() { simt::sm90::commitProducts(); }

template <int left, int... R>
void waitForWgmma(float (&... sums)[R]) {
  simt::sm90::waitForProducts(left);
  (simt::sm90::checkLanded(sums), ...);
}

#endif

}  // namespace topknot::cuda
