// Rows of a tensor as a tensor, and tensors one after the other as one: along the first dimension, queued.
#include <cstring>

#include "backend/memory.h"
#include "ops/ops.h"
#include "ops/queued.h"

namespace topknot {
namespace {

Shape withRows(const Tensor& t, int64_t rows) {
  std::vector<int64_t> dims(t.shape.dims().begin(), t.shape.dims().end());
  dims[0] = rows;
  return Shape(dims);
}

int64_t rowBytes(const Tensor& t) { return t.rows() > 0 ? static_cast<int64_t>(t.bytes()) / t.rows() : 0; }

/// Bytes of one device.
void copyPart(const Exec& exec, Device device, const char* from, int64_t bytes, char* to) {
  if (device.kind != Device::cpu) return copyBytes(device, to, from, static_cast<size_t>(bytes));
  parallelFor(bytes, 1 << 20, exec, [&](int64_t begin, int64_t end, int) {
    std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
  });
}

}  // namespace

namespace ops {

Tensor sliceRows(Stream& stream, Tensor tensor, int64_t begin, int64_t end) {
  require(tensor.rank() >= 1, ErrorCode::shape, "tensor: expected at least one dimension");
  require(begin >= 0 && begin <= end && end <= tensor.rows(), ErrorCode::range, "end: expected rows within 0 to ",
          tensor.rows(), " but received ", begin, " to ", end);
  Tensor out = empty(tensor.device(), tensor.dtype, withRows(tensor, end - begin));
  out.pending = stream.enqueue([=](const Exec& exec) {
    waitFor(tensor);
    copyPart(exec, out.device(), tensor.data<char>() + begin * rowBytes(tensor), static_cast<int64_t>(out.bytes()),
             out.data<char>());
  });
  return out;
}

Tensor joinRows(Stream& stream, std::vector<Tensor> parts) {
  require(!parts.empty(), ErrorCode::shape, "parts: expected at least one tensor");
  int64_t rows = 0;
  for (const Tensor& part : parts) {
    require(part.rank() >= 1 && withRows(part, 0) == withRows(parts[0], 0), ErrorCode::shape,
            "parts: expected equal shapes but for the number of rows but received ", text(parts[0].shape), " and ",
            text(part.shape));
    require(part.dtype == parts[0].dtype, ErrorCode::dtype, "parts: expected one element type but received ",
            std::string(text(parts[0].dtype)), " and ", std::string(text(part.dtype)));
    expectSameDevice(part, "parts", parts[0], "the first of them");
    rows += part.rows();
  }
  Tensor out = empty(parts[0].device(), parts[0].dtype, withRows(parts[0], rows));
  out.pending = stream.enqueue([=](const Exec& exec) {
    char* to = out.data<char>();
    for (const Tensor& part : parts) {
      waitFor(part);
      copyPart(exec, out.device(), part.data<char>(), static_cast<int64_t>(part.bytes()), to);
      to += part.bytes();
    }
  });
  return out;
}

}  // namespace ops
}  // namespace topknot
