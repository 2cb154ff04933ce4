// Making tensors and converting their element type.
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "backend/memory.h"
#include "backend/registry.h"
#include "core/host_memory.h"
#include "ops/ops.h"
#include "ops/queued.h"

namespace topknot {
namespace {

template <typename T>
constexpr bool isHalf = std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>;

/// Value-preserving where the target can hold the value; a float that an integer type cannot hold is refused.
template <typename To, typename From>
To convert(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (isHalf<From>) {
    return convert<To>(toFloat(x));
  } else if constexpr (std::is_same_v<To, Float16>) {
    return toFloat16(static_cast<float>(x));
  } else if constexpr (std::is_same_v<To, BFloat16>) {
    return toBFloat16(static_cast<float>(x));
  } else if constexpr (std::is_same_v<To, bool>) {
    return x != From{};
  } else if constexpr (std::is_integral_v<To> && std::is_floating_point_v<From>) {
    const double low = static_cast<double>(std::numeric_limits<To>::min());
    const double whole = std::trunc(static_cast<double>(x));
    require(whole >= low && whole < -low + (low == 0 ? 256.0 : 0.0), ErrorCode::range, "tensor: expected values that ",
            std::string(text(dtypeOf<To>)), " can hold but received ", static_cast<double>(x));
    return static_cast<To>(whole);
  } else if constexpr (std::is_integral_v<To> && sizeof(To) < 8) {
    require(static_cast<int64_t>(x) >= static_cast<int64_t>(std::numeric_limits<To>::min()) &&
                static_cast<int64_t>(x) <= static_cast<int64_t>(std::numeric_limits<To>::max()),
            ErrorCode::range, "tensor: expected values that ", std::string(text(dtypeOf<To>)),
            " can hold but received ", static_cast<int64_t>(x));
    return static_cast<To>(x);
  } else {
    return static_cast<To>(x);
  }
}

void convertInto(const Tensor& from, Tensor& to, const Exec& exec) {
  dispatch(from.dtype, [&]<typename From>(From) {
    dispatch(to.dtype, [&]<typename To>(To) {
      const From* in = from.data<From>();
      To* out = to.data<To>();
      parallelFor(from.count(), 1 << 16, exec, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) out[i] = convert<To>(in[i]);
      });
    });
  });
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
    const T filler = convert<T>(value);
    if (onHost) std::fill_n(out.data<T>(), out.count(), filler);
    else fill(out, &filler);
  });
  return out;
}

Tensor cast(Stream& stream, Tensor tensor, DType dtype) {
  Tensor out = Tensor::host(dtype, tensor.shape);
  out.pending = stream.enqueue([tensor, result = out](const Exec& exec) mutable {
    if (tensor.pending) tensor.pending->wait();
    convertInto(tensor, result, exec);
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
