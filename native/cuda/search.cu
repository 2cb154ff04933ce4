#include "cuda/families.h"
#include "cuda/kernels/int8_codes.cuh"
#include "cuda/kernels/pair_scores.cuh"
#include "cuda/kernels/rank_counts.cuh"
#include "cuda/kernels/select_topk.cuh"
#include "cuda/kernels/squared_norms.cuh"
#include "cuda/kernels/topk.cuh"
#include "cuda/kernels/topk_binary.cuh"
#include "cuda/kernels/topk_int8.cuh"

namespace topknot::cuda {

void addSearch(Backend& table) {
  table.topk = [](const Exec& exec, const TopkArgs& args) { return topk(exec, args); };
  table.topkInt8 = [](const Exec& exec, const TopkInt8Args& args) { return topkInt8(exec, args); };
  table.topkBinary = [](const Exec& exec, const TopkBinaryArgs& args) { return topkBinary(exec, args); };
  table.selectTopk = [](const Exec& exec, const SelectTopkArgs& args) { return selectTopk(exec, args); };
  table.rankCounts = [](const Exec& exec, const RankCountsArgs& args) { return rankCounts(exec, args); };
  table.int8Codes = int8Codes;
  table.pairScores = pairScores;
  table.squaredNorms = squaredNorms;
}

}  // namespace topknot::cuda
