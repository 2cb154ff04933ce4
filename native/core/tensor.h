// A tensor is a shape over a reference-counted, 64-byte aligned buffer. Copies share the buffer; nothing mutates
// a tensor once the operation that made it has finished, so a running job only has to keep its own copy alive.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/dtype.h"
#include "core/error.h"

namespace topknot {

/// Where a buffer lives.
struct Device {
  enum Kind : int32_t { cpu, cuda } kind = cpu;
  int32_t index = 0;
  bool operator==(const Device&) const = default;
};
std::string text(Device device);

/// At most eight dimensions, row-major.
class Shape {
 public:
  static constexpr int maxRank = 8;
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}
  /// Throws ERR_SHAPE for more than eight dimensions, a negative one, or an element count above 2^53.
  explicit Shape(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[i]; }
  int64_t count() const;
  std::span<const int64_t> dims() const { return {dims_.data(), static_cast<size_t>(rank_)}; }
  bool operator==(const Shape& other) const = default;

 private:
  std::array<int64_t, maxRank> dims_{};
  int rank_ = 0;
};
std::string text(const Shape& shape);

/// Owned memory on one device. Host memory is zeroed on request and counted in memoryUse(), without what is kept of
/// freed buffers; a mapped file is not: the system takes its pages back as it needs them.
class Buffer {
 public:
  static std::shared_ptr<Buffer> host(size_t bytes, bool zero = false);
  /// Memory that lives as long as `owner`.
  Buffer(void* data, size_t bytes, Device device, std::shared_ptr<void> owner, bool mapped = false);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  /// Bytes that this buffer keeps from others: none for a mapped file.
  size_t ownBytes() const { return mapped_ ? 0 : bytes_; }
  Device device() const { return device_; }

 private:
  void* data_;
  size_t bytes_;
  Device device_;
  std::shared_ptr<void> owner_;
  bool mapped_;
};

struct MemoryUse {
  int64_t hostBytes, hostBuffers, cudaBytes, cudaBuffers;
};
MemoryUse memoryUse();

class Completion;

struct Tensor {
  std::shared_ptr<Buffer> buffer;
  DType dtype = DType::float32;
  Shape shape;
  std::shared_ptr<Completion> pending;  // null once made by a job; otherwise the stream work that fills it

  /// Uninitialised unless `zero`.
  static Tensor host(DType dtype, Shape shape, bool zero = false);
  template <typename T>
  static Tensor host(Shape shape, bool zero = false) {
    return host(dtypeOf<T>, shape, zero);
  }

  int64_t count() const { return shape.count(); }
  size_t bytes() const { return static_cast<size_t>(count()) * sizeOf(dtype); }
  Device device() const { return buffer->device(); }
  int rank() const { return shape.rank(); }
  int64_t rows() const { return shape[0]; }
  int64_t cols() const { return shape[1]; }

  /// The elements on the host. T must match dtype: operations check with expect() first.
  template <typename T>
  T* data() const {
    return static_cast<T*>(buffer->data());
  }
  template <typename T>
  std::span<T> span() const {
    return {data<T>(), static_cast<size_t>(count())};
  }
};

/// A result that reaches JavaScript as a typed array rather than as a tensor: for answers a caller reads at once.
struct TypedArray {
  Tensor tensor;
};

/// Throws ERR_DTYPE or ERR_SHAPE naming the argument unless `t` has this dtype and rank (rank < 0: any) and is
/// not still being computed by a failed or unfinished stream operation.
void expect(const Tensor& t, const char* name, DType dtype, int rank);

}  // namespace topknot
