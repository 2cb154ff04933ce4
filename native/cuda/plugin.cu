// libtopknot_cuda.so: the CUDA devices and their tables of kernels. Nothing here throws.
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdio>
#include <mutex>

#include "backend/cuda_plugin.h"
#include "cuda/families.h"
#include "cuda/queue.h"
#include "cuda/staging.h"
#include "cuda/upload_stream.h"

namespace topknot::cuda {
namespace {

Status driver(CudaDriver* out) noexcept {
  *out = {};
  cudaDriverGetVersion(&out->driver);
  cudaRuntimeGetVersion(&out->runtime);
  const Status status = statusOf(cudaGetDeviceCount(&out->devices), "cudaGetDeviceCount");
  if (!status.ok()) out->devices = 0;
  if (out->devices > maxDevices) out->devices = maxDevices;
  cudaGetLastError();  // a failure here must not be taken for one of a later launch
  return status;
}

Status device(int32_t index, CudaDeviceInfo* out) noexcept {
  *out = {};
  cudaDeviceProp properties{};
  const Status status = statusOf(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  if (!status.ok()) {
    cudaGetLastError();
    return status;
  }
  std::snprintf(out->name, sizeof out->name, "%s", properties.name);
  out->major = properties.major;
  out->minor = properties.minor;
  out->multiprocessors = properties.multiProcessorCount;
  out->totalBytes = properties.totalGlobalMem;
  return status;
}

Status freeBytes(int32_t index, uint64_t* out) noexcept {
  Queue queue(Exec{.device = index});
  size_t free = 0, total = 0;
  if (queue.status().ok()) queue.note(freeMemory(index, &free, &total), "cudaMemGetInfo");
  *out = free;
  return queue.status();
}

/// Freed memory stays with the device's pool for the next allocation instead of going back to the driver.
void keepFreedMemory(Queue& queue, int32_t index) {
  static std::atomic<uint64_t> kept{0};
  static_assert(maxDevices <= 64);
  if (kept.fetch_or(uint64_t{1} << index) >> index & 1) return;
  cudaMemPool_t pool;
  uint64_t most = UINT64_MAX;
  queue.note(cudaDeviceGetDefaultMemPool(&pool, index), "cudaDeviceGetDefaultMemPool");
  if (!queue.status().ok()) return;
  queue.note(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &most), "cudaMemPoolSetAttribute");
}

Status allocate(const Exec& exec, size_t bytes, void** out) noexcept {
  Queue queue(exec);
  keepFreedMemory(queue, exec.device);
  *out = queue.allocate(bytes);
  return queue.status();
}

Status release(const Exec& exec, void* data) noexcept {
  Queue queue(exec);
  if (queue.status().ok()) queue.note(cudaFreeAsync(data, queue.stream()), "cudaFreeAsync");
  return queue.status();
}

Status upload(const Exec& exec, void* device, const void* host, size_t bytes) noexcept {
  Queue queue(exec);
  if (bytes > smallCopy) {
    Staging::of(exec.device).upload(queue, device, host, bytes);
  } else if (bytes > 0 && queue.status().ok()) {
    // The driver has taken pageable memory into its own staging when this returns.
    queue.note(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, queue.stream()), "upload");
  }
  return queue.status();
}

Status download(const Exec& exec, void* host, const void* device, size_t bytes) noexcept {
  Queue queue(exec);
  if (bytes > smallCopy) {
    Staging::of(exec.device).download(queue, host, device, bytes);
  } else if (bytes > 0 && queue.status().ok()) {
    queue.note(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, queue.stream()), "download");
    if (queue.status().ok()) queue.note(cudaStreamSynchronize(queue.stream()), "download");
  }
  return queue.status();
}

Status copy(const Exec& exec, void* to, const void* from, size_t bytes) noexcept {
  Queue queue(exec);
  if (bytes > 0 && queue.status().ok())
    queue.note(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, queue.stream()), "copy");
  return queue.status();
}

Status uploadBeside(const Exec& exec, void* device, const void* host, size_t bytes) noexcept {
  return UploadStream::of(exec.device).upload(exec, device, host, bytes);
}

Status joinUploads(const Exec& exec) noexcept { return UploadStream::of(exec.device).join(exec); }

Status memory(int32_t index, CudaMemory* out) noexcept {
  *out = {};
  if (!LostDevices::all().status(index).ok()) return {};  // then it has none
  Queue queue(Exec{.device = index});
  cudaMemPool_t pool;
  uint64_t reserved = 0;
  queue.note(cudaDeviceGetDefaultMemPool(&pool, index), "cudaDeviceGetDefaultMemPool");
  if (!queue.status().ok()) return queue.status();
  queue.note(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &out->used), "cudaMemPoolGetAttribute");
  queue.note(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved), "cudaMemPoolGetAttribute");
  out->kept = reserved > out->used ? reserved - out->used : 0;
  return queue.status();
}

Status trim(int32_t index) noexcept {
  Queue queue(Exec{.device = index});
  cudaMemPool_t pool;
  if (queue.status().ok()) queue.note(cudaDeviceSynchronize(), "trim");
  if (queue.status().ok()) queue.note(cudaDeviceGetDefaultMemPool(&pool, index), "cudaDeviceGetDefaultMemPool");
  if (queue.status().ok()) queue.note(cudaMemPoolTrimTo(pool, 0), "cudaMemPoolTrimTo");
  return queue.status();
}

const Backend* backend(int32_t index) noexcept {
  static std::mutex mutex;
  static Backend tables[maxDevices];
  static char isas[maxDevices][16];
  if (index < 0 || index >= maxDevices) return nullptr;
  const std::lock_guard lock(mutex);
  Backend& table = tables[index];
  if (table.name) return &table;
  CudaDeviceInfo info;
  if (!device(index, &info).ok()) return nullptr;
  std::snprintf(isas[index], sizeof isas[index], "sm_%d%d", info.major, info.minor);
  table.isa = isas[index];
  table.allocate = allocate;
  table.release = release;
  table.upload = upload;
  table.download = download;
  table.copy = copy;
  table.uploadBeside = uploadBeside;
  table.joinUploads = joinUploads;
  addKernels(table);
  table.name = "cuda";
  return &table;
}

}  // namespace
}  // namespace topknot::cuda

extern "C" __attribute__((visibility("default"))) const topknot::CudaPlugin* topknot_cuda_plugin() {
  static const topknot::CudaPlugin plugin{topknot::cudaAbi,         topknot::cuda::driver,  topknot::cuda::device,
                                          topknot::cuda::freeBytes, topknot::cuda::backend, topknot::cuda::memory,
                                          topknot::cuda::trim};
  return &plugin;
}
