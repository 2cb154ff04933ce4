// A SIMT emulator: runs CUDA kernels that keep to the style of cuda/simt.h as plain C++, so that their logic is tested
// where there is no GPU. Each CUDA thread is a fiber; blocks run one after another. It cannot show speed, weak memory
// ordering or the scheduling of real warps.
//
// What it finds, as a Fault: divergent barriers, threads that end while others wait, warp collectives whose mask names
// a lane that never comes (a deadlock), lanes read outside the mask, stores outside memory, too much shared memory.
// A missing barrier or a race shows as results that differ between schedules: run under everySchedule().
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "test/simt/memory.h"

namespace simt {

struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The order in which the threads of a block, and the blocks of a grid, get their turns.
struct Schedule {
  enum Order { forward, reverse, random } order = forward;
  uint64_t seed = 0;  // of `random`, which also lets other threads in before an atomic
};
void setSchedule(Schedule schedule);
/// Forward, reverse and three random ones.
std::vector<Schedule> schedules();
/// Calls body under each of schedules(), then goes back to forward.
template <typename F>
void everySchedule(F&& body) {
  for (const Schedule& schedule : schedules()) {
    setSchedule(schedule);
    body();
  }
  setSchedule({});
}

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

/// Runs `thread` once for every thread of the grid. Throws a Fault, or what a thread threw.
void runGrid(const char* kernel, Dim3 grid, unsigned threads, const std::function<void()>& thread);

template <typename... Params>
void launch(const char* name, void (*kernel)(Params...), Dim3 grid, unsigned threads,
            std::type_identity_t<Params>... args) {
  runGrid(name, grid, threads, [&] { kernel(args...); });
}

// What the device functions below are made of.
using At = std::source_location;
enum class Collective { shuffle, ballot, sync, together };
/// Waits for every lane of the mask. A shuffle answers the value of lane `source`, a ballot the lanes with value != 0.
uint64_t exchange(Collective kind, const char* name, unsigned mask, uint64_t value, unsigned source, const At& at);
/// Waits for the block; answers how many threads came with `vote`.
int barrier(const char* name, bool vote, const At& at);
void* sharedVariable(const void* tag, const char* name, size_t bytes);
/// Of the launches that follow.
void setDynamicShared(size_t bytes);
void* dynamicShared();
/// Before an atomic: lets other threads run, now and then, under a random schedule.
void preempt();
/// Whether the hardware does early what it may do late: now and then, under a random schedule.
bool early();
/// Waits until ready(what).
void waitUntil(const char* name, bool (*ready)(void*), void* what, const At& at);
/// A barrier of whole warps, `threads` in all, by number.
void syncSome(int id, int threads, const At& at);

/// The block's shared memory, and where in it an address of it is; Fault if it is not.
SharedMemory& sharedMemory();
size_t sharedOffset(const void* data);

template <typename T>
T shuffle(const char* name, unsigned mask, T value, unsigned source, const At& at) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = exchange(Collective::shuffle, name, mask, bits, source, at);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
unsigned laneId();
/// An instruction of the whole warp: when all 32 lanes are there, work runs once with what each of them gave.
void together(const char* name, void* mine, void (*work)(void* const* lanes), const At& at);

// Asynchronous copies of a thread, in groups. They are carried out when their thread waits for them, so a missing wait
// shows in what is read; under a random schedule some are carried out at once too; a thread that ends with copies it
// never waited for is a Fault.
void copyLater(void* to, const void* from, size_t bytes, size_t valid, const At& at);  // zeros behind `valid` bytes
void commitCopies();
void waitForCopies(size_t groupsLeft);

template <typename T, typename F>
T atomic(T* data, F&& change) {
  preempt();
  const T old = *data;
  *data = change(old);
  return old;
}

}  // namespace simt

// From here on, CUDA's own names.
using dim3 = simt::Dim3;
inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

