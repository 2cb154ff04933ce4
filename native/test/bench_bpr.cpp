// bench_bpr DIR [factors=64] [uniform|popularity|hard] [epochs=10] [threads=4] [hogwild] [biases]: seconds for each epoch of
// BPR on the matrix in DIR (indptr.i32, indices.i32), and the mean loss.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "backend/registry.h"
#include "models/bpr.h"

using namespace topknot;

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
double cpuNow() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

std::vector<int32_t> readFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  require(file.good(), ErrorCode::io, path, ": cannot be read");
  std::vector<int32_t> out(static_cast<size_t>(file.tellg()) / 4);
  file.seekg(0);
  file.read(reinterpret_cast<char*>(out.data()), static_cast<std::streamsize>(out.size() * 4));
  return out;
}

Csr read(const std::string& dir) {
  const std::vector<int32_t> ptr = readFile(dir + "/indptr.i32"), ids = readFile(dir + "/indices.i32");
  Csr m{Tensor::host<int64_t>({static_cast<int64_t>(ptr.size())}),
        Tensor::host<int32_t>({static_cast<int64_t>(ids.size())}),
        Tensor::host<float>({static_cast<int64_t>(ids.size())}), *std::max_element(ids.begin(), ids.end()) + 1};
  std::copy(ptr.begin(), ptr.end(), m.indptr.data<int64_t>());
  std::copy(ids.begin(), ids.end(), m.indices.data<int32_t>());
  std::fill_n(m.values.data<float>(), m.nnz(), 1.0f);
  return m;
}

}  // namespace

int main(int argc, char** argv) try {
  require(argc > 1, ErrorCode::argument, "usage: bench_bpr DIR [factors] [sampling] [epochs] [threads] [hogwild] [biases]");
  BprOptions o;
  o.factors = argc > 2 ? std::atoi(argv[2]) : 64;
  const std::string sampling = argc > 3 ? argv[3] : "uniform";
  o.negativeSampling = sampling == "hard"         ? BprSampling::hard
                       : sampling == "popularity" ? BprSampling::popularity
                                                  : BprSampling::uniform;
  o.iterations = argc > 4 ? std::atoi(argv[4]) : 10;
  setThreadCount(argc > 5 ? std::atoi(argv[5]) : 4);
  o.hogwild = argc > 6 && !std::strcmp(argv[6], "hogwild");
  o.biases = argc > 7 && !std::strcmp(argv[7], "biases");
  const Csr users = read(argv[1]);
  Job job;
  double last = 0, lastCpu = 0;
  std::vector<double> wall, cpu;
  job.listen([&](const Progress& p) {
    if (p.done > 0) {
      wall.push_back(now() - last);
      cpu.push_back(cpuNow() - lastCpu);
    }
    last = now();
    lastCpu = cpuNow();
  });
  const BprFactors model = ops::bprFit(job, users, {}, {}, {}, o);
  std::sort(wall.begin(), wall.end());
  std::sort(cpu.begin(), cpu.end());
  const double n = static_cast<double>(users.nnz());
  o.iterations = 1;
  o.computeLoss = true;
  Job again;
  const BprFactors more = ops::bprFit(again, users, model.userFactors, model.itemFactors, model.itemBiases, o);
  std::printf("%lld x %lld, %lld positives, f=%lld %s%s, %d threads, isa %s, %lld parts: best %.4f s, median %.4f s, %.1f M "
              "samples/s; processor %.0f ns a sample; loss %.4f\n",
              (long long)users.rows(), (long long)users.cols, (long long)users.nnz(), (long long)o.factors,
              sampling.c_str(), o.hogwild ? " hogwild" : "", threadCount(), cpuBackend().isa,
              (long long)bprParts(users.rows(), users.cols, users.nnz(), o.hogwild), wall.front(),
              wall[wall.size() / 2], n / wall.front() / 1e6, cpu.front() / n * 1e9, more.loss[0]);
} catch (const Error& e) {
  std::printf("%s\n", e.what());
  return 1;
}
