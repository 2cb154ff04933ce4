// The only place with inline PTX. Every wrapper has a body for the device and one for the emulator, which moves the
// same elements between the same registers of the same lanes, as the PTX ISA's tables of fragments say
// (docs.nvidia.com/cuda/parallel-thread-execution, "Warp-level matrix instructions"). simt_test checks the emulated
// bodies against those tables; test/ptx_check does the same with the device bodies on a GPU.
#pragma once
#include "cuda/simt.h"

#if !defined(__CUDACC__)
#include <cmath>
#include <cstring>

#include "core/dtype.h"
#endif

namespace topknot::cuda {

/// d += a b for one 16x8 tile of d, by a warp. Lane l, with g = l / 4 and t = l % 4, holds
///   a: rows g, g + 8, g, g + 8 of columns (2t, 2t + 1), (2t, 2t + 1), (2t + 8, 2t + 9), (2t + 8, 2t + 9), two bfloat16
///      in a register, the lower column in the lower half
///   b: rows (2t, 2t + 1) and (2t + 8, 2t + 9) of column g
///   d: rows g, g, g + 8, g + 8 of columns 2t, 2t + 1, 2t, 2t + 1
__device__ void mmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] SIMT_AT);

/// The same with float16 numbers.
__device__ void mmaF16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] SIMT_AT);

/// The same with tf32 numbers, that is float32 of which 10 bits of fraction count: d (16x8) += a (16x8) b (8x8).
///   a: rows g, g + 8, g, g + 8 of columns t, t, t + 4, t + 4;  b: rows t and t + 4 of column g;  d: as above
__device__ void mmaTf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] SIMT_AT);

/// Rounds to tf32, nearest with ties away from zero.
__device__ uint32_t toTf32(float x);

/// Two numbers rounded to bfloat16, nearest with ties to even, in one register.
__device__ uint32_t packBf16(float low, float high);

/// 2^x within 2 units in the last place; zero where that is below the smallest normal number.
__device__ float exp2Fast(float x);

/// Loads four 8x8 matrices of 16-bit numbers from shared memory. Lane l gives the address of row l % 8 of matrix l / 8;
/// r[i] = columns 2t, 2t + 1 of row g of matrix i; of its transpose for loadMatricesTransposed. 16-byte aligned rows.
__device__ void loadMatrices(uint32_t (&r)[4], const void* row SIMT_AT);
__device__ void loadMatricesTransposed(uint32_t (&r)[4], const void* row SIMT_AT);

/// Begins to copy 16 bytes from global to shared memory, both aligned; zeros instead where `valid` is false.
__device__ void copyAsync(void* shared, const void* global, bool valid SIMT_AT);
__device__ void commitCopies();
/// Waits until at most `left` of this thread's committed groups are unfinished. What other threads copied is there only
/// after a barrier behind their waits.
template <int left>
__device__ void waitForCopies();

#if defined(__CUDACC__)

__device__ inline void mmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void mmaF16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void mmaTf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline uint32_t toTf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}

__device__ inline uint32_t packBf16(float low, float high) {
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}

__device__ inline float exp2Fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline uint32_t sharedAddress(const void* data) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(data));
}

__device__ inline void loadMatrices(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(sharedAddress(row))
               : "memory");
}

__device__ inline void loadMatricesTransposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(sharedAddress(row))
               : "memory");
}

