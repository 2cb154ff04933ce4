// The emulated bodies of cuda/ptx90.h and cuda/ptx90_wgmma.h against the PTX ISA, and what the emulator catches when
// barriers, tile copies and wgmma are used wrongly.
#include "test/check.h"
#include "test/emulated_memory.h"
#include "test/ptx90_kernels.cuh"

using namespace topknot;
using namespace topknot::cuda;
using topknot::test::EmulatedMemory;

namespace {

/// What goes wrong in the kernel below, which multiplies a tile by itself.
enum class Slip {
  none,
  noWaitForCopy,
  readsBeforeWaitForCopy,
  noWaitForProduct,
  readsBeforeWaitForProduct,
  changesSums,
  noFence,
  noCommit,
  waitsForTooFew,
  oneWarpLess,
  otherTile,
  shiftedTile,
  unalignedBox,
  noInit,
  noBarrierFence,
  storeOverBarrier,
  tooManyArrivals,
  noArrival,
  storeWithoutFence,
};

__global__ void slips(const __grid_constant__ TensorMap map, Slip slip, float* out) {
  SIMT_DYNAMIC_SHARED(memory);
  SIMT_SHARED(Barrier, full, 2);
  unsigned char* tile = swizzleAligned(memory);
  const bool first = threadIdx.x == 0;
  if (first) {
    if (slip != Slip::noInit) initBarrier(full, 1);
    initBarrier(full + 1, 1);
    if (slip != Slip::noBarrierFence) fenceBarriers();
    if (slip == Slip::storeOverBarrier) *full = 1;
  }
  __syncthreads();
  if (first) {
    if (slip != Slip::noArrival) arriveExpecting(full, 8192);
    if (slip == Slip::tooManyArrivals) arrive(full);
    copyTile(tile + (slip == Slip::unalignedBox ? 128 : 0), map, full, 0, 0);
  }
  if (slip == Slip::readsBeforeWaitForCopy) out[threadIdx.x] = reinterpret_cast<float*>(tile)[threadIdx.x];
  if (slip != Slip::noWaitForCopy) waitPhase(full, 0);
  if (slip == Slip::storeWithoutFence) tile[threadIdx.x] = 1;
  __syncthreads();
  if (slip == Slip::noWaitForCopy || slip == Slip::readsBeforeWaitForCopy) return;
  float sums[32] = {}, others[32] = {};
  if (slip != Slip::noFence) fenceWgmma(sums);
  if (slip != Slip::oneWarpLess || threadIdx.x < 96) {
    const uint64_t second = slip == Slip::otherTile && threadIdx.x < 32 ? 2048 : slip == Slip::shiftedTile ? 128 : 0;
    wgmma<RowFormat::bfloat16>(sums, acrossTile(tile), acrossTile(tile + second), true);
    if (slip != Slip::noCommit) commitWgmma();
    if (slip == Slip::waitsForTooFew) {
      wgmma<RowFormat::bfloat16>(others, acrossTile(tile), acrossTile(tile), true);
      commitWgmma();
      waitForWgmma<1>(others);
    }
    if (slip == Slip::readsBeforeWaitForProduct) out[threadIdx.x] = sums[0];
    if (slip == Slip::changesSums) sums[3] = 0;
    if (slip != Slip::noWaitForProduct) waitForWgmma<0>();
  }
  if (slip != Slip::readsBeforeWaitForProduct) out[threadIdx.x] = sums[0] + others[0];
}

/// A tile a stage, multiplied by itself; the stage goes back to the producer before or after the product is done.
__global__ void givesBack(const __grid_constant__ TensorMap map, bool early, float* out) {
  constexpr int steps = 6;
  SIMT_DYNAMIC_SHARED(memory);
  SIMT_SHARED(Barrier, full, 2);
  SIMT_SHARED(Barrier, empty, 2);
  unsigned char* ring = swizzleAligned(memory);
  if (threadIdx.x == 0) {
    for (int s = 0; s < 2; ++s) {
      initBarrier(&full[s], 1);
      initBarrier(&empty[s], 4);
    }
    fenceBarriers();
  }
  __syncthreads();
  RingPlace<2> place;
  if (threadIdx.x < 32) {
    for (int step = 0; step < steps && threadIdx.x == 0; ++step, place.next()) {
      waitPhase(&empty[place.stage], place.parity ^ 1);
      arriveExpecting(&full[place.stage], 8192);
      copyTile(ring + place.stage * 8192, map, &full[place.stage], 0, 64 * step);
    }
  } else if (threadIdx.x >= 128) {
    float sums[32] = {};
    for (int step = 0; step < steps; ++step, place.next()) {
      const uint64_t tile = acrossTile(ring + place.stage * 8192);
      waitPhase(&full[place.stage], place.parity);
      fenceWgmma(sums);
      wgmma<RowFormat::bfloat16>(sums, tile, tile, true);
      commitWgmma();
      if (early && threadIdx.x % 32 == 0) arrive(&empty[place.stage]);
      waitForWgmma<0>(sums);
      if (!early && threadIdx.x % 32 == 0) arrive(&empty[place.stage]);
    }
    for (int i = 0; i < 32; ++i) out[wgmmaRow(i) * 64 + wgmmaColumn(i)] = sums[i];
  }
}

TensorMap matrix(EmulatedMemory& device, int rows) {
  Queue queue(Exec{});
  return tensorMap(queue, matrixTiles(device.give(toHalves(ptxNumbers(rows * 64, 7), false)), 2, rows, 64, 64, 64));
}

/// What the launch complains of; nothing if all went well.
template <typename... Params>
std::string complaint(void (*kernel)(Params...), int threads, std::type_identity_t<Params>... args) {
  Queue queue(Exec{});
  queue.launch("kernel", kernel, ptx90::oneBlock(3 * 8192), threads, args...);
  LostDevices::all().clear();
  return queue.status().message;
}

}  // namespace

