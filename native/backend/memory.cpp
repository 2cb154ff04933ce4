#include "backend/memory.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/registry.h"

namespace topknot {
namespace {

Exec execOf(Device device) { return {.device = device.index}; }

std::shared_ptr<Buffer> allocate(Device device, size_t bytes) {
  const Backend& backend = backendOf(device);
  void* data = nullptr;
  check(backend.allocate(execOf(device), bytes, &data));
  // What a lost device says to a release helps nobody.
  std::shared_ptr<void> owner(data, [&backend, device](void* p) { backend.release(execOf(device), p); });
  return std::make_shared<Buffer>(data, bytes, device, std::move(owner));
}

}  // namespace

Tensor empty(Device device, DType dtype, Shape shape) {
  if (device.kind == Device::cpu) return Tensor::host(dtype, shape);
  Tensor t{.dtype = dtype, .shape = shape};
  t.buffer = allocate(device, static_cast<size_t>(shape.count()) * sizeOf(dtype));
  return t;
}

Tensor copyTo(const Tensor& t, Device device) {
  if (t.device() == device) return t;
  Tensor out = empty(device, t.dtype, t.shape);
  copyInto(t, out);
  return out;
}

void copyInto(const Tensor& from, const Tensor& to) {
  const Device source = from.device(), target = to.device();
  void* const out = to.buffer->data();
  const void* const in = from.buffer->data();
  if (source == target) {
    copyBytes(source, out, in, from.bytes());
  } else if (source.kind == Device::cpu) {
    check(backendOf(target).upload(execOf(target), out, in, from.bytes()));
  } else if (target.kind == Device::cpu) {
    check(backendOf(source).download(execOf(source), out, in, from.bytes()));
  } else {
    copyInto(copyTo(from, Device{}), to);
  }
}

void fill(const Tensor& t, const void* element) {
  // A little of it comes from the host; copies within the device double what is there.
  constexpr size_t most = 64 << 10;
  const size_t size = sizeOf(t.dtype), total = t.bytes();
  std::vector<char> start(std::min(total, most));
  for (size_t i = 0; i < start.size(); i += size) std::memcpy(start.data() + i, element, size);
  char* const out = t.data<char>();
  check(backendOf(t.device()).upload(execOf(t.device()), out, start.data(), start.size()));
  for (size_t done = start.size(), next = 0; done < total; done += next) {
    next = std::min(done, total - done);
    copyBytes(t.device(), out + done, out, next);
  }
}

void fetchBytes(Device device, void* to, const void* from, size_t bytes) {
  if (device.kind == Device::cpu) std::memcpy(to, from, bytes);
  else check(backendOf(device).download(execOf(device), to, from, bytes));
}

void copyBytes(Device device, void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  if (device.kind == Device::cpu) std::memcpy(to, from, bytes);
  else check(backendOf(device).copy(execOf(device), to, from, bytes));
}

}  // namespace topknot
