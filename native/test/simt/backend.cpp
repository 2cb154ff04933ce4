#include "test/simt/backend.h"

#include <cstring>

#include "cuda/families.h"
#include "cuda/kernels/als_cg.cuh"
#include "cuda/kernels/als_cholesky.cuh"
#include "cuda/kernels/rank_counts.cuh"
#include "cuda/kernels/select_topk.cuh"
#include "cuda/kernels/topk.cuh"
#include "cuda/kernels/topk_binary.cuh"
#include "cuda/kernels/topk_int8.cuh"

namespace topknot::cuda {
namespace {

Status emulatedCopy(const Exec& exec, void* to, const void* from, size_t bytes) {
  const Queue queue(exec);
  const simt::Access access;
  if (bytes > 0 && queue.status().ok()) std::memcpy(to, from, bytes);
  return queue.status();
}

}  // namespace

Backend emulatedBackend() {
  Backend table{.name = "cuda", .isa = "simt"};
  table.allocate = [](const Exec& exec, size_t bytes, void** out) {
    Queue queue(exec);
    *out = queue.allocate(bytes);
    return queue.status();
  };
  table.release = [](const Exec&, void* data) {
    try {
      simt::release(data);
    } catch (const simt::Fault& fault) {
      return failure(ErrorCode::internal, "%s", fault.what());
    }
    return Status{};
  };
  table.upload = emulatedCopy;
  table.download = emulatedCopy;
  table.copy = emulatedCopy;
  table.uploadBeside = [](const Exec& exec, void* to, const void* from, size_t bytes) {
    const Queue queue(exec);
    try {
      if (bytes > 0 && queue.status().ok()) simt::uploadBeside(to, from, bytes);
    } catch (const simt::Fault& fault) {
      return failure(ErrorCode::internal, "%s", fault.what());
    }
    return queue.status();
  };
  table.joinUploads = [](const Exec& exec) {
    simt::joinUploads();
    return Queue(exec).status();
  };
  addKernels(table);
  table.alsCholesky = [](const Exec& exec, const AlsArgs& args) { return alsCholesky(exec, args, emulatedAlsPlan); };
  table.alsCg = [](const Exec& exec, const AlsArgs& args) { return alsCg(exec, args, emulatedAlsPlan); };
  table.topk = [](const Exec& exec, const TopkArgs& args) { return topk(exec, args, emulatedPlan); };
  table.topkInt8 = [](const Exec& exec, const TopkInt8Args& args) { return topkInt8(exec, args, emulatedPlan); };
  table.topkBinary = [](const Exec& exec, const TopkBinaryArgs& args) { return topkBinary(exec, args, emulatedPlan); };
  table.selectTopk = [](const Exec& exec, const SelectTopkArgs& args) { return selectTopk(exec, args, emulatedPlan); };
  table.rankCounts = [](const Exec& exec, const RankCountsArgs& args) {
    return rankCounts(exec, args, emulatedPlan.slices);
  };
  return table;
}

}  // namespace topknot::cuda
