// The device bodies of cuda/ptx.h on a GPU, against the same tables as their emulation: `ptx_check` prints what is
// wrong and exits 1; 77 where there is no GPU. Those of cuda/ptx90.h are checked where the GPU and the build have them.
#include <cstdio>

#include "cuda/sm90a.h"
#include "test/ptx90_kernels.cuh"

namespace {

struct Gpu {
  ~Gpu() {
    for (void* data : given) cudaFree(data);
  }
  template <typename T>
  T* give(const std::vector<T>& host) {
    void* data = nullptr;
    note(cudaMalloc(&data, host.size() * sizeof(T)));
    note(cudaMemcpy(data, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
    given.push_back(data);
    return static_cast<T*>(data);
  }
  template <typename T>
  void take(std::vector<T>& host, const T* data) {
    note(cudaMemcpy(host.data(), data, host.size() * sizeof(T), cudaMemcpyDeviceToHost));
  }
  template <typename... Params>
  void launch(void (*kernel)(Params...), unsigned threads, std::type_identity_t<Params>... args) {
    kernel<<<1, threads>>>(args...);
    note(cudaGetLastError());
  }
  void note(cudaError_t answer) {
    if (answer == cudaSuccess) return;
    std::printf("CUDA answered %s\n", cudaGetErrorString(answer));
    failed = true;
  }
  std::vector<void*> given;
  bool failed = false;
};

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("no GPU: nothing was checked\n");
    return 77;
  }
  Gpu gpu;
  std::vector<const char*> wrong = topknot::cuda::checkPtx(gpu);
  if (wrong.empty() && !gpu.failed) std::printf("every wrapper of cuda/ptx.h agrees with the PTX tables\n");
  topknot::cuda::Queue queue(topknot::Exec{});
  if (topknot::cuda::sm90aRuns(queue)) {
    const std::vector<const char*> more = topknot::cuda::checkPtx90(gpu);
    if (more.empty() && !gpu.failed) std::printf("every wrapper of cuda/ptx90.h agrees with the PTX tables\n");
    wrong.insert(wrong.end(), more.begin(), more.end());
  } else {
    std::printf("cuda/ptx90.h was not checked: it needs compute capability 9.0 and a build for 90a-real\n");
  }
  for (const char* name : wrong) std::printf("%s differs from the PTX tables\n", name);
  return wrong.empty() && !gpu.failed ? 0 : 1;
}
