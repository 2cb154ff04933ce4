// Measures what this machine can do at best, for the benchmarks. Rates hold for this process's threads and ISA.
#include <chrono>

#include "backend/registry.h"
#include "ops/ops.h"

namespace topknot {
namespace {

void expectPasses(int64_t passes) {
  require(passes >= 1 && passes <= 1000, ErrorCode::range, "passes: expected 1 to 1000 but received ", passes);
}

/// Calls pass(), which returns the work it did, and gives billions of units of work a second for each call.
template <typename F>
std::vector<double> rates(Job& job, int64_t passes, F&& pass) {
  std::vector<double> out;
  for (int64_t i = 0; i < passes; ++i) {
    job.checkCancelled();
    const auto start = std::chrono::steady_clock::now();
    const double work = pass();
    out.push_back(work / std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count());
  }
  return out;
}

}  // namespace

namespace ops {

std::vector<double> measureRead(Job& job, Tensor data, int64_t passes) {
  expect(data, "data", DType::float32, -1);
  expectPasses(passes);
  return rates(job, passes, [&] {
    double sum;
    run(cpuBackend(), &Backend::measureRead, "measureRead", job.exec(),
        MeasureReadArgs{data.data<float>(), data.count(), &sum});
    return static_cast<double>(data.bytes());
  });
}

std::vector<double> measureRows(Job& job, Tensor table, Tensor ids, bool write) {
  expect(table, "table", DType::float32, 2);
  expect(ids, "ids", DType::int32, -1);
  require(table.cols() >= 1, ErrorCode::shape, "table: expected at least one column");
  for (int32_t id : ids.span<int32_t>()) {
    require(id >= 0 && id < table.rows(), ErrorCode::range, "ids: expected 0 to ", table.rows() - 1, " but received ",
            id);
  }
  return rates(job, 1, [&] {
    double sum;
    run(cpuBackend(), &Backend::measureRows, "measureRows", job.exec(),
        MeasureRowsArgs{table.data<float>(), table.cols(), ids.data<int32_t>(), ids.count(), write, &sum});
    return static_cast<double>(ids.count() * table.cols() * 4);
  });
}

std::vector<double> measureFma(Job& job, int64_t passes) {
  expectPasses(passes);
  return rates(job, passes, [&] {
    double sum;
    int64_t flops;
    // 16 tasks a thread: a thread that is held up does not hold up the others for long. 0.5 and 1 keep x finite.
    run(cpuBackend(), &Backend::measureFma, "measureFma", job.exec(),
        MeasureFmaArgs{threadCount() * int64_t{16}, 0.5f, 1.0f, &sum, &flops});
    return static_cast<double>(flops);
  });
}

}  // namespace ops
}  // namespace topknot
