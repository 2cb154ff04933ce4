// The device bodies of cuda/ptx.h on a GPU, against the same tables as their emulation: `ptx_check` prints what is
// wrong and exits 1; 77 where there is no GPU.
#include <cstdio>

#include "test/ptx_kernels.cuh"

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
  const std::vector<const char*> wrong = topknot::cuda::checkPtx(gpu);
  for (const char* name : wrong) std::printf("%s differs from the PTX tables\n", name);
  if (wrong.empty() && !gpu.failed) std::printf("every wrapper of cuda/ptx.h agrees with the PTX tables\n");
  return wrong.empty() && !gpu.failed ? 0 : 1;
}
