// A backend is a struct of functions: one row of memory functions and one slot for each kernel in kernels.def. The
// CPU has one such table for each instruction set; the CUDA plugin hands one over across a C boundary.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend/als_args.h"
#include "backend/attention_args.h"
#include "backend/blocks_args.h"
#include "backend/bpr_args.h"
#include "backend/checks_args.h"
#include "backend/copy_args.h"
#include "backend/embedding_args.h"
#include "backend/hnsw_args.h"
#include "backend/limits_args.h"
#include "backend/logistic_mf_args.h"
#include "backend/linalg_args.h"
#include "backend/matmul_args.h"
#include "backend/neighbours_args.h"
#include "backend/nmf_args.h"
#include "backend/spmm_args.h"
#include "backend/rating_args.h"
#include "backend/status.h"
#include "backend/topk_args.h"
#include "core/thread_pool.h"

namespace topknot {

inline constexpr uint32_t backendAbi = 3;  // raised when what crosses to the plugin changes, but for kernels.def

struct Backend {
  uint32_t abi = backendAbi;
  const char* name = nullptr;  // "cpu" or "cuda"
  const char* isa = nullptr;   // "baseline", "avx2", "avx512", "neon", "sm_90", ...

  // Device memory, in the order of issue; null on the CPU, whose memory is Buffer::host. An upload returns when it
  // needs the host's memory no more, a download when all is there.
  Status (*allocate)(const Exec&, size_t bytes, void** out) = nullptr;
  Status (*release)(const Exec&, void* data) = nullptr;
  Status (*upload)(const Exec&, void* device, const void* host, size_t bytes) = nullptr;
  Status (*download)(const Exec&, void* host, const void* device, size_t bytes) = nullptr;
  Status (*copy)(const Exec&, void* to, const void* from, size_t bytes) = nullptr;  // within the device
  // Uploads that run beside the kernels, in an order of their own (backend/block_stream.h). A join brings the two
  // orders together: what is issued after it waits for the uploads before it, and uploads after it for what was issued
  // before.
  Status (*uploadBeside)(const Exec&, void* device, const void* host, size_t bytes) = nullptr;
  Status (*joinUploads)(const Exec&) = nullptr;

#define KERNEL(stem, Args) Status (*stem)(const Exec&, const Args&) = nullptr;
#include "backend/kernels.def"
#undef KERNEL
};

}  // namespace topknot