#define __global__ [[maybe_unused]] static
#define __device__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define SIMT_SHARED(Type, name, count) \
  static const char name##Tag = 0;     \
  Type* const name = static_cast<Type*>(simt::sharedVariable(&name##Tag, #name, sizeof(Type) * (count)))

#define SIMT_DEVICE inline
#define SIMT_LOCAL  // every kernel is static here
#define SIMT_UNROLL
#define SIMT_ROLLED
#define SIMT_AT , simt::At at = simt::At::current()
#define SIMT_DYNAMIC_SHARED(name) unsigned char* const name = static_cast<unsigned char*>(simt::dynamicShared())

inline void __syncthreads(simt::At at = simt::At::current()) { simt::barrier("__syncthreads", false, at); }
inline int __syncthreads_or(int vote, simt::At at = simt::At::current()) {
  return simt::barrier("__syncthreads_or", vote != 0, at) > 0;
}
inline int __syncthreads_and(int vote, simt::At at = simt::At::current()) {
  return simt::barrier("__syncthreads_and", vote == 0, at) == 0;
}
inline int __syncthreads_count(int vote, simt::At at = simt::At::current()) {
  return simt::barrier("__syncthreads_count", vote != 0, at);
}

inline void __syncwarp(unsigned mask, simt::At at = simt::At::current()) {
  simt::exchange(simt::Collective::sync, "__syncwarp", mask, 0, 0, at);
}
inline unsigned __ballot_sync(unsigned mask, int vote, simt::At at = simt::At::current()) {
  return static_cast<unsigned>(simt::exchange(simt::Collective::ballot, "__ballot_sync", mask, vote != 0, 0, at));
}
inline int __any_sync(unsigned mask, int vote, simt::At at = simt::At::current()) {
  return simt::exchange(simt::Collective::ballot, "__any_sync", mask, vote != 0, 0, at) != 0;
}
inline int __all_sync(unsigned mask, int vote, simt::At at = simt::At::current()) {
  return simt::exchange(simt::Collective::ballot, "__all_sync", mask, vote != 0, 0, at) == mask;
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, simt::At at = simt::At::current()) {
  const unsigned lane = simt::laneId(), first = lane & ~(width - 1u);
  return simt::shuffle("__shfl_sync", mask, value, first + (static_cast<unsigned>(source) & (width - 1u)), at);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, simt::At at = simt::At::current()) {
  const unsigned lane = simt::laneId(), source = lane ^ static_cast<unsigned>(lanes);
  // A source in a later group of `width` lanes is out of reach: the lane keeps its own value.
  const bool reach = source < (lane & ~(width - 1u)) + static_cast<unsigned>(width);
  return simt::shuffle("__shfl_xor_sync", mask, value, reach ? source : lane, at);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32, simt::At at = simt::At::current()) {
  const unsigned lane = simt::laneId(), within = lane & (width - 1u);
  return simt::shuffle("__shfl_up_sync", mask, value, within >= lanes ? lane - lanes : lane, at);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32, simt::At at = simt::At::current()) {
  const unsigned lane = simt::laneId(), within = lane & (width - 1u);
  return simt::shuffle("__shfl_down_sync", mask, value,
                       within + lanes < static_cast<unsigned>(width) ? lane + lanes : lane, at);
}

template <typename T>
T atomicAdd(T* data, std::type_identity_t<T> value) {
  return simt::atomic(data, [&](T old) { return static_cast<T>(old + value); });
}
template <typename T>
T atomicMin(T* data, std::type_identity_t<T> value) {
  return simt::atomic(data, [&](T old) { return value < old ? value : old; });
}
template <typename T>
T atomicMax(T* data, std::type_identity_t<T> value) {
  return simt::atomic(data, [&](T old) { return value > old ? value : old; });
}
template <typename T>
T atomicOr(T* data, std::type_identity_t<T> value) {
  return simt::atomic(data, [&](T old) { return static_cast<T>(old | value); });
}
template <typename T>
T atomicExch(T* data, std::type_identity_t<T> value) {
  return simt::atomic(data, [&](T) { return value; });
}
template <typename T>
T atomicCAS(T* data, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return simt::atomic(data, [&](T old) { return old == expected ? value : old; });
}

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline int __dp4a(int a, int b, int sum) {
  for (int i = 0; i < 32; i += 8) sum += static_cast<int8_t>(a >> i) * static_cast<int8_t>(b >> i);
  return sum;
}
inline double __dmul_rn(double a, double b) { return a * b; }
inline long long __double_as_longlong(double x) {
  long long bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline double __longlong_as_double(long long bits) {
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
