// What operations on the stream have in common: checks that can be made at the call, and waiting for their tensors.
#pragma once
#include <initializer_list>
#include <string>

#include "backend/registry.h"
#include "core/csr.h"
#include "core/stream.h"
#include "core/tensor.h"

namespace topknot {

inline void expectFloat32(const Tensor& t, const char* name) {
  require(t.dtype == DType::float32, ErrorCode::dtype, name, ": expected float32 but received ",
          std::string(text(t.dtype)));
}

/// `what` says whose shape it is: "that of x".
inline void expectShape(const Tensor& t, const char* name, const Shape& shape, const char* what) {
  require(t.shape == shape, ErrorCode::shape, name, ": expected shape ", text(shape), ", ", what, ", but received ",
          text(t.shape));
}

inline void expectSameDevice(const Tensor& t, const char* name, const Tensor& other, const char* otherName) {
  if (t.device() == other.device()) return;
  fail(ErrorCode::device, name, ": expected to be on device '", text(other.device()), "', as ", otherName,
       " is, but is on '", text(t.device()), "'");
}

/// Of arguments that are checked on the host.
inline void expectOnHost(const Tensor& t, const char* name) {
  require(t.device().kind == Device::cpu, ErrorCode::device, name, ": expected to be on device 'cpu' but is on '",
          text(t.device()), "'");
}

inline void expectOnHost(const Csr& m, const std::string& name) {
  expectOnHost(m.indptr, (name + ".indptr").c_str());
  expectOnHost(m.indices, (name + ".indices").c_str());
  expectOnHost(m.values, (name + ".values").c_str());
}

/// Rethrows the error of the operation that was to compute t.
inline void waitFor(const Tensor& t) {
  if (t.pending) t.pending->wait();
}

inline void waitFor(std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* t : tensors) waitFor(*t);
}

}  // namespace topknot
