// Top-k over scores that are already there, the CUDA side of cpu/kernels/select_topk.cpp. Nothing is computed, so both
// devices give the same answers.
#pragma once
#include "cuda/kernels/topk_scan.cuh"

namespace topknot::cuda {

/// A Source. Neighbouring threads read neighbouring scores.
struct StoredScores {
  static constexpr bool sharesItems = false;
  MatrixView stored;

  template <int Q>
  __device__ void scores(int64_t firstQuery, int64_t firstItem, float (&out)[Q]) const {
    static_assert(Q == 1);
    const int64_t item = firstItem + threadIdx.x;
    out[0] = item < stored.cols ? stored.data[firstQuery * stored.cols + item] : 0.0f;
  }
};

/// The `selectTopk` slot.
inline Status selectTopk(const Exec& exec, const SelectTopkArgs& a, const TopkPlan& plan = {}) {
  Queue queue(exec);
  topkSearch(queue, exec, {a.scores.rows, a.scores.cols, a.k, a.filter}, StoredScores{a.scores},
             ScoredIds(a.k, a.ids, a.out, false), plan);
  return queue.status();
}

}  // namespace topknot::cuda
