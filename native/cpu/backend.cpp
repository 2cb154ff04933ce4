// The CPU's kernel tables, one for each instruction set. Highway compiles every file of kernels/ once per target into
// a namespace of its own; here the slots are filled from those namespaces.
#include <cstdlib>
#include <string>

#include "backend/registry.h"

namespace topknot {

#define KERNEL(stem, Args) Status stem(const Exec&, const Args&);
#if defined(__x86_64__)
namespace N_AVX3 {
#include "backend/kernels.def"
}
namespace N_AVX2 {
#include "backend/kernels.def"
}
namespace N_SSE4 {
#include "backend/kernels.def"
}
#else
namespace N_NEON {
#include "backend/kernels.def"
}
#endif
#undef KERNEL

namespace {

// Fills the table b from the namespace called `kernels` where it is used.
#define KERNEL(stem, Args) b.stem = kernels::stem;

#if defined(__x86_64__)
bool hasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c");
}
bool hasAvx512() {
  return hasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}
Backend avx512() {
  namespace kernels = N_AVX3;
  Backend b{.name = "cpu", .isa = "avx512"};
#include "backend/kernels.def"
  return b;
}
Backend avx2() {
  namespace kernels = N_AVX2;
  Backend b{.name = "cpu", .isa = "avx2"};
#include "backend/kernels.def"
  return b;
}
Backend baseline() {
  namespace kernels = N_SSE4;
  Backend b{.name = "cpu", .isa = "baseline"};
#include "backend/kernels.def"
  return b;
}
#else
Backend neon() {
  namespace kernels = N_NEON;
  Backend b{.name = "cpu", .isa = "neon"};
#include "backend/kernels.def"
  return b;
}
#endif
#undef KERNEL

std::atomic<const Backend*> chosen{nullptr};

const Backend* find(const std::string& isa) {
  std::string known;
  for (const Backend* b : cpuBackends()) {
    if (isa == b->isa) return b;
    known += std::string(known.empty() ? "" : ", ") + b->isa;
  }
  fail(ErrorCode::argument, "TOPKNOT_ISA: expected one of ", known, " on this machine but received '", isa, "'");
}

}  // namespace

std::vector<const Backend*> cpuBackends() {
#if defined(__x86_64__)
  static const Backend a = avx512(), b = avx2(), c = baseline();
  if (hasAvx512()) return {&a, &b, &c};
  if (hasAvx2()) return {&b, &c};
  return {&c};
#else
  static const Backend a = neon();
  return {&a};
#endif
}

void useIsa(const std::string& isa) { chosen = find(isa); }

const Backend& cpuBackend() {
  if (!chosen) {
    const char* wanted = std::getenv("TOPKNOT_ISA");
    chosen = wanted && *wanted ? find(wanted) : cpuBackends().front();
  }
  return *chosen;
}

}  // namespace topknot
