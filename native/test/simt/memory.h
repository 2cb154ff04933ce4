// The emulator's memory. Everything starts as poison (a signalling NaN in every float) and lies between guard zones:
// a store just outside is found when the kernel or block ends, and at once under the address sanitizer.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace simt {

inline constexpr uint32_t poison = 0x7fa5a5a5u;
inline constexpr size_t guardBytes = 128;

/// "Device" memory, of as many bytes as the emulated device has; null when there is not enough left. release() of what
/// allocate() did not give is a fault, as is a second one. From any thread.
inline constexpr size_t deviceBytes = size_t{1} << 30;
void* allocate(size_t bytes);
void release(void* data);
size_t liveAllocations();
size_t liveBytes();
/// The most that was live since the last call of forgetPeak().
size_t peakBytes();
void forgetPeak();

/// Device memory is open to reads and writes while one of these lives, as during kernels and copies. The host's own
/// touch of it at any other time is a segmentation fault, as with a GPU's.
class Access {
 public:
  Access();
  ~Access();
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;
};

/// Throws a Fault when a guard zone of a live allocation has changed. Within an Access.
void checkGuards(const char* kernel);

// Uploads beside the kernels (cuda/upload_stream.h). They land when they are joined, so that a missing join shows in
// what kernels read.

/// Throws a Fault for memory that kernels issued since the last join may be using: that was allocated since then, or
/// was handed over by it.
void uploadBeside(void* to, const void* from, size_t bytes);
void joinUploads();

/// The shared memory of the block that runs. A variable is known by the address of its tag.
class SharedMemory {
 public:
  static constexpr size_t limit = 48 << 10;  // what a kernel may declare statically
  static constexpr size_t window =
      256 << 10;  // addresses of shared memory, from base() on; it is aligned to 1024 bytes
  SharedMemory();
  ~SharedMemory();

  void startBlock();
  /// A dynamic variable does not count towards the limit of what is declared.
  void* variable(const void* tag, const char* name, size_t bytes, bool dynamic = false);
  void endBlock(const char* kernel);
  char* base() { return base_; }
  const char* base() const { return base_; }
  /// Whether all of it is of one variable.
  bool declares(const char* data, size_t bytes) const;
  /// Calls f(data, bytes) for each variable.
  template <typename F>
  void forVariables(F&& f) {
    for (const Variable& v : variables_) f(v.data, v.bytes);
  }
  bool holds(const void* data) const { return data >= base_ && data < base_ + window; }

 private:
  struct Variable {
    const void* tag;
    const char* name;
    char* data;
    size_t bytes;
  };
  std::vector<char> arena_;
  char* base_;
  std::vector<Variable> variables_;
  size_t used_ = 0, declared_ = 0;
};

}  // namespace simt
