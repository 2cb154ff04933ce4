// The parts of the exact index: codes, rows that are kept, tensors put on a device. index_search.cpp searches them.
#include <algorithm>
#include <cstring>

#include "backend/memory.h"
#include "backend/registry.h"
#include "ops/ops.h"
#include "ops/queued.h"
#include "ops/topk_checks.h"

namespace topknot {
namespace ops {

Int8Codes int8Codes(Job& job, Tensor vectors, bool unit) {
  expectFloats(vectors, "vectors");
  require(vectors.cols() >= 1, ErrorCode::shape, "vectors: expected at least one column");
  require(vectors.cols() <= 1 << 17, ErrorCode::shape,
          "vectors: expected at most 131072 columns under storage 'int8', whose sums "
          "are 32-bit, but received ",
          vectors.cols());
  const int64_t rows = vectors.rows();
  Int8Codes out{Tensor::host<uint8_t>(vectors.shape), Tensor::host<float>({rows}), Tensor::host<float>({rows})};
  const Int8CodesArgs args{.items = floatMatrix(vectors),
                           .unit = unit,
                           .codes = out.codes.data<uint8_t>(),
                           .scales = out.scales.data<float>(),
                           .residuals = out.residuals.data<float>()};
  run(vectors.device(), &Backend::int8Codes, "int8Codes", job.exec(), args);
  job.checkCancelled();
  return out;
}

std::vector<Tensor> indexPlace(Job& job, std::vector<Tensor> tensors, std::string device,
                               std::optional<int64_t> bytes) {
  const Device target = deviceNamed(device);
  int64_t total = 0;
  for (const Tensor& t : tensors) total += static_cast<int64_t>(t.bytes());
  if (!fits(total, target, bytes)) return {};
  std::vector<Tensor> out;
  try {
    for (const Tensor& t : tensors) {
      waitFor(t);
      out.push_back(copyTo(t, target));
      job.checkCancelled();
    }
  } catch (const Error& error) {
    if (error.code() != ErrorCode::memory) throw;
    return {};  // others took the memory, or there was less of it in one piece
  }
  return out;
}

Tensor keepRows(Job& job, std::vector<Tensor> parts, std::vector<std::optional<Tensor>> kept) {
  require(!parts.empty() && parts.size() == kept.size(), ErrorCode::shape,
          "kept: expected a bitmap or undefined for each of ", parts.size(), " parts but received ", kept.size());
  for (Tensor& part : parts) part = copyTo(part, Device{});
  const Tensor& first = parts[0];
  struct Run {  // of adjacent rows that stay together
    const char* from;
    int64_t to, bytes;
  };
  int64_t rows = 0;
  std::vector<Run> runs;
  const int64_t width = first.rank() == 2 ? first.cols() : 1;
  const int64_t bytes = width * static_cast<int64_t>(sizeOf(first.dtype));
  for (size_t p = 0; p < parts.size(); ++p) {
    expect(parts[p], "parts", first.dtype, first.rank());
    require(first.rank() == 1 || (first.rank() == 2 && parts[p].cols() == width), ErrorCode::shape,
            "parts: expected vectors or matrices of ", width, " columns but received shape ", text(parts[p].shape));
    const FilterView filter = checked({kept[p], {}, {}}, 0, parts[p].rows());
    for (int64_t i = 0; i < parts[p].rows();) {
      const auto keeps = [&](int64_t r) { return !filter.allowed || (filter.allowed[r / 64] >> (r % 64) & 1); };
      int64_t end = i;
      while (end < parts[p].rows() && end - i < 4096 && keeps(end)) ++end;
      if (end > i) {
        runs.push_back({parts[p].data<char>() + i * bytes, rows * bytes, (end - i) * bytes});
        rows += end - i;
      }
      i = std::max(end, i + 1);
    }
  }
  Tensor out = Tensor::host(first.dtype, first.rank() == 2 ? Shape{rows, width} : Shape{rows});
  parallelFor(static_cast<int64_t>(runs.size()), 64, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) std::memcpy(out.data<char>() + runs[r].to, runs[r].from, runs[r].bytes);
  });
  job.checkCancelled();
  return out;
}

}  // namespace ops
}  // namespace topknot
