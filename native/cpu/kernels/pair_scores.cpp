// Scores of given (user, item) pairs; the same bits that topk returns for them.
#include "backend/topk_args.h"
#include "cpu/kernels/guard.h"
#include "cpu/kernels/pair_score.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/pair_scores.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {

Status pairScores(const Exec& exec, const PairScoresArgs& a) {
  return guard([&] {
    parallelFor(a.count, 4096, exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t j = begin; j < end; ++j) {
        a.out[j] = static_cast<float>(pairDot(a.users.row(a.userIds[j]), a.items.row(a.itemIds[j]), a.items.cols));
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
