// Queue: the work of one call, in order on its stream. The first failure stays: what is asked for after it does
// nothing.
#pragma once
#include <cuda_runtime_api.h>

#include <mutex>
#include <type_traits>

#include "cuda/simt.h"

namespace topknot::cuda {

/// The Status of an answer of the CUDA runtime; `what` is what was tried.
inline Status statusOf(cudaError_t answer, const char* what) {
  if (answer == cudaSuccess) return {};
  ErrorCode code = ErrorCode::internal;
  switch (answer) {
    case cudaErrorMemoryAllocation:
      code = ErrorCode::memory;
      break;
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
      code = ErrorCode::device;
      break;
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorECCUncorrectable:
    case cudaErrorHardwareStackError:
    case cudaErrorAssert:
      code = ErrorCode::deviceLost;  // the process's CUDA context is unusable from here on
      break;
    default:
      break;
  }
  return failure(code, "%s: CUDA answered %s (%d): %s", what, cudaGetErrorName(answer), static_cast<int>(answer),
                 cudaGetErrorString(answer));
}

/// Free memory of the current device, with what its pool keeps for the next allocation.
inline cudaError_t freeMemory(int32_t device, size_t* free, size_t* total) {
  cudaMemPool_t pool;
  uint64_t kept = 0, used = 0;
  cudaError_t answer = cudaMemGetInfo(free, total);
  if (answer == cudaSuccess) answer = cudaDeviceGetDefaultMemPool(&pool, device);
  if (answer == cudaSuccess) answer = cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &kept);
  if (answer == cudaSuccess) answer = cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used);
  if (answer == cudaSuccess && kept > used) *free += kept - used;
  return answer;
}

class Queue {
 public:
  explicit Queue(const Exec& exec)
      : stream_(static_cast<cudaStream_t>(exec.stream)),
        device_(exec.device),
        status_(LostDevices::all().status(exec.device)) {
    if (status_.ok()) note(cudaSetDevice(exec.device), "cudaSetDevice");
  }
  ~Queue() {
    for (int i = 0; i < workspaces_; ++i) cudaFreeAsync(workspace_[i], stream_);
  }
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  const Status& status() const { return status_; }
  cudaStream_t stream() const { return stream_; }
  void note(cudaError_t answer, const char* what) {
    if (answer == cudaSuccess) return;
    cudaGetLastError();  // or the next launch of this thread would be taken to have failed
    if (!status_.ok()) return;
    const Status found = statusOf(answer, what);
    status_ = found;
    if (found.code != static_cast<int32_t>(ErrorCode::deviceLost)) return;
    status_ = failure(ErrorCode::deviceLost, "device 'cuda:%d': %.200s", device_, found.message);
    LostDevices::all().add(device_, found.message);
  }

  /// Memory in the order of the stream; null after a failure.
  void* allocate(size_t bytes) {
    void* data = nullptr;
    if (!status_.ok()) return data;
    cudaError_t answer = cudaMallocAsync(&data, bytes > 0 ? bytes : 1, stream_);
    if (answer == cudaErrorMemoryAllocation) {
      // What has been freed but still waits for its turn on the stream may do.
      cudaGetLastError();
      note(cudaStreamSynchronize(stream_), "waiting for memory");
      if (status_.ok()) answer = cudaMallocAsync(&data, bytes > 0 ? bytes : 1, stream_);
    }
    if (answer == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      size_t free = 0, total = 0;
      freeMemory(device_, &free, &total);
      fail(failure(ErrorCode::memory, "device 'cuda:%d': could not allocate %zu bytes: %zu of %zu are free", device_,
                   bytes, free, total));
    } else {
      note(answer, "cudaMallocAsync");
    }
    return status_.ok() ? data : nullptr;
  }

  /// Memory on the device until the work queued so far and until the Queue's end is done; null after a failure.
  template <typename T>
  T* workspace(int64_t count) {
    if (!status_.ok()) return nullptr;
    if (workspaces_ == maxWorkspaces) {
      status_ = failure(ErrorCode::internal, "a kernel asked for more than %d workspaces", maxWorkspaces);
      return nullptr;
    }
    void* data = allocate(static_cast<size_t>(count > 0 ? count : 1) * sizeof(T));
    if (!status_.ok()) return nullptr;
    workspace_[workspaces_++] = data;
    return static_cast<T*>(data);
  }

  /// Gives a workspace back before the Queue's end, in the order of the stream.
  void release(void* data) {
    for (int i = 0; i < workspaces_; ++i) {
      if (workspace_[i] != data) continue;
      workspace_[i] = workspace_[--workspaces_];
      return note(cudaFreeAsync(data, stream_), "cudaFreeAsync");
    }
  }

  template <typename... Params>
  void launch(const char* name, void (*kernel)(Params...), Grid grid, int threads,
              std::type_identity_t<Params>... args) {
    if (!status_.ok()) return;
    if (!grid.fits()) return fail(failure(ErrorCode::range, "%s: too much for one launch on a GPU", name));
    const int shared = static_cast<int>(grid.shared);
    std::unique_lock sizing(sizing_, std::defer_lock);
    if (shared > (40 << 10)) {  // 48 KB need no asking, but a kernel may have declared some of them
      sizing.lock();            // the limit is the kernel's, whoever launches it next
      note(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), name);
      if (!status_.ok()) return;
    }
    kernel<<<dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y)), threads, shared, stream_>>>(args...);
    note(cudaGetLastError(), name);
  }

  /// Waits for the work queued so far and answers the value of one number on the device; 0 after a failure.
  template <typename T>
  T fetch(const T* data) {
    T value{};
    if (!status_.ok()) return value;
    note(cudaMemcpyAsync(&value, data, sizeof value, cudaMemcpyDeviceToHost, stream_), "fetching a result");
    if (status_.ok()) note(cudaStreamSynchronize(stream_), "waiting for a result");
    return value;
  }
  /// A number on the device that starts as zero.
  template <typename T>
  T* zero() {
    T* data = workspace<T>(1);
    if (status_.ok()) note(cudaMemsetAsync(data, 0, sizeof(T), stream_), "clearing workspace");
    return data;
  }
  /// What the rest of a call's host code answers with.
  void fail(const Status& status) {
    if (status_.ok()) status_ = status;
  }

  int multiprocessors() {
    int count = 1;
    note(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device_), "cudaDeviceGetAttribute");
    return count;
  }
  /// 10 major + minor, such as 90; 0 after a failure.
  int capability() {
    int major = 0, minor = 0;
    note(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device_), "cudaDeviceGetAttribute");
    note(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device_), "cudaDeviceGetAttribute");
    return 10 * major + minor;
  }

 private:
  static inline std::mutex sizing_;
  cudaStream_t stream_;
  int device_;
  Status status_;
  void* workspace_[maxWorkspaces] = {};
  int workspaces_ = 0;
};

}  // namespace topknot::cuda
