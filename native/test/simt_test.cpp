// The emulator's own tests: what it computes, and that it catches each fault planted here.
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <numeric>
#include <set>

#include "cuda/simt.h"
#include "test/check.h"
#include "test/simt/fiber.h"

using simt::everySchedule;

namespace {

constexpr unsigned threads = 64;

/// Runs a kernel of one argument over `count` values of device memory and copies them back.
template <typename T>
std::vector<T> run(void (*kernel)(T*), size_t count, simt::Dim3 grid = {}, unsigned blockSize = threads) {
  struct Memory {
    T* data;
    ~Memory() { simt::release(data); }
  } memory{static_cast<T*>(simt::allocate(count * sizeof(T)))};
  const simt::Access access;
  std::memset(memory.data, 0, count * sizeof(T));
  simt::launch("kernel", kernel, grid, blockSize, memory.data);
  return std::vector<T>(memory.data, memory.data + count);
}

/// What the kernel computes under each schedule, without repetitions: more than one means a race.
template <typename T>
std::set<std::vector<T>> outcomes(void (*kernel)(T*), size_t count, simt::Dim3 grid = {}) {
  std::set<std::vector<T>> seen;
  everySchedule([&] { seen.insert(run(kernel, count, grid)); });
  return seen;
}

/// Whether f throws a Fault that says all of `parts`.
template <typename F>
bool faults(F&& f, std::initializer_list<const char*> parts) {
  try {
    f();
  } catch (const simt::Fault& fault) {
    const std::string text = fault.what();
    for (const char* part : parts) {
      if (text.find(part) == std::string::npos) {
        std::printf("'%s' does not say '%s'\n", text.c_str(), part);
        return false;
      }
    }
    return true;
  }
  std::printf("no fault was found\n");
  return false;
}

/// Where the address sanitizer stops a process at once, the faulty code runs in a child.
template <typename F>
bool stopsOutOfBounds(F&& f, std::initializer_list<const char*> parts) {
#if defined(TOPKNOT_SIMT_ASAN)
  (void)parts;
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    try {
      f();
    } catch (...) {
    }
    _exit(0);  // the sanitizer would have ended it otherwise
  }
  int status = 0;
  waitpid(child, &status, 0);
  return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
#else
  return faults(f, parts);
#endif
}

// --- What works ---

__global__ void writeIndices(unsigned* out) {
  const unsigned block = blockIdx.y * gridDim.x + blockIdx.x;
  out[block * blockDim.x + threadIdx.x] = block << 16 | threadIdx.x;
}

/// Each thread adds its neighbours' numbers, through shared memory.
__global__ void sumNeighbours(int* out) {
  SIMT_SHARED(int, values, threads);
  values[threadIdx.x] = static_cast<int>(threadIdx.x * threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = values[(threadIdx.x + 1) % threads] + values[(threadIdx.x + threads - 1) % threads];
}

__global__ void shuffles(int* out) {
  const int lane = static_cast<int>(threadIdx.x % 32), value = static_cast<int>(threadIdx.x) * 10;
  const unsigned all = 0xffffffffu;
  int* mine = out + threadIdx.x * 8;
  mine[0] = __shfl_sync(all, value, 5);
  mine[1] = __shfl_xor_sync(all, value, 3);
  mine[2] = __shfl_up_sync(all, value, 2);
  mine[3] = __shfl_down_sync(all, value, 4);
  mine[4] = __shfl_sync(all, value, 1, 8);
  mine[5] = __shfl_down_sync(all, value, 3, 8);
  mine[6] = static_cast<int>(__ballot_sync(all, lane % 3 == 0));
  mine[7] = __any_sync(all, lane == 31) + 2 * __all_sync(all, lane < 32) + 4 * __all_sync(all, lane < 31);
}

__global__ void halfWarps(unsigned* out) {
  const unsigned lane = threadIdx.x % 32, mask = lane < 16 ? 0xffffu : 0xffff0000u;
  if (lane < 16) __syncwarp(mask);  // the halves go separate ways
  out[threadIdx.x] = __ballot_sync(mask, lane % 2);
}

__global__ void votes(int* out) {
  const int odd = threadIdx.x % 2;
  out[threadIdx.x * 3] = __syncthreads_count(odd);
  out[threadIdx.x * 3 + 1] = __syncthreads_or(threadIdx.x == 40);
  out[threadIdx.x * 3 + 2] = __syncthreads_and(odd);
}

__global__ void atomics(int* out) {
  atomicAdd(&out[0], 1);
  atomicMax(&out[1], static_cast<int>(threadIdx.x));
  atomicMin(&out[2], -static_cast<int>(threadIdx.x));
  atomicOr(&out[3], 1 << threadIdx.x % 8);
  // A lock-free multiplication modulo a prime.
  for (int old = out[4], next;; old = next) {
    next = atomicCAS(&out[4], old, (old + 1) * 3 % 1009);
    if (next == old) break;
  }
}

__global__ void readsPoison(unsigned* out) {
  SIMT_SHARED(float, values, threads);
  out[threadIdx.x] = __float_as_uint(values[threadIdx.x]);
}

}  // namespace

