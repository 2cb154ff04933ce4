// Starting values of parameters: each is a function of the seed, its row and its place in the row.
#include <cmath>

#include "backend/memory.h"
#include "backend/registry.h"
#include "core/random.h"
#include "ops/ops.h"

namespace topknot {
namespace {

/// Four values with mean 0 and standard deviation 1.
std::array<double, 4> drawFour(Distribution distribution, const std::array<uint32_t, 4>& words) {
  std::array<double, 4> out;
  for (size_t i = 0; i < 4; i += 2) {
    const double u = (words[i] + 0.5) * 0x1p-32, v = (words[i + 1] + 0.5) * 0x1p-32;  // inside (0, 1)
    if (distribution == Distribution::uniform) {
      const double width = 2 * std::sqrt(3.0);
      out[i] = (u - 0.5) * width, out[i + 1] = (v - 0.5) * width;
    } else {  // Box and Muller 1958
      const double radius = std::sqrt(-2 * std::log(u)), angle = 6.283185307179586 * v;
      out[i] = radius * std::cos(angle), out[i + 1] = radius * std::sin(angle);
    }
  }
  return out;
}

/// Rows [first, first + the rows of `out`), on the host.
void drawRows(Job& job, Distribution distribution, double deviation, int64_t seed, int64_t first, const Tensor& out) {
  const int64_t rows = out.shape[0], cols = rows > 0 ? out.count() / rows : 0;
  dispatch(out.dtype, [&]<typename T>(T) {
    if constexpr (std::is_same_v<T, float> || std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>) {
      const auto store = [](double x, T& to) {
        if constexpr (std::is_same_v<T, float>) to = static_cast<float>(x);
        else if constexpr (std::is_same_v<T, Float16>) to = toFloat16(static_cast<float>(x));
        else to = toBFloat16(static_cast<float>(x));
      };
      const int64_t grain = std::max<int64_t>(1, (1 << 12) / std::max<int64_t>(cols, 1));
      parallelFor(rows, grain, job.exec(), [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
          T* values = out.data<T>() + row * cols;
          for (int64_t c = 0; c < cols; c += 4) {
            const auto words =
                philox(static_cast<uint64_t>(seed), static_cast<uint64_t>(first + row), static_cast<uint64_t>(c / 4));
            const auto four = drawFour(distribution, words);
            for (int64_t i = c; i < std::min(c + 4, cols); ++i) {
              store(four[static_cast<size_t>(i - c)] * deviation, values[i]);
            }
          }
        }
      });
    }
  });
  job.checkCancelled();
}

}  // namespace

namespace ops {

Tensor randomValues(Job& job, DType dtype, std::vector<int64_t> dims, Distribution distribution, double deviation,
                    int64_t seed, std::optional<std::string> device) {
  require(dtype == DType::float32 || dtype == DType::float16 || dtype == DType::bfloat16, ErrorCode::dtype,
          "dtype: expected float32, float16 or bfloat16 but received ", std::string(text(dtype)));
  require(std::isfinite(deviation) && deviation >= 0, ErrorCode::range,
          "std: expected a finite number of 0 or more but received ", deviation);
  const Device where = device ? deviceNamed(*device) : Device{};
  const Shape shape(dims);
  require(shape.rank() >= 1, ErrorCode::shape, "shape: expected at least one dimension");
  const Tensor out = empty(where, dtype, shape);
  if (where.kind == Device::cpu) {
    drawRows(job, distribution, deviation, seed, 0, out);
    return out;
  }
  // A GPU's logarithm has other last bits. So the numbers are the host's, which has a block of them at a time.
  constexpr int64_t blockNumbers = 4 << 20;
  const int64_t rows = shape[0], width = rows > 0 ? shape.count() / rows : 0;
  const int64_t step = std::max<int64_t>(1, blockNumbers / std::max<int64_t>(width, 1));
  for (int64_t first = 0; first < rows; first += step) {
    dims[0] = std::min(step, rows - first);
    const Tensor block = Tensor::host(dtype, Shape(dims));
    drawRows(job, distribution, deviation, seed, first, block);
    const size_t skipped = static_cast<size_t>(first * width) * sizeOf(dtype);
    check(backendOf(where).upload({.device = where.index}, out.data<char>() + skipped, block.buffer->data(),
                                  block.bytes()));
  }
  return out;
}

}  // namespace ops
}  // namespace topknot
