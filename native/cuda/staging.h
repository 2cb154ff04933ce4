// Large copies between the host and a device go through pinned memory: two chunks, taken in turn, so that the host
// fills or empties one while the device copies the other.
#pragma once
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <mutex>

#include "cuda/queue.h"

namespace topknot::cuda {

/// Up to here the driver's own staging does.
inline constexpr size_t smallCopy = 64 << 10;

class Staging {
 public:
  static Staging& of(int32_t device) {
    static Staging all[maxDevices];
    return all[device];
  }

  /// Returns when `from` has been read; the device may still be copying.
  void upload(Queue& queue, void* to, const void* from, size_t bytes) {
    const std::lock_guard lock(mutex_);
    prepare(queue);
    for (size_t at = 0, i = 0; at < bytes && queue.status().ok(); at += chunkBytes, ++i) {
      Chunk& chunk = chunks_[i % 2];
      const size_t count = std::min(chunkBytes, bytes - at);
      queue.note(cudaEventSynchronize(chunk.done), "upload");
      if (!queue.status().ok()) return;
      std::memcpy(chunk.data, static_cast<const char*>(from) + at, count);
      queue.note(
          cudaMemcpyAsync(static_cast<char*>(to) + at, chunk.data, count, cudaMemcpyHostToDevice, queue.stream()),
          "upload");
      queue.note(cudaEventRecord(chunk.done, queue.stream()), "upload");
    }
  }

  /// Returns when all is there.
  void download(Queue& queue, void* to, const void* from, size_t bytes) {
    const std::lock_guard lock(mutex_);
    prepare(queue);
    const size_t chunks = (bytes + chunkBytes - 1) / chunkBytes;
    for (size_t i = 0; i <= chunks && queue.status().ok(); ++i) {
      if (i < chunks) {
        Chunk& chunk = chunks_[i % 2];
        queue.note(cudaEventSynchronize(chunk.done), "download");  // of an upload before
        if (!queue.status().ok()) return;
        const size_t at = i * chunkBytes, count = std::min(chunkBytes, bytes - at);
        queue.note(cudaMemcpyAsync(chunk.data, static_cast<const char*>(from) + at, count, cudaMemcpyDeviceToHost,
                                   queue.stream()),
                   "download");
        queue.note(cudaEventRecord(chunk.done, queue.stream()), "download");
      }
      if (i == 0) continue;
      Chunk& chunk = chunks_[(i - 1) % 2];
      const size_t at = (i - 1) * chunkBytes, count = std::min(chunkBytes, bytes - at);
      queue.note(cudaEventSynchronize(chunk.done), "download");
      if (queue.status().ok()) std::memcpy(static_cast<char*>(to) + at, chunk.data, count);
    }
  }

 private:
  static constexpr size_t chunkBytes = 4 << 20;
  struct Chunk {
    void* data = nullptr;
    cudaEvent_t done = nullptr;
  };

  void prepare(Queue& queue) {
    for (Chunk& chunk : chunks_) {
      if (!chunk.done && queue.status().ok())
        queue.note(cudaEventCreateWithFlags(&chunk.done, cudaEventDisableTiming), "staging");
      if (!chunk.data && queue.status().ok()) queue.note(cudaMallocHost(&chunk.data, chunkBytes), "staging");
    }
  }

  std::mutex mutex_;
  Chunk chunks_[2];  // kept for the life of the process
};

}  // namespace topknot::cuda
