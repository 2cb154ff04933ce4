// Tensors on devices: memory, the ways between, and operations that run where their tensors are, on two emulated GPUs.
// test/device/ does the same from JavaScript, for every operation.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "backend/block_stream.h"
#include "backend/memory.h"
#include "backend/registry.h"
#include "ops/ops.h"
#include "test/check.h"
#include "test/simt/faults.h"

using namespace topknot;

namespace {

constexpr Device gpu{Device::cuda, 0}, other{Device::cuda, 1};

/// Opens the emulated plugin with two GPUs; answers its counters. Once for the process, before anything asks for CUDA.
simt::Faults& faults() {
  static simt::Faults& one = []() -> simt::Faults& {
    char path[] = "/tmp/topknot-device-test-XXXXXX";
    const int file = mkstemp(path);
    CHECK(ftruncate(file, sizeof(simt::Faults)) == 0);
    setenv("TOPKNOT_SIMT_FAULTS", path, 1);
    setenv("TOPKNOT_SIMT_PLUGIN", "two-gpus", 1);
    setenv("TOPKNOT_CUDA_PLUGIN", TOPKNOT_SIMT_PLUGIN_PATH, 1);
    void* data = mmap(nullptr, sizeof(simt::Faults), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    copyTo(Tensor::host<float>({1}), gpu);  // the plugin has mapped the file now
    unlink(path);
    close(file);
    return *static_cast<simt::Faults*>(data);
  }();
  return one;
}

Tensor counting(Shape shape) {
  Tensor t = Tensor::host<float>(shape);
  for (int64_t i = 0; i < t.count(); ++i) t.data<float>()[i] = static_cast<float>(i % 7) - 3;
  return t;
}

bool same(const Tensor& a, const Tensor& b) {
  const Tensor x = copyTo(a, Device{}), y = copyTo(b, Device{});
  return x.shape == y.shape && x.dtype == y.dtype &&
         std::equal(x.data<char>(), x.data<char>() + x.bytes(), y.data<char>());
}

}  // namespace

TEST(namesDevices) {
  faults();
  CHECK(deviceNamed("cpu") == Device{} && deviceNamed("cuda") == gpu && deviceNamed("auto") == gpu);
  CHECK(deviceNamed("cuda:1") == other);
  CHECK_THROWS(deviceNamed("cuda:2"), device);
  for (const char* bad : {"", "gpu", "cuda:", "cuda:-1", "cuda:00", "cuda:1x", "cuda:4294967296"})
    CHECK_THROWS(deviceNamed(bad), argument);
}

TEST(copiesBetweenDevices) {
  const int64_t live = faults().live;
  const MemoryUse before = memoryUse();
  {
    const Tensor host = counting({3, 5});
    const Tensor there = copyTo(host, gpu), copy = empty<float>(gpu, {3, 5});
    CHECK(there.device() == gpu && memoryUse().cudaBytes - before.cudaBytes == 120);
    CHECK(copyTo(there, gpu).buffer == there.buffer && copyTo(host, {}).buffer == host.buffer);
    copyBytes(gpu, copy.buffer->data(), there.buffer->data(), there.bytes());
    CHECK(same(copyTo(copy, other), host) && numberAt<float>(there, 8) == host.data<float>()[8]);
    CHECK(same(copyTo(Tensor::host<float>({0, 4}), gpu), Tensor::host<float>({0, 4})));
    CHECK(faults().live - live == 2);
  }
  CHECK(memoryUse().cudaBytes == before.cudaBytes && memoryUse().cudaBuffers == before.cudaBuffers);
  CHECK(faults().live == live);
}

TEST(blocksStreamThroughADevice) {
  const int64_t live = faults().live;
  constexpr int64_t blocks = 5;
  const auto partsOf = [](int64_t b) {
    const Tensor numbers = Tensor::host<float>({100 + b}), more = Tensor::host<int32_t>({b});
    std::fill_n(numbers.data<float>(), numbers.count(), static_cast<float>(b));
    std::fill_n(more.data<int32_t>(), b, static_cast<int32_t>(-b));
    return BlockParts{numbers, more};
  };
  int64_t next = 0, most = 0;
  streamBlocks(gpu, blocks, partsOf, [&](int64_t b, const BlockParts& parts) {
    CHECK(b == next++ && parts.size() == 2 && parts[0].device() == gpu);
    const BlockParts expected = partsOf(b);
    CHECK(same(parts[0], expected[0]) && same(parts[1], expected[1]));
    most = std::max<int64_t>(most, faults().live - live);
  });
  CHECK(next == blocks && most == 4 && faults().live == live);  // two blocks of two parts at a time
  streamBlocks(gpu, 0, partsOf, [](int64_t, const BlockParts&) { CHECK(false); });

  // Whatever stops it, on the host or on the device, nothing stays behind.
  const auto stopped = [&](int64_t at) {
    streamBlocks(gpu, blocks, partsOf,
                 [&](int64_t b, const BlockParts&) { require(b < at, ErrorCode::aborted, "enough"); });
  };
  for (int64_t at = 0; at < blocks; ++at) CHECK_THROWS(stopped(at), aborted);
  for (int64_t n = 1; n <= 2 * blocks; ++n) {
    faults().allocation = n;
    CHECK_THROWS(stopped(blocks), memory);
    CHECK(faults().live == live);
  }
  stopped(blocks);
  CHECK(faults().live == live);
}

TEST(operationsFollowTheirTensors) {
  const int64_t live = faults().live;
  {
    Stream stream;
    const Tensor a = counting({2, 4, 6}), b = counting({6, 5}), g = counting({2, 4, 5});
    const auto compute = [&](Device device) {
      const Tensor x = copyTo(a, device), y = copyTo(b, device);
      const Tensor out = ops::matmul(stream, x, y, {});
      MatmulGradients made = ops::matmulBackward(stream, copyTo(g, device), x, y, out, {});
      made.b.pending->wait();
      return made;
    };
    const MatmulGradients onGpu = compute(gpu), onCpu = compute({});
    CHECK(onGpu.a.device() == gpu && same(onGpu.a, onCpu.a) && same(onGpu.b, onCpu.b));
    CHECK_THROWS(ops::matmul(stream, copyTo(a, gpu), copyTo(b, other), {}), device);
  }
  CHECK(faults().live == live);
}

TEST(outOfMemory) {
  const int64_t live = faults().live;
  CHECK_THROWS(empty<float>(gpu, {int64_t{1} << 29}), memory);
  const Tensor table = copyTo(counting({9, 8}), gpu), gradient = copyTo(counting({3, 8}), gpu);
  const Tensor ids = Tensor::host<int32_t>({3, 2}, true);
  for (int64_t n = 1;; ++n) {
    faults().allocation = n;
    bool failed = false;
    try {
      Job job;
      ops::embeddingBagBackward(job, gradient, {table, {}, {}}, ids, {}, {.mode = BagMode::mean}, false);
    } catch (const Error& e) {
      failed = true;
      CHECK(e.code() == ErrorCode::memory);
    }
    CHECK(faults().live - live == 2);
    if (!failed) {
      CHECK(n > 5);
      break;
    }
  }
  faults().allocation = 0;
}

TEST(aCrashLosesTheDevice) {
  const int64_t live = faults().live;
  {
    Stream stream;
    const Tensor x = copyTo(counting({4, 4}), gpu);
    faults().grid = 1;
    const Tensor lost = ops::matmul(stream, x, x, {});
    CHECK_THROWS(lost.pending->wait(), deviceLost);
    CHECK_THROWS(ops::matmul(stream, x, x, {}), deviceLost);
    CHECK_THROWS(copyTo(x, {}), deviceLost);
    CHECK(same(copyTo(counting({3}), other), counting({3})));
    CHECK(cudaMemory().size() == 2);
    faults().recover = 1;
    CHECK(same(copyTo(x, {}), counting({4, 4})));
  }
  CHECK(faults().live == live);
}

TEST_MAIN()
