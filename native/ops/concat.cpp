// Joins one-dimensional tensors: how columns that arrived in pieces become one.
#include <cstring>

#include "ops/ops.h"

namespace topknot::ops {

Tensor concat(Job& job, std::vector<Tensor> parts) {
  require(!parts.empty(), ErrorCode::shape, "parts: expected at least one tensor");
  int64_t count = 0;
  std::vector<int64_t> offsets;
  for (const Tensor& part : parts) {
    expect(part, "parts", parts[0].dtype, 1);
    offsets.push_back(count);
    count += part.count();
  }
  Tensor out = Tensor::host(parts[0].dtype, {count});
  const int64_t bytes = static_cast<int64_t>(sizeOf(out.dtype));
  parallelFor(static_cast<int64_t>(parts.size()), 1, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      if (parts[i].count()) {
        std::memcpy(out.data<char>() + offsets[i] * bytes, parts[i].buffer->data(), parts[i].bytes());
      }
    }
  });
  job.checkCancelled();
  return out;
}

}  // namespace topknot::ops
