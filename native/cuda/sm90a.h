// Whether a call takes the kernels of compute capability 9.0a (ptx90.h). They have run under the emulator alone, so
// they are asked for by the environment variable TOPKNOT_SM90A=1; without it every GPU runs the kernels for 8.0.
#pragma once
#include <cstdlib>
#include <string_view>

#include "cuda/simt.h"

namespace topknot::cuda {

#if !defined(__CUDACC__) || defined(TOPKNOT_SM90A_CODE)
inline constexpr bool sm90aBuilt = true;
#else
inline constexpr bool sm90aBuilt = false;  // CMAKE_CUDA_ARCHITECTURES has no 90a
#endif

/// Whether this build's kernels for 9.0a can run on the queue's device. Such code runs on 9.0 and nothing else.
inline bool sm90aRuns(Queue& queue) { return sm90aBuilt && queue.capability() == 90; }

/// Whether the environment asks for them, as it did when this was first asked: getenv() beside a thread that sets
/// variables, as JavaScript may at any time, is a race. Tests under the emulator change it.
inline bool& sm90aWanted() {
  static bool wanted = [] {
    const char* value = std::getenv("TOPKNOT_SM90A");
    return value && std::string_view(value) == "1";
  }();
  return wanted;
}

/// True where they are asked for. The queue fails with ERR_DEVICE where they are asked for and cannot run.
inline bool sm90aChosen(Queue& queue) {
  if (!sm90aWanted()) return false;
  if (!sm90aBuilt) {
    queue.fail(failure(ErrorCode::device,
                       "TOPKNOT_SM90A=1, but the CUDA plugin was built without code for 90a: build it with 90a-real "
                       "among CMAKE_CUDA_ARCHITECTURES, or unset the variable"));
  } else if (const int capability = queue.capability(); capability != 90) {
    queue.fail(failure(ErrorCode::device,
                       "TOPKNOT_SM90A=1 asks for kernels of compute capability 9.0, but the GPU has %d.%d: unset the "
                       "variable",
                       capability / 10, capability % 10));
  }
  return queue.status().ok();
}

}  // namespace topknot::cuda
