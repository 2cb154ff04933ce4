#include "core/tensor.h"

#include <atomic>
#include <cstring>

#include "core/host_memory.h"
#include "core/stream.h"

namespace topknot {
namespace {

std::atomic<int64_t> bytesInUse[2], buffersInUse[2];

}  // namespace

std::string text(Device device) { return device.kind == Device::cpu ? "cpu" : concat("cuda:", device.index); }

Shape::Shape(std::span<const int64_t> dims) {
  require(dims.size() <= maxRank, ErrorCode::shape, "shape: expected at most ", maxRank, " dimensions but received ",
          dims.size());
  for (int64_t d : dims) {
    require(d >= 0, ErrorCode::shape, "shape: expected dimensions of 0 or more but received ", d);
    dims_[rank_++] = d;
  }
  // A dimension of 0 does not excuse the others: their product must not overflow on the way.
  double count = 1;
  for (int64_t d : dims) count *= static_cast<double>(d > 0 ? d : 1);
  require(count <= 9007199254740992.0, ErrorCode::shape, "shape: ", text(*this), " has more than 2^53 elements");
}

int64_t Shape::count() const {
  int64_t n = 1;
  for (int64_t d : dims()) n *= d;
  return n;
}

std::string text(const Shape& shape) {
  std::string out = "[";
  for (int i = 0; i < shape.rank(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

std::shared_ptr<Buffer> Buffer::host(size_t bytes, bool zero) {
  std::shared_ptr<void> memory = hostMemory(bytes);
  void* data = memory.get();
  if (zero) std::memset(data, 0, bytes);
  return std::make_shared<Buffer>(data, bytes, Device{}, std::move(memory));
}

Buffer::Buffer(void* data, size_t bytes, Device device, std::shared_ptr<void> owner, bool mapped)
    : data_(data), bytes_(bytes), device_(device), owner_(std::move(owner)), mapped_(mapped) {
  bytesInUse[device_.kind] += static_cast<int64_t>(ownBytes());
  ++buffersInUse[device_.kind];
}

Buffer::~Buffer() {
  bytesInUse[device_.kind] -= static_cast<int64_t>(ownBytes());
  --buffersInUse[device_.kind];
}

MemoryUse memoryUse() { return {bytesInUse[0], buffersInUse[0], bytesInUse[1], buffersInUse[1]}; }

Tensor Tensor::host(DType dtype, Shape shape, bool zero) {
  Tensor t;
  t.dtype = dtype;
  t.shape = shape;
  t.buffer = Buffer::host(static_cast<size_t>(shape.count()) * sizeOf(dtype), zero);
  return t;
}

void expect(const Tensor& t, const char* name, DType dtype, int rank) {
  if (t.pending) t.pending->wait();
  // Not by require(), which would make the texts first: this is asked of every tensor of every call.
  if (t.dtype != dtype) {
    fail(ErrorCode::dtype, name, ": expected ", std::string(text(dtype)), " but received ", std::string(text(t.dtype)));
  }
  if (rank >= 0 && t.rank() != rank) {
    fail(ErrorCode::shape, name, ": expected ", rank, " dimensions but received shape ", text(t.shape));
  }
}

}  // namespace topknot
