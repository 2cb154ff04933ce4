// The emulated bodies of cuda/ptx.h against the PTX ISA's tables of fragments, and what the emulator catches when
// asynchronous copies and warp-wide instructions are used wrongly.
#include "test/check.h"
#include "test/emulated_memory.h"
#include "test/ptx_kernels.cuh"
#include "test/simt/fiber.h"

using namespace topknot;
using namespace topknot::cuda;
using topknot::test::EmulatedMemory;

namespace {

template <typename F>
bool faults(F&& f, const char* part) {
  try {
    f();
  } catch (const simt::Fault& fault) {
    return std::string(fault.what()).find(part) != std::string::npos;
  }
  return false;
}

__global__ void forgetsToWait(const float* in, float* out) {
  SIMT_SHARED(float4, tile, 32);
  copyAsync(&tile[threadIdx.x], in + 4 * threadIdx.x, true);
  commitCopies();
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x].x;
}

__global__ void waitsTooLate(const float* in, float* out) {
  SIMT_SHARED(float4, tile, 32);
  copyAsync(&tile[threadIdx.x], in + 4 * threadIdx.x, true);
  commitCopies();
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x].x;
  waitForCopies<0>();
}

__global__ void copiesToAnUnalignedPlace(const float* in, float* out) {
  SIMT_SHARED(float4, tile, 33);
  copyAsync(reinterpret_cast<float*>(tile) + 1, in, true);
  commitCopies();
  waitForCopies<0>();
  out[0] = tile[0].y;
}

__global__ void copiesToGlobalMemory(const float* in, float* out) {
  copyAsync(out, in, true);
  commitCopies();
  waitForCopies<0>();
}

__global__ void multipliesWithHalfAWarp(float* out) {
  float d[4] = {};
  const uint32_t a[4] = {}, b[2] = {};
  if (threadIdx.x < 16) mmaBf16(d, a, b);
  out[threadIdx.x] = d[0];
}

__global__ void multipliesAtTwoPlaces(float* out) {
  float d[4] = {};
  const uint32_t a[4] = {}, b[2] = {};
  if (threadIdx.x < 16) mmaBf16(d, a, b);
  else mmaBf16(d, a, b);
  out[threadIdx.x] = d[0];
}

__global__ void storesBehindDynamicMemory(float* out) {
  SIMT_DYNAMIC_SHARED(bytes);
  float* numbers = reinterpret_cast<float*>(bytes);
  numbers[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = numbers[threadIdx.x];
}

}  // namespace

TEST(wrappersFollowThePtxTables) {
  simt::everySchedule([] {
    EmulatedMemory device;
    for (const char* name : checkPtx(device)) {
      std::printf("  %s\n", name);
      CHECK(false);
    }
  });
}

TEST(tf32Rounding) {
  CHECK(toTf32(1.0f) == __float_as_uint(1.0f));
  CHECK(toTf32(1.0f + 0x1p-11f) == __float_as_uint(1.0f + 0x1p-10f));  // a tie goes away from zero
  CHECK(toTf32(-1.0f - 0x1p-11f) == __float_as_uint(-1.0f - 0x1p-10f));
  CHECK(toTf32(1.0f + 0x1p-12f) == __float_as_uint(1.0f));
}

TEST(unwaitedCopies) {
  EmulatedMemory device;
  const float* in = device.give(std::vector<float>(128, 5.0f));
  std::vector<float> host(32, 0.0f);
  float* out = device.give(host);
  CHECK(faults([&] { device.launch(forgetsToWait, 32, in, out); }, "ended without waiting for the copy"));
  device.launch(waitsTooLate, 32, in, out);
  device.take(host, out);
  CHECK(host != std::vector<float>(32, 5.0f));  // poison
  CHECK(faults([&] { device.launch(copiesToAnUnalignedPlace, 1, in, out); }, "16-byte alignment"));
  CHECK(faults([&] { device.launch(copiesToGlobalMemory, 1, in, out); }, "expected to copy to shared memory"));
}

TEST(warpWideInstructions) {
  EmulatedMemory device;
  float* out = device.give(std::vector<float>(32));
  CHECK(faults([&] { device.launch(multipliesWithHalfAWarp, 32, out); }, "deadlock"));
  CHECK(faults([&] { device.launch(multipliesAtTwoPlaces, 32, out); }, "deadlock"));
}

TEST(dynamicSharedMemory) {
  const simt::Access access;
  EmulatedMemory device;
  float* out = device.give(std::vector<float>(32));
  const auto launched = [&](const char* name, int64_t bytes) {
    Queue queue(Exec{});
    queue.launch(name, storesBehindDynamicMemory, {1, 1, bytes}, 32, out);
    LostDevices::all().clear();
    return std::string(queue.status().message);
  };
  CHECK(launched("fits", 128).empty());
  CHECK(out[31] == 1);
#if !defined(TOPKNOT_SIMT_ASAN)
  CHECK(launched("small", 64).find("out of bounds") != std::string::npos);
#endif
  CHECK(launched("large", 100 << 10).find("every GPU") != std::string::npos);
}

TEST_MAIN()
