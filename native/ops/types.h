// The plain structs and enums that operations take and return.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/fields.h"
#include "core/tensor.h"

namespace topknot {

struct TensorInfo {
  std::vector<int64_t> shape;
  DType dtype;
  std::string device;
};
TOPKNOT_FIELDS(TensorInfo, shape, dtype, device)

/// What to do with two entries for the same cell.
enum class Duplicates : int32_t { sum, refuse, last, max };
TOPKNOT_ENUM(Duplicates, "sum", "refuse", "last", "max")

/// The JSON of a safetensors file, where its data starts, the file's size, and which state of the file that was.
struct SafetensorsHeader {
  TypedArray json;
  double dataStart, bytes;
  std::string stamp;
};
TOPKNOT_FIELDS(SafetensorsHeader, json, dataStart, bytes, stamp)

/// A tensor within a file; offset in bytes from the file's start.
struct FilePart {
  DType dtype = DType::float32;
  std::vector<int64_t> shape;
  int64_t offset = 0;
};
TOPKNOT_FIELDS(FilePart, dtype, shape, offset)

}  // namespace topknot
