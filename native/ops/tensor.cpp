// Making tensors and converting their element type.
#include <algorithm>
#include <type_traits>

#include "backend/memory.h"
#include "backend/registry.h"
#include "core/convert.h"
#include "core/host_memory.h"
#include "ops/ops.h"
#include "ops/queued.h"

namespace topknot {
namespace {

/// Element i as the numbers that messages show: integers whole, floats as double.
[[noreturn]] void refuse(const Tensor& t, int64_t i, DType wanted) {
  dispatch(t.dtype, [&]<typename T>(T) {
    const T x = numberAt<T>(t, i);
    if constexpr (std::is_integral_v<T>) {
      fail(ErrorCode::range, "tensor: expected values that ", std::string(text(wanted)), " can hold but received ",
           static_cast<int64_t>(x));
    } else {
      fail(ErrorCode::range, "tensor: expected values that ", std::string(text(wanted)), " can hold but received ",
           convert<double>(x));
    }
  });
  fail(ErrorCode::internal, "unknown dtype");
}

/// Throws ERR_RANGE for a number that an integer type cannot hold.
void convertInto(const Tensor& from, const Tensor& to, const Exec& exec) {
  if (from.dtype == to.dtype) return copyInto(from, to);
  const Device device = from.device();
  const Tensor first = empty<int64_t>(device, {1});
  run(device, &Backend::cast, "cast", exec,
      CastArgs{from.buffer->data(), from.dtype, to.buffer->data(), to.dtype, from.count(), first.data<int64_t>()});
  if (!mayOverflow(from.dtype, to.dtype)) return;  // nothing to wait for
  const int64_t at = numberAt<int64_t>(first, 0);
  if (at < from.count()) refuse(from, at, to.dtype);
}

}  // namespace

namespace ops {

TensorInfo tensorInfo(Tensor tensor) {
  const auto dims = tensor.shape.dims();
  return {{dims.begin(), dims.end()}, tensor.dtype, text(tensor.device())};
}

Tensor tensorFrom(Tensor data, DType dtype, std::vector<int64_t> shape) {
  const Shape wanted{std::span<const int64_t>(shape)};
  require(wanted.count() == data.count(), ErrorCode::shape, "shape: ", text(wanted), " has ", wanted.count(),
          " elements but data has ", data.count());
  Tensor out = data;
  if (data.dtype != dtype) {
    expectOnHost(data, "data");
    out = Tensor::host(dtype, wanted);
    convertInto(data, out, Exec{.priority = 1});
  }
  out.shape = wanted;
  return out;
}

Tensor tensorFull(DType dtype, std::vector<int64_t> shape, double value, std::optional<std::string> device) {
  const Device where = device ? deviceNamed(*device) : Device{};
  const Shape wanted{std::span<const int64_t>(shape)};
  const bool onHost = where.kind == Device::cpu, filled = onHost && value == 0;
  const Tensor out = onHost ? Tensor::host(dtype, wanted, filled) : empty(where, dtype, wanted);
  if (filled) return out;
  dispatch(dtype, [&]<typename T>(T) {
    require(holds<T>(value), ErrorCode::range, "tensor: expected values that ", std::string(text(dtype)),
            " can hold but received ", value);
    const T filler = convert<T>(value);
    if (onHost) std::fill_n(out.data<T>(), out.count(), filler);
    else fill(out, &filler);
  });
  return out;
}

Tensor cast(Stream& stream, Tensor tensor, DType dtype) {
  Tensor out = empty(tensor.device(), dtype, tensor.shape);
  out.pending = stream.enqueue([=](const Exec& exec) {
    waitFor(tensor);
    convertInto(tensor, out, exec);
  });
  return out;
}

Tensor toDevice(Stream& stream, Tensor tensor, std::string device) {
  const Device target = deviceNamed(device);
  if (tensor.device() == target) return tensor;
  Tensor out = empty(target, tensor.dtype, tensor.shape);
  out.pending = stream.enqueue([=](const Exec&) {
    waitFor(tensor);
    copyInto(tensor, out);
  });
  return out;
}

MemoryReport memoryUse() {
  const MemoryUse use = topknot::memoryUse();
  MemoryReport out{use.hostBytes, use.hostBuffers, static_cast<int64_t>(keptHostBytes()),
                   use.cudaBytes, use.cudaBuffers, {}};
  for (const DeviceMemory& m : cudaMemory()) out.cuda.push_back({text(m.device), m.usedBytes, m.keptBytes});
  return out;
}

void trim() {
  trimHostMemory();
  trimCuda();
}

bool fitsDevice(Job&, std::string device, int64_t bytes, std::optional<int64_t> most) {
  return fits(bytes, deviceNamed(device), most);
}

}  // namespace ops
}  // namespace topknot
