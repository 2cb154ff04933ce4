// Tensors on devices: their memory, and the ways between. The work of a device is issued in order on one stream, and
// its memory is taken and given back in that order, so none of this waits, but for copies to the host.
#pragma once
#include "core/tensor.h"

namespace topknot {

/// Uninitialised. Throws ERR_MEMORY, which says what was asked for and what is free.
Tensor empty(Device device, DType dtype, Shape shape);
template <typename T>
Tensor empty(Device device, Shape shape) {
  return empty(device, dtypeOf<T>, shape);
}

/// t itself where it is on `device`, else a copy: puts what a kernel is to read beside it for one call, and brings
/// results and what must be checked to the host. The operation that computes t must have been issued: waitFor() first.
Tensor copyTo(const Tensor& t, Device device);

/// The elements of `from` into `to`, which has as many bytes; on any two devices.
void copyInto(const Tensor& from, const Tensor& to);

/// Every element of t, which is on a GPU, becomes the one at `element`.
void fill(const Tensor& t, const void* element);

/// From a device to the host.
void fetchBytes(Device device, void* to, const void* from, size_t bytes);
/// Element i of t, whose elements are T.
template <typename T>
T numberAt(const Tensor& t, int64_t i) {
  T number{};
  fetchBytes(t.device(), &number, t.data<T>() + i, sizeof number);
  return number;
}

/// Within one device.
void copyBytes(Device device, void* to, const void* from, size_t bytes);

}  // namespace topknot
