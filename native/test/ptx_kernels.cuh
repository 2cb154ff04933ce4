// One small kernel for each wrapper of cuda/ptx.h, and what it must give. Elements are placed into registers by the
// PTX ISA's own formulas (groupID, threadID_in_group, i), written out here apart from ptx.h. Run by cuda_ptx_test under
// the emulator and by ptx_check on a GPU.
#pragma once
#include <vector>

#include "core/dtype.h"
#include "cuda/ptx.h"

namespace topknot::cuda {

/// a: [16, 16], b: [16, 8] in bfloat16 or float16, d: [16, 8] in and out. One warp.
__global__ void ptxMmaHalves(const uint16_t* a, const uint16_t* b, float* d, bool f16) {
  const int groupID = static_cast<int>(threadIdx.x) / 4, threadInGroup = static_cast<int>(threadIdx.x) % 4;
  uint32_t fragmentA[4] = {}, fragmentB[2] = {};
  float fragmentD[4];
  for (int i = 0; i < 8; ++i) {
    const int row = (i < 2 || (i >= 4 && i < 6)) ? groupID : groupID + 8;
    const int column = threadInGroup * 2 + (i & 1) + (i >= 4 ? 8 : 0);
    fragmentA[i / 2] |= static_cast<uint32_t>(a[row * 16 + column]) << (i % 2 * 16);
  }
  for (int i = 0; i < 4; ++i) {
    const int row = threadInGroup * 2 + (i & 1) + (i >= 2 ? 8 : 0);
    fragmentB[i / 2] |= static_cast<uint32_t>(b[row * 8 + groupID]) << (i % 2 * 16);
  }
  for (int i = 0; i < 4; ++i) fragmentD[i] = d[(i < 2 ? groupID : groupID + 8) * 8 + threadInGroup * 2 + (i & 1)];
  if (f16) mmaF16(fragmentD, fragmentA, fragmentB);
  else mmaBf16(fragmentD, fragmentA, fragmentB);
  for (int i = 0; i < 4; ++i) d[(i < 2 ? groupID : groupID + 8) * 8 + threadInGroup * 2 + (i & 1)] = fragmentD[i];
}

/// a: [16, 8], b: [8, 8], d: [16, 8] in and out. One warp.
__global__ void ptxMmaTf32(const float* a, const float* b, float* d) {
  const int groupID = static_cast<int>(threadIdx.x) / 4, threadInGroup = static_cast<int>(threadIdx.x) % 4;
  uint32_t fragmentA[4], fragmentB[2];
  float fragmentD[4];
  for (int i = 0; i < 4; ++i) {
    const int row = i == 0 || i == 2 ? groupID : groupID + 8, column = threadInGroup + (i >= 2 ? 4 : 0);
    fragmentA[i] = toTf32(a[row * 8 + column]);
  }
  for (int i = 0; i < 2; ++i) fragmentB[i] = toTf32(b[(threadInGroup + 4 * i) * 8 + groupID]);
  for (int i = 0; i < 4; ++i) fragmentD[i] = d[(i < 2 ? groupID : groupID + 8) * 8 + threadInGroup * 2 + (i & 1)];
  mmaTf32(fragmentD, fragmentA, fragmentB);
  for (int i = 0; i < 4; ++i) d[(i < 2 ? groupID : groupID + 8) * 8 + threadInGroup * 2 + (i & 1)] = fragmentD[i];
}

/// matrices: [4, 8, 8]; out[l][i]: register i of lane l. One warp.
__global__ void ptxLoadMatrices(const uint16_t* matrices, uint32_t* out, bool transposed) {
  SIMT_SHARED(uint4, tile, 32);  // 16-byte aligned rows of 8 numbers
  uint16_t* rows = reinterpret_cast<uint16_t*>(tile);
  for (int i = static_cast<int>(threadIdx.x); i < 256; i += 32) rows[i] = matrices[i];
  __syncthreads();
  uint32_t r[4];
  if (transposed) loadMatricesTransposed(r, rows + threadIdx.x * 8);
  else loadMatrices(r, rows + threadIdx.x * 8);
  for (int i = 0; i < 4; ++i) out[threadIdx.x * 4 + i] = r[i];
}

/// Two groups of copies through shared memory: out = the first 4 n numbers of `in` doubled, then zeros for 4 n that are
/// not valid. n threads; in: [4 n], out: [8 n].
__global__ void ptxCopies(const float* in, float* out) {
  SIMT_SHARED(float4, tile, 128);
  float* numbers = reinterpret_cast<float*>(tile);
  const int thread = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
  copyAsync(numbers + 4 * thread, in + 4 * thread, true);
  commitCopies();
  copyAsync(numbers + 4 * (n + thread), in + 4 * thread, false);
  commitCopies();
  waitForCopies<1>();
  __syncthreads();
  const int other = (thread + 1) % n;  // what another thread copied
  for (int i = 0; i < 4; ++i) out[4 * other + i] = 2 * numbers[4 * other + i];
  waitForCopies<0>();
  __syncthreads();
  for (int i = 0; i < 4; ++i) out[4 * (n + other) + i] = numbers[4 * (n + other) + i];
}

/// Pairs in[i], in[i + n] as bfloat16, and 2^in[i]. n threads.
__global__ void ptxRoundings(const float* in, uint32_t* pairs, float* powers) {
  const unsigned i = threadIdx.x;
  pairs[i] = packBf16(in[i], in[i + blockDim.x]);
  powers[i] = exp2Fast(in[i]);
}

/// Small whole numbers, which every format holds and every sum is exact in.
inline std::vector<float> ptxNumbers(int count, int step) {
  std::vector<float> out;
  for (int i = 0; i < count; ++i) out.push_back(static_cast<float>((i * step + 3) % 17 - 8));
  return out;
}
inline std::vector<uint16_t> toHalves(const std::vector<float>& x, bool f16) {
  std::vector<uint16_t> out;
  for (const float v : x) out.push_back(f16 ? toFloat16(v).bits : toBFloat16(v).bits);
  return out;
}

/// Runs the kernels through `device`, which has `T* give(std::vector<T>)`, `void take(std::vector<T>&, const T*)` and
/// `launch`. Answers the names of the wrappers whose results are wrong.
template <typename D>
std::vector<const char*> checkPtx(D& device) {
  std::vector<const char*> wrong;
  for (const char* name : {"mmaBf16", "mmaF16", "mmaTf32"}) {
    const bool tf32 = name[3] == 'T', f16 = name[3] == 'F';
    const int K = tf32 ? 8 : 16;
    const std::vector<float> a = ptxNumbers(16 * K, 7), b = ptxNumbers(K * 8, 5);
    std::vector<float> d = ptxNumbers(16 * 8, 3), expected = d;
    for (int r = 0; r < 16; ++r) {
      for (int c = 0; c < 8; ++c) {
        for (int k = 0; k < K; ++k) expected[r * 8 + c] += a[r * K + k] * b[k * 8 + c];
      }
    }
    float* out = device.give(d);
    if (tf32) device.launch(ptxMmaTf32, 32, device.give(a), device.give(b), out);
    else device.launch(ptxMmaHalves, 32, device.give(toHalves(a, f16)), device.give(toHalves(b, f16)), out, f16);
    device.take(d, out);
    if (d != expected) wrong.push_back(name);
  }
  for (const bool transposed : {false, true}) {
    std::vector<uint16_t> matrices;
    for (int i = 0; i < 256; ++i) matrices.push_back(static_cast<uint16_t>(i));
    std::vector<uint32_t> r(128), expected(128);
    for (int l = 0; l < 32; ++l) {
      for (int i = 0; i < 4; ++i) {
        const int row = l / 4, column = l % 4 * 2;
        const auto at = [&](int m, int c) {
          return static_cast<uint32_t>(transposed ? matrices[i * 64 + c * 8 + m] : matrices[i * 64 + m * 8 + c]);
        };
        expected[l * 4 + i] = at(row, column) | at(row, column + 1) << 16;
      }
    }
    uint32_t* out = device.give(r);
    device.launch(ptxLoadMatrices, 32, device.give(matrices), out, transposed);
    device.take(r, out);
    if (r != expected) wrong.push_back(transposed ? "loadMatricesTransposed" : "loadMatrices");
  }
  constexpr int n = 64;
  const std::vector<float> in = ptxNumbers(4 * n, 11);
  std::vector<float> copied(8 * n, -1), expected(8 * n, 0);
  for (int i = 0; i < 4 * n; ++i) expected[i] = 2 * in[i];
  float* out = device.give(copied);
  device.launch(ptxCopies, n, device.give(in), out);
  device.take(copied, out);
  if (copied != expected) wrong.push_back("copyAsync");

  // Ties to even, both ways; what is too small for a normal number; whole powers are exact.
  const std::vector<float> numbers{1.00390625f, 1.01171875f, -2.5f, 10, -126, -127, -INFINITY, 0.5f,
                                   3e38f,       -1e-30f,     7,     0,  1.5f, -3,   INFINITY,  1};
  std::vector<uint32_t> pairs(8);
  std::vector<float> powers(8);
  uint32_t* pairsOut = device.give(pairs);
  float* powersOut = device.give(powers);
  device.launch(ptxRoundings, 8, device.give(numbers), pairsOut, powersOut);
  device.take(pairs, pairsOut);
  device.take(powers, powersOut);
  for (size_t i = 0; i < 8; ++i) {
    const uint32_t low = toBFloat16(numbers[i]).bits, high = toBFloat16(numbers[i + 8]).bits;
    if (pairs[i] != (low | high << 16)) wrong.push_back("packBf16");
    const float power = numbers[i] < -126 ? 0.0f : std::exp2(numbers[i]);
    if (!(std::fabs(powers[i] - power) <= power * 0x1p-22f)) wrong.push_back("exp2Fast");
  }
  return wrong;
}

}  // namespace topknot::cuda
