// What the copy engine of compute capability 9.0 is told of a tensor (TMA). The driver encodes it; its function is
// found at run time, so nothing links libcuda. The emulator keeps the description as it is.
#pragma once
#include <cstdint>

#include "cuda/simt.h"

#if defined(__CUDACC__)
#include <cuda.h>
#endif

namespace topknot::cuda {

/// A tensor of 2 to 4 dimensions, the fastest first, whose rows lie apart by strides, and the box of it that one copy
/// brings: box[0] numbers are 128 bytes, any other side has at most 256. Strides are in elements, strides[0] is 1, the
/// others are multiples of 16 bytes; data is aligned to 16 bytes.
struct TensorTiles {
  static constexpr int maxRank = 4;
  const void* data;
  int elementBytes;  // 2 or 4
  int rank;
  int64_t sizes[maxRank], strides[maxRank];
  int box[maxRank];

  int64_t boxBytes() const {
    int64_t bytes = elementBytes;
    for (int i = 0; i < rank; ++i) bytes *= box[i];
    return bytes;
  }
};

/// Rows of a matrix, as tiles of `boxRows` rows by 128 bytes.
inline TensorTiles matrixTiles(const void* data, int elementBytes, int64_t rows, int64_t columns, int64_t stride,
                               int boxRows) {
  return {data, elementBytes, 2, {columns, rows}, {1, stride}, {128 / elementBytes, boxRows}};
}

/// What stands against making a map of these tiles; null if nothing does.
inline const char* mapFault(const TensorTiles& t) {
  if (t.rank < 2 || t.rank > TensorTiles::maxRank) return "a rank that is not 2, 3 or 4";
  if (reinterpret_cast<uintptr_t>(t.data) % 16 != 0) return "data that is not aligned to 16 bytes";
  if (t.box[0] * t.elementBytes != 128) return "a box whose rows are not of 128 bytes";
  for (int i = 0; i < t.rank; ++i) {
    if (t.sizes[i] < 1 || t.sizes[i] > int64_t{1} << 32) return "a size that is not from 1 to 2^32";
    if (t.box[i] < 1 || t.box[i] > 256) return "a side of the box that is not from 1 to 256";
    const int64_t bytes = t.strides[i] * t.elementBytes;
    if (i > 0 && (bytes < 16 || bytes % 16 != 0 || bytes >= int64_t{1} << 40))
      return "a stride that is not whole pieces of 16 bytes";
  }
  return nullptr;
}

#if defined(__CUDACC__)

struct TensorMap {
  CUtensorMap map;
};

/// The driver's encoder; null, and a failed queue, where the driver has none.
inline decltype(&cuTensorMapEncodeTiled) tensorMapEncoder(Queue& queue) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult answer;
  queue.note(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &answer),
             "cudaGetDriverEntryPointByVersion");
  if (queue.status().ok() && (answer != cudaDriverEntryPointSuccess || !found)) {
    queue.fail(failure(ErrorCode::device, "the NVIDIA driver has no cuTensorMapEncodeTiled: update it"));
  }
  return queue.status().ok() ? reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found) : nullptr;
}

inline TensorMap tensorMap(Queue& queue, const TensorTiles& t) {
  TensorMap out{};
  const auto encode = tensorMapEncoder(queue);
  if (!encode) return out;
  cuuint64_t sizes[TensorTiles::maxRank], strides[TensorTiles::maxRank];
  cuuint32_t box[TensorTiles::maxRank], ones[TensorTiles::maxRank] = {1, 1, 1, 1};
  for (int i = 0; i < t.rank; ++i) {
    sizes[i] = static_cast<cuuint64_t>(t.sizes[i]);
    box[i] = static_cast<cuuint32_t>(t.box[i]);
    if (i > 0) strides[i - 1] = static_cast<cuuint64_t>(t.strides[i] * t.elementBytes);
  }
  const CUresult answer =
      encode(&out.map, t.elementBytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_UINT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
             static_cast<cuuint32_t>(t.rank), const_cast<void*>(t.data), sizes, strides, box, ones,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (answer != CUDA_SUCCESS) {
    const char* fault = mapFault(t);
    queue.fail(failure(ErrorCode::internal, "cuTensorMapEncodeTiled answered %d: %s", static_cast<int>(answer),
                       fault ? fault : "no reason known"));
  }
  return out;
}

#else

struct alignas(64) TensorMap {
  TensorTiles tiles;
};

inline TensorMap tensorMap(Queue& queue, const TensorTiles& t) {
  if (const char* fault = mapFault(t)) queue.fail(failure(ErrorCode::internal, "tensorMap: %s", fault));
  return {t};
}

#endif

}  // namespace topknot::cuda