TEST(indices) {
  const auto out = run(writeIndices, 6 * threads, {3, 2});
  for (unsigned i = 0; i < out.size(); ++i) CHECK(out[i] == (i / threads << 16 | i % threads));
}

TEST(sharedMemoryAndBarriers) {
  const auto seen = outcomes(sumNeighbours, threads);
  CHECK(seen.size() == 1);
  const auto square = [](int i) { return (i & 63) * (i & 63); };
  for (int i = 0; i < 64; ++i) CHECK((*seen.begin())[i] == square(i + 1) + square(i - 1));
}

TEST(warpCollectives) {
  const auto seen = outcomes(shuffles, threads * 8);
  CHECK(seen.size() == 1);
  for (int t = 0; t < 64; ++t) {
    const int* mine = seen.begin()->data() + t * 8;
    const int warp = t / 32 * 32, lane = t % 32, group = t / 8 * 8;
    CHECK(mine[0] == (warp + 5) * 10);
    CHECK(mine[1] == (warp + (lane ^ 3)) * 10);
    CHECK(mine[2] == (lane >= 2 ? t - 2 : t) * 10);
    CHECK(mine[3] == (lane + 4 < 32 ? t + 4 : t) * 10);
    CHECK(mine[4] == (group + 1) * 10);
    CHECK(mine[5] == (t % 8 + 3 < 8 ? t + 3 : t) * 10);
    CHECK(mine[6] == 0x49249249);
    CHECK(mine[7] == 3);
  }
  const auto halves = run(halfWarps, threads);
  for (unsigned t = 0; t < threads; ++t) CHECK(halves[t] == (t % 32 < 16 ? 0xaaaau : 0xaaaa0000u));
}

TEST(barrierVotes) {
  const auto out = run(votes, threads * 3);
  for (unsigned t = 0; t < threads; ++t) CHECK(out[t * 3] == 32 && out[t * 3 + 1] == 1 && out[t * 3 + 2] == 0);
}

TEST(atomicOperations) {
  const auto seen = outcomes(atomics, 5);
  CHECK(seen.size() == 1);
  int product = 0;
  for (unsigned t = 0; t < threads; ++t) product = (product + 1) * 3 % 1009;
  CHECK((*seen.begin() == std::vector<int>{64, 63, -63, 255, product}));
}

TEST(memoryStartsAsPoison) {
  for (unsigned value : run(readsPoison, threads)) CHECK(value == simt::poison);
  auto* data = static_cast<float*>(simt::allocate(12));
  {
    const simt::Access access;
    CHECK(std::isnan(data[0]) && std::isnan(data[2]));
  }
  simt::release(data);
  CHECK(faults([&] { simt::release(data); }, {"not allocated"}));
}

namespace {

/// Whether a child that runs f ends by a segmentation fault.
template <typename F>
bool segfaults(F&& f) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGSEGV, [](int) { _exit(3); });
    f();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 3;
}

__global__ void increment(int* out) { ++*out; }

}  // namespace

