// Rows in 8 or 4 bits. A row's least value becomes the lowest number and its largest the highest, so the error of a
// value is at most half of (largest - least) / 255, or / 15.
#include <algorithm>
#include <cmath>

#include "backend/embedding_args.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/embedding_quantize.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

void quantizeRow(const EmbeddingQuantizeArgs& a, int64_t r) {
  const float* row = a.rows + r * a.cols;
  float least = row[0], largest = row[0];
  bool finite = true;
  for (int64_t c = 0; c < a.cols; ++c) {
    finite = finite && std::fabs(row[c]) <= 3.4028235e38f;
    least = std::min(least, row[c]);
    largest = std::max(largest, row[c]);
  }
  const bool bytes = a.format == RowFormat::int8;
  const float levels = bytes ? 255.0f : 15.0f;
  const float scale = largest / levels - least / levels;  // the difference alone may overflow
  require(finite, ErrorCode::value, "table: expected finite numbers but row ", r, " has others");
  a.scale[r] = scale;
  a.bias[r] = bytes ? least + 128.0f * scale : least;
  const double inverse = scale > 0 ? 1.0 / static_cast<double>(scale) : 0.0;
  const auto level = [&](int64_t c) {
    const double steps = (static_cast<double>(row[c]) - least) * inverse;
    return static_cast<int>(std::min(steps, static_cast<double>(levels)) + 0.5);
  };
  if (bytes) {
    int8_t* out = static_cast<int8_t*>(a.out) + r * a.cols;
    for (int64_t c = 0; c < a.cols; ++c) out[c] = static_cast<int8_t>(level(c) - 128);
    return;
  }
  uint8_t* out = static_cast<uint8_t*>(a.out) + r * a.cols / 2;
  for (int64_t c = 0; c < a.cols; c += 2) out[c / 2] = static_cast<uint8_t>(level(c) | level(c + 1) << 4);
}

}  // namespace

Status embeddingQuantize(const Exec& exec, const EmbeddingQuantizeArgs& a) {
  return guard([&] {
    parallelFor(a.count, std::max<int64_t>(1, 16384 / a.cols), exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) quantizeRow(a, r);
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