TEST(wrappersFollowThePtxTables) {
  simt::everySchedule([] {
    EmulatedMemory device;
    for (const char* name : checkPtx90(device)) {
      std::printf("  %s\n", name);
      CHECK(false);
    }
    LostDevices::all().clear();
  });
}

TEST(slipsAreFaults) {
  const struct {
    Slip slip;
    const char* part;
  } expected[] = {{Slip::none, ""},
                  {Slip::noWaitForCopy, "without waiting for the copyTile"},
                  {Slip::readsBeforeWaitForCopy, ""},
                  {Slip::noWaitForProduct, "without waiting for the wgmma"},
                  {Slip::readsBeforeWaitForProduct, ""},
                  {Slip::changesSums, "changed before waitForWgmma"},
                  {Slip::noFence, "expected fenceWgmma"},
                  {Slip::noCommit, "without committing the wgmma"},
                  {Slip::waitsForTooFew, "does not wait for"},
                  {Slip::oneWarpLess, "not all four warps"},
                  {Slip::otherTile, "ask for different products"},
                  {Slip::shiftedTile, "1024-byte alignment"},
                  {Slip::unalignedBox, "1024-byte alignment"},
                  {Slip::noInit, "never initialised"},
                  {Slip::noBarrierFence, "expected fenceBarriers"},
                  {Slip::storeOverBarrier, "stored over the barrier"},
                  {Slip::tooManyArrivals, "all arrivals of this phase"},
                  {Slip::noArrival, "deadlock"},
                  {Slip::storeWithoutFence, "without fenceAsyncProxy"}};
  for (const auto& [slip, part] : expected) {
    EmulatedMemory device;
    std::vector<float> got(128, 0);
    float* out = device.give(got);
    const std::string said = complaint(slips, 128, matrix(device, 64), slip, out);
    const bool right = *part ? said.find(part) != std::string::npos : said.empty();
    if (!right) std::printf("  slip %d: '%s' instead of '%s'\n", static_cast<int>(slip), said.c_str(), part);
    CHECK(right);
    device.take(got, out);
    // What was read too early is poison, a NaN.
    if (slip == Slip::none) CHECK(!std::isnan(got[0]));
    if (slip == Slip::readsBeforeWaitForCopy || slip == Slip::readsBeforeWaitForProduct) CHECK(std::isnan(got[0]));
  }
}

TEST(stagesGivenBackTooEarlyShow) {
  for (const bool early : {false, true}) {
    std::vector<std::vector<float>> results;
    simt::everySchedule([&] {
      EmulatedMemory device;
      std::vector<float> got(64 * 64, 0);
      float* out = device.give(got);
      CHECK(complaint(givesBack, 256, matrix(device, 6 * 64), early, out).empty());
      device.take(got, out);
      results.push_back(got);
    });
    const bool same = std::all_of(results.begin(), results.end(), [&](const auto& r) { return r == results[0]; });
    CHECK(same != early);
  }
}

TEST(mapsAreChecked) {
  Queue queue(Exec{});
  alignas(16) uint16_t data[64 * 64] = {};
  tensorMap(queue, matrixTiles(data, 2, 64, 64, 64, 64));
  CHECK(queue.status().ok());
  const auto refused = [&](const TensorTiles& tiles) {
    Queue one(Exec{});
    tensorMap(one, tiles);
    return !one.status().ok();
  };
  CHECK(refused(matrixTiles(data + 1, 2, 8, 8, 64, 64)));    // alignment
  CHECK(refused(matrixTiles(data, 2, 64, 64, 60, 64)));      // stride
  CHECK(refused(matrixTiles(data, 2, 0, 64, 64, 64)));       // size
  CHECK(refused(matrixTiles(data, 2, 64, 64, 64, 257)));     // box
  CHECK(refused({data, 2, 2, {64, 64}, {1, 64}, {32, 8}}));  // rows of the box
  CHECK(refused({data, 2, 1, {64}, {1}, {64}}));             // rank
}

TEST_MAIN()
