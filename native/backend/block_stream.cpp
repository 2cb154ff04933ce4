#include "backend/block_stream.h"

#include <future>

#include "backend/memory.h"
#include "backend/registry.h"

namespace topknot {
namespace {

/// The copies of one block, under way.
class Upload {
 public:
  explicit Upload(Device device) : backend_(backendOf(device)), exec_{.device = device.index} {}
  /// What is being copied must not be freed before the copies, on the device either.
  ~Upload() {
    if (running_.valid()) running_.wait();
    backend_.joinUploads(exec_);  // what a lost device says helps nobody
  }

  /// What is issued from here on waits for the copies begun so far, and those begun later for what has been issued.
  void join() {
    if (running_.valid()) running_.get();
    check(backend_.joinUploads(exec_));
  }
  void begin(BlockParts from, BlockParts to) {
    const auto copies = [this, from = std::move(from), to = std::move(to)] {
      for (size_t i = 0; i < from.size(); ++i) {
        check(backend_.uploadBeside(exec_, to[i].buffer->data(), from[i].buffer->data(), from[i].bytes()));
      }
    };
    // Without a thread to be had, the copies wait for join().
    running_ = std::async(std::launch::async | std::launch::deferred, copies);
  }

 private:
  const Backend& backend_;
  const Exec exec_;
  std::future<void> running_;
};

BlockParts placesFor(const BlockParts& parts, Device device) {
  BlockParts out;
  for (const Tensor& t : parts) out.push_back(empty(device, t.dtype, t.shape));
  return out;
}

}  // namespace

void streamBlocks(Device device, int64_t blocks, const std::function<BlockParts(int64_t)>& partsOf,
                  const std::function<void(int64_t, const BlockParts&)>& body) {
  BlockParts here, next;
  Upload upload(device);
  for (int64_t b = -1; b < blocks; ++b) {
    here.clear();
    BlockParts from;
    if (b + 1 < blocks) from = partsOf(b + 1);
    BlockParts to = placesFor(from, device);
    upload.join();  // block b is there, and to's memory is not in use any more
    here = std::move(next);
    next = to;
    if (b + 1 < blocks) upload.begin(std::move(from), std::move(to));
    if (b >= 0) body(b, here);
  }
}

}  // namespace topknot
