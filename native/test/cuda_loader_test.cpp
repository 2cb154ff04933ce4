// Opening the CUDA plugin: one message for each way in which it can fail, and the way to a working table.
#include <cstdlib>
#include <fstream>
#include <string>

#include "backend/cuda_loader.h"
#include "backend/registry.h"
#include "test/check.h"

using namespace topknot;

namespace {

const std::string emulated = TOPKNOT_SIMT_PLUGIN_PATH;

Cuda loadAs(const char* role) {
  setenv("TOPKNOT_SIMT_PLUGIN", role, 1);
  const Cuda cuda = loadCuda(emulated);
  return cuda;
}

void checkSays(const std::string& text, std::initializer_list<const char*> parts) {
  for (const char* part : parts) {
    const bool says = text.find(part) != std::string::npos;
    if (!says) std::printf("'%s' does not say '%s'\n", text.c_str(), part);
    CHECK(says);
  }
}

void checkRefused(const Cuda& cuda, std::initializer_list<const char*> parts) {
  CHECK(cuda.plugin == nullptr && cuda.devices == 0);
  checkSays(cuda.problem, parts);
  CHECK_THROWS(cudaBackend(cuda, 0), device);
}

}  // namespace

TEST(missing) {
  checkRefused(loadCuda("/nowhere/libtopknot_cuda.so"), {"/nowhere/libtopknot_cuda.so", "nvcc", "'cpu'"});
}

TEST(notALibrary) {
  const std::string path = "cuda_loader_test.tmp.so";
  std::ofstream(path) << "text";
  checkRefused(loadCuda("./" + path), {"could not be opened", path.c_str()});
  std::remove(path.c_str());
}

TEST(notThePlugin) { checkRefused(loadCuda(TOPKNOT_OTHER_LIBRARY_PATH), {"is not topknot's CUDA plugin"}); }

TEST(otherAbi) {
  checkRefused(loadAs("old-abi"), {"another build", "it has 1", std::to_string(cudaAbi).c_str(), "together"});
}

TEST(noDriver) { checkRefused(loadAs("no-driver"), {"no NVIDIA driver", "(35)", "CUDA 13.0"}); }
TEST(oldDriver) { checkRefused(loadAs("old-driver"), {"supports CUDA 12.2", "13.0", "update the driver"}); }
TEST(noGpu) { checkRefused(loadAs("no-gpu"), {"shows no GPU", "(100)", "CUDA_VISIBLE_DEVICES"}); }

TEST(oldGpu) {
  const Cuda cuda = loadAs("old-gpu");
  CHECK(cuda.plugin);
  CHECK_THROWS(cudaBackend(cuda, 0), device);
}

TEST(givesTheTable) {
  const Cuda cuda = loadAs("");
  CHECK(cuda.problem.empty() && cuda.devices == 1);
  const Backend& backend = cudaBackend(cuda, 0);
  CHECK(std::string(backend.name) == "cuda");
  CHECK(backend.allocate && backend.release && backend.upload && backend.download && backend.topk);
  CHECK_THROWS(cudaBackend(cuda, 1), device);
  CHECK_THROWS(cudaBackend(cuda, -1), device);
}

TEST(theRegistryUsesIt) {
  // The one load of this process: TOPKNOT_CUDA_PLUGIN is read at the first question about CUDA.
  setenv("TOPKNOT_SIMT_PLUGIN", "", 1);
  setenv("TOPKNOT_CUDA_PLUGIN", emulated.c_str(), 1);
  const std::vector<DeviceInfo> all = devices();
  CHECK(all.size() == 2);
  CHECK(all[0].device == Device{} && all[0].totalBytes > 0 && !all[0].name.empty());
  CHECK((all[1].device == Device{Device::cuda, 0}) && all[1].isa == "sm_90" && all[1].name == "Emulated GPU");
  CHECK(cudaProblem().empty());
  CHECK(freeBytes({}) > 0 && freeBytes({Device::cuda, 0}) == int64_t{1} << 30);
  CHECK(std::string(backendOf({Device::cuda, 0}).isa) == "simt");
  CHECK_THROWS(backendOf({Device::cuda, 7}), device);
}

TEST_MAIN()