__device__ inline void copyAsync(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(sharedAddress(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}

__device__ inline void commitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int left>
__device__ void waitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

#else

namespace emulated {

struct Mma {
  float* d;
  const uint32_t *a, *b;
};

/// d += a b by the layouts above; `read(register, half)` makes a float of a register, halves are elements in it.
template <int halves, typename Read>
void multiply(void* const* lanes, Read&& read) {
  constexpr int K = 8 * halves;
  float a[16][K], b[K][8];
  for (int l = 0; l < 32; ++l) {
    const Mma& m = *static_cast<const Mma*>(lanes[l]);
    const int g = l / 4, t = l % 4;
    for (int i = 0; i < 4; ++i) {
      for (int h = 0; h < halves; ++h) a[g + i % 2 * 8][i / 2 * (K / 2) + t * halves + h] = read(m.a[i], h);
    }
    for (int i = 0; i < 2; ++i) {
      for (int h = 0; h < halves; ++h) b[i * (K / 2) + t * halves + h][g] = read(m.b[i], h);
    }
  }
  for (int l = 0; l < 32; ++l) {
    const Mma& m = *static_cast<const Mma*>(lanes[l]);
    for (int i = 0; i < 4; ++i) {
      const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
      for (int k = 0; k < K; ++k) m.d[i] = fmaf(a[row][k], b[k][column], m.d[i]);
    }
  }
}

struct Load {
  uint32_t* r;
  const void* row;
};

template <bool transposed>
void loadMatrices(void* const* lanes) {
  for (int l = 0; l < 32; ++l) {
    const int g = l / 4, t = l % 4;
    for (int i = 0; i < 4; ++i) {
      uint16_t pair[2];
      for (int h = 0; h < 2; ++h) {
        const int row = transposed ? 2 * t + h : g, column = transposed ? g : 2 * t + h;
        const void* from = static_cast<const Load*>(lanes[8 * i + row])->row;
        std::memcpy(&pair[h], static_cast<const uint16_t*>(from) + column, sizeof pair[h]);
      }
      static_cast<const Load*>(lanes[l])->r[i] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
    }
  }
}

inline void checkAligned(const void* data, const char* what) {
  if (reinterpret_cast<uintptr_t>(data) % 16 != 0)
    throw simt::Fault(std::string(what) + ": expected 16-byte alignment");
}

}  // namespace emulated

__device__ void mmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], simt::At at) {
  emulated::Mma mine{d, a, b};
  simt::together(
      "mmaBf16", &mine,
      [](void* const* lanes) {
        emulated::multiply<2>(lanes,
                              [](uint32_t r, int h) { return toFloat(BFloat16{static_cast<uint16_t>(r >> 16 * h)}); });
      },
      at);
}

__device__ void mmaF16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], simt::At at) {
  emulated::Mma mine{d, a, b};
  simt::together(
      "mmaF16", &mine,
      [](void* const* lanes) {
        emulated::multiply<2>(lanes,
                              [](uint32_t r, int h) { return toFloat(Float16{static_cast<uint16_t>(r >> 16 * h)}); });
      },
      at);
}

__device__ void mmaTf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], simt::At at) {
  emulated::Mma mine{d, a, b};
  simt::together(
      "mmaTf32", &mine,
      [](void* const* lanes) {
        emulated::multiply<1>(lanes, [](uint32_t r, int) { return __uint_as_float(r & 0xffffe000u); });
      },
      at);
}

__device__ uint32_t toTf32(float x) {
  const uint32_t bits = __float_as_uint(x);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
}

__device__ uint32_t packBf16(float low, float high) {
  return toBFloat16(low).bits | static_cast<uint32_t>(toBFloat16(high).bits) << 16;
}

__device__ float exp2Fast(float x) {
  const float y = exp2f(x);
  return y < 0x1p-126f ? 0.0f : y;
}

__device__ void loadMatrices(uint32_t (&r)[4], const void* row, simt::At at) {
  emulated::checkAligned(row, "loadMatrices");
  emulated::Load mine{r, row};
  simt::together("loadMatrices", &mine, emulated::loadMatrices<false>, at);
}

__device__ void loadMatricesTransposed(uint32_t (&r)[4], const void* row, simt::At at) {
  emulated::checkAligned(row, "loadMatricesTransposed");
  emulated::Load mine{r, row};
  simt::together("loadMatricesTransposed", &mine, emulated::loadMatrices<true>, at);
}

__device__ void copyAsync(void* shared, const void* global, bool valid, simt::At at) {
  emulated::checkAligned(shared, "copyAsync");
  emulated::checkAligned(global, "copyAsync");
  simt::copyLater(shared, global, 16, valid ? 16 : 0, at);
}

__device__ void commitCopies() { simt::commitCopies(); }

template <int left>
void waitForCopies() {
  simt::waitForCopies(left);
}

#endif

}  // namespace topknot::cuda
