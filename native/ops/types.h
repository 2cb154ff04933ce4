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

}  // namespace topknot
