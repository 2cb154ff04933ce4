// A device's second stream: uploads that run beside the kernels.
#pragma once
#include <cuda_runtime_api.h>

#include <mutex>

#include "cuda/queue.h"
#include "cuda/staging.h"

namespace topknot::cuda {

class UploadStream {
 public:
  static UploadStream& of(int32_t device) {
    static UploadStream all[maxDevices];
    return all[device];
  }

  /// Returns when `from` has been read.
  Status upload(Exec exec, void* to, const void* from, size_t bytes) {
    {
      Queue queue(exec);
      prepare(queue);
      if (!queue.status().ok() || bytes == 0) return queue.status();
    }
    exec.stream = stream_;
    Queue queue(exec);
    staging_.upload(queue, to, from, bytes);
    return queue.status();
  }

  /// What is issued to the device's stream from here on waits for the uploads so far, and later uploads for what has
  /// been issued there so far.
  Status join(const Exec& exec) {
    Queue queue(exec);
    prepare(queue);
    const std::lock_guard lock(mutex_);
    wait(queue, stream_, queue.stream());
    wait(queue, queue.stream(), stream_);
    return queue.status();
  }

 private:
  void prepare(Queue& queue) {
    const std::lock_guard lock(mutex_);
    if (queue.status().ok() && !event_)
      queue.note(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "upload stream");
    if (queue.status().ok() && !stream_)
      queue.note(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "upload stream");
  }
  /// A wait is for the event as it was recorded last, so one event does for all.
  void wait(Queue& queue, cudaStream_t before, cudaStream_t after) {
    if (queue.status().ok()) queue.note(cudaEventRecord(event_, before), "upload stream");
    if (queue.status().ok()) queue.note(cudaStreamWaitEvent(after, event_, 0), "upload stream");
  }

  std::mutex mutex_;
  cudaStream_t stream_ = nullptr;  // kept for the life of the process, as the event and the pinned memory are
  cudaEvent_t event_ = nullptr;
  Staging staging_;
};

}  // namespace topknot::cuda