TEST(deviceMemoryIsClosedToTheHost) {
  volatile int* const data = static_cast<int*>(simt::allocate(sizeof(int)));
  CHECK(segfaults([&] { (void)*data; }));
  CHECK(segfaults([&] { *data = 1; }));
  {
    const simt::Access access;
    *data = 1;
    simt::launch("increment", increment, {}, 1, const_cast<int*>(data));
    CHECK(*data == 2);  // a kernel's end does not close what is open here
  }
  CHECK(segfaults([&] { (void)*data; }));
  CHECK(faults([&] { simt::launch("increment", increment, {}, 2000, const_cast<int*>(data)); }, {"2000 threads"}));
  CHECK(segfaults([&] { (void)*data; }));
  simt::release(const_cast<int*>(data));
}

TEST(deviceMemoryIsUsedAgain) {
  void* const first = simt::allocate(1000);
  void* const second = simt::allocate(1);
  simt::release(first);
  void* const small = simt::allocate(300);
  void* const beside = simt::allocate(100);
  void* const large = simt::allocate(5000);
  CHECK(small == first && small < beside && beside < second && second < large);
  for (void* data : {second, small, beside, large}) simt::release(data);
}

// --- Planted faults ---

namespace {

__global__ void missingBarrier(int* out) {
  SIMT_SHARED(int, values, threads);
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  out[threadIdx.x] = values[(threadIdx.x + 1) % threads];
}

/// The barrier behind the reads is missing: the next round's writes may come first.
__global__ void missingSecondBarrier(int* out) {
  SIMT_SHARED(int, values, threads);
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  for (int round = 0; round < 3; ++round) {
    __syncthreads();
    values[threadIdx.x] = values[(threadIdx.x + 1) % threads] + round;
  }
  out[threadIdx.x] = values[threadIdx.x];
}

/// Two sums over the block through the same memory, without the barrier between them: a warp that is held up just
/// before it reads finds the numbers of the second sum.
__global__ void missingBarrierBetweenSums(int* out) {
  SIMT_SHARED(int, parts, threads / 32);
  int sums = 0;
  for (int round = 0; round < 2; ++round) {
    int x = static_cast<int>(threadIdx.x) + 1000 * round;
    for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(~0u, x, distance);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    for (unsigned warp = 0; warp < threads / 32; ++warp) sums = 3 * sums + parts[warp];
  }
  out[blockIdx.x * threads + threadIdx.x] = sums;
}

__global__ void divergentBarrier(int* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

__global__ void returnsBeforeBarrier(int* out) {
  if (threadIdx.x == 9) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void laneMissing(int* out) {
  if (threadIdx.x % 32 != 7) out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
}

__global__ void laneElsewhere(int* out) {
  if (threadIdx.x % 32 == 7) {
    __syncthreads();
  } else {
    out[threadIdx.x] = static_cast<int>(__ballot_sync(0xffffffffu, 1));
  }
}

__global__ void notInItsMask(int* out) { out[threadIdx.x] = static_cast<int>(__ballot_sync(0x0000ffffu, 1)); }

__global__ void readsOutsideMask(int* out) {
  if (threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1, 20);
}

__global__ void raceOfThreads(int* out) { out[0] = static_cast<int>(threadIdx.x); }
__global__ void raceOfBlocks(int* out) { out[threadIdx.x] = static_cast<int>(blockIdx.x); }
/// A counter without an atomic: only a schedule that lets others in between shows it.
__global__ void lostUpdate(int* out) {
  const int old = out[0];
  atomicAdd(&out[1], 1);
  out[0] = old + 1;
}

__global__ void storesBehindShared(int* out) {
  SIMT_SHARED(int, small, 10);
  small[threadIdx.x == 0 ? 10 : threadIdx.x % 10] = 1;
  out[threadIdx.x] = 1;
}
__global__ void storesBeforeShared(int* out) {
  SIMT_SHARED(int, small, 10);
  small[-1] = 1;
  out[threadIdx.x] = 1;
}
__global__ void storesBehindGlobal(int* out) { out[threadIdx.x + 1] = 1; }
__global__ void storesBeforeGlobal(int* out) { out[static_cast<int>(threadIdx.x) - 3] = 1; }

__global__ void tooMuchShared(int* out) {
  SIMT_SHARED(double, large, 6145);
  large[threadIdx.x] = 0;
  out[threadIdx.x] = 1;
}

}  // namespace

TEST(findsMissingBarriers) {
  CHECK(outcomes(missingBarrier, threads).size() > 1);
  CHECK(outcomes(missingSecondBarrier, threads).size() > 1);
  CHECK(outcomes(missingBarrierBetweenSums, threads * 100, {100}).size() > 1);
}

TEST(findsDivergentBarriers) {
  everySchedule([] {
    CHECK(faults([] { run(divergentBarrier, threads); }, {"divergent barrier", "__syncthreads", "simt_test.cpp:"}));
    CHECK(faults([] { run(returnsBeforeBarrier, threads); }, {"deadlock", "__syncthreads", "thread 9", "has ended"}));
  });
}

TEST(findsDeadlocksOfLanes) {
  everySchedule([] {
    CHECK(faults([] { run(laneMissing, threads); }, {"deadlock", "__shfl_sync", "lane 7", "has ended", "0xffffffff"}));
    CHECK(faults([] { run(laneElsewhere, threads); }, {"deadlock", "__ballot_sync", "lane 7", "__syncthreads"}));
  });
  CHECK(faults([] { run(shuffles, threads * 8, {}, 40); }, {"deadlock", "does not exist"}));
}

TEST(findsWrongMasks) {
  CHECK(faults([] { run(notInItsMask, threads); }, {"is not in the mask", "0x0000ffff"}));
  CHECK(faults([] { run(readsOutsideMask, threads); }, {"reads lane 20"}));
}

TEST(findsRaces) {
  CHECK(outcomes(raceOfThreads, 1).size() > 1);
  CHECK(outcomes(raceOfBlocks, threads, {4}).size() > 1);
  CHECK(outcomes(lostUpdate, 2).size() > 1);
}

TEST(findsStoresOutOfBounds) {
  CHECK(stopsOutOfBounds([] { run(storesBehindShared, threads); }, {"0 bytes behind the end", "small", "40 bytes"}));
  CHECK(stopsOutOfBounds([] { run(storesBeforeShared, threads); }, {"4 bytes before the start", "small"}));
  CHECK(stopsOutOfBounds([] { run(storesBehindGlobal, threads); }, {"0 bytes behind the end", "device memory"}));
  CHECK(stopsOutOfBounds([] { run(storesBeforeGlobal, threads); }, {"12 bytes before the start", "device memory"}));
}

TEST(findsTooMuchSharedMemory) {
  CHECK(faults([] { run(tooMuchShared, threads); }, {"large", "49160", "49152"}));
}

TEST(refusesImpossibleLaunches) {
  CHECK(faults([] { run(raceOfThreads, 1, {}, 1025); }, {"1025 threads"}));
  CHECK(faults([] { run(raceOfThreads, 1, {0}); }, {"grid of 0x1x1"}));
}

TEST(uploadsBesideKernelsLandWhenTheyAreJoined) {
  const int32_t sent[] = {1, 2, 3};
  auto* const to = static_cast<int32_t*>(simt::allocate(3 * sizeof(int32_t)));
  CHECK(faults([&] { simt::uploadBeside(to, sent, sizeof sent); }, {"allocated since the last join"}));
  simt::joinUploads();
  const simt::Access access;
  simt::uploadBeside(to, sent, 2 * sizeof(int32_t));
  simt::uploadBeside(to + 2, sent + 2, sizeof(int32_t));
  int32_t poison;
  std::memcpy(&poison, &simt::poison, sizeof poison);
  CHECK(to[0] == poison && to[2] == poison);  // what a kernel without a join reads
  CHECK(faults([&] { simt::release(to); }, {"an upload is on its way"}));
  simt::joinUploads();
  CHECK(to[0] == 1 && to[1] == 2 && to[2] == 3);
  CHECK(faults([&] { simt::uploadBeside(to, sent, 4); }, {"handed over to kernels"}));
  simt::joinUploads();
  simt::uploadBeside(to, sent + 1, 4);
  simt::joinUploads();
  CHECK(to[0] == 2);
  CHECK(faults([&] { simt::uploadBeside(to + 2, sent, 8); }, {"not allocated"}));
  simt::release(to);
}

TEST(goesOnAfterAFault) {
  CHECK(faults([] { run(laneMissing, threads); }, {"deadlock"}));
  CHECK(outcomes(sumNeighbours, threads).size() == 1);
  CHECK(simt::liveAllocations() == 0);
}

TEST_MAIN()
