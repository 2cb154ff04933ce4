// The CUDA backend's table with the emulator behind it: the plugin's own files of kernels, compiled as plain C++ into
// the library topknot_simt (test/CMakeLists.txt).
#pragma once
#include "cuda/kernels/als_rows.cuh"
#include "cuda/kernels/topk_scan.cuh"

namespace topknot::cuda {

/// How the emulated table splits the rows of a half-sweep: tests set it to reach every path on small shapes.
inline AlsPlan emulatedAlsPlan;
/// How the searches of the emulated table run, for the same reason.
inline TopkPlan emulatedPlan;

Backend emulatedBackend();

}  // namespace topknot::cuda
