// libtopknot_cuda.so: the CUDA devices and their tables of kernels. Nothing here throws.
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdio>
#include <mutex>

#include "backend/cuda_plugin.h"
#include "cuda/families.h"
#include "cuda/queue.h"

namespace topknot::cuda {
namespace {

constexpr int maxDevices = 64;

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
  if (!status.ok()) return status;
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
  if (queue.status().ok()) queue.note(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
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
  *out = nullptr;
  Queue queue(exec);
  keepFreedMemory(queue, exec.device);
  if (!queue.status().ok()) return queue.status();
  const cudaError_t answer = cudaMallocAsync(out, bytes > 0 ? bytes : 1, queue.stream());
  if (answer == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    return failure(ErrorCode::memory, "device 'cuda:%d': could not allocate %zu bytes: %zu of %zu are free",
                   exec.device, bytes, free, total);
  }
  queue.note(answer, "cudaMallocAsync");
  return queue.status();
}

Status release(const Exec& exec, void* data) noexcept {
  Queue queue(exec);
  if (queue.status().ok()) queue.note(cudaFreeAsync(data, queue.stream()), "cudaFreeAsync");
  return queue.status();
}

/// Both copies return when the host memory is theirs no more: uploads wait too, because pinned memory would not.
Status copy(const Exec& exec, void* to, const void* from, size_t bytes, cudaMemcpyKind kind, const char* what) {
  Queue queue(exec);
  if (bytes == 0 || !queue.status().ok()) return queue.status();
  queue.note(cudaMemcpyAsync(to, from, bytes, kind, queue.stream()), what);
  if (queue.status().ok()) queue.note(cudaStreamSynchronize(queue.stream()), what);
  return queue.status();
}

Status upload(const Exec& exec, void* device, const void* host, size_t bytes) noexcept {
  return copy(exec, device, host, bytes, cudaMemcpyHostToDevice, "upload");
}

Status download(const Exec& exec, void* host, const void* device, size_t bytes) noexcept {
  return copy(exec, host, device, bytes, cudaMemcpyDeviceToHost, "download");
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
  addSearch(table);
  addEmbedding(table);
  addAttention(table);
  addFactorization(table);
  table.name = "cuda";
  return &table;
}

}  // namespace
}  // namespace topknot::cuda

extern "C" __attribute__((visibility("default"))) const topknot::CudaPlugin* topknot_cuda_plugin() {
  static const topknot::CudaPlugin plugin{topknot::cudaAbi, topknot::cuda::driver, topknot::cuda::device,
                                          topknot::cuda::freeBytes, topknot::cuda::backend};
  return &plugin;
}
