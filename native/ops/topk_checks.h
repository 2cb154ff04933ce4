// What every operation of exact search checks of its arguments.
#pragma once
#include "backend/topk_args.h"
#include "core/job.h"
#include "core/tensor.h"
#include "core/thread_pool.h"
#include "ops/types.h"

namespace topknot {

MatrixView matrix(const Tensor& t);
/// A float32, float16 or bfloat16 matrix.
FloatMatrixView floatMatrix(const Tensor& t);

/// Throws ERR_DTYPE unless t is float32, float16 or bfloat16; ERR_SHAPE unless it is a matrix.
void expectFloats(const Tensor& t, const char* name);
/// Throws ERR_VALUE for NaN and infinities, naming the row. t holds floats, on any device.
void expectFinite(const Tensor& t, const char* name, const Exec& exec = {});
/// Two matrices with the same number of columns, on the same device; items may be of 16 bits where `half`.
void expectMatching(const Tensor& queries, const char* queriesName, const Tensor& items, bool half = false);
void expectK(int64_t k, int64_t items);
/// Room for the k best of each query where they are found. On a GPU ids and scores lie in one piece, so that one copy,
/// and one wait, brings both to the host.
class TopkAnswer {
 public:
  TopkAnswer(Device device, int64_t queries, int64_t k);
  int32_t* ids() const { return found_.ids.data<int32_t>(); }
  float* scores() const { return found_.scores.data<float>(); }
  TopkResult onHost() const;

 private:
  Tensor piece_;  // on a GPU
  TopkResult found_;
};

/// ops::topk of queries that are known to be finite.
TopkResult topkOfFinite(Job& job, const Tensor& queries, const Tensor& items, std::optional<Tensor> itemNorms,
                        int64_t k, Metric metric, Filter filter);

/// The filter's tensors are on the host, where they are checked.
FilterView checked(const Filter& filter, int64_t queries, int64_t items);
/// The same, then moved to `device`: the view lasts as long as `filter`.
FilterView checked(Filter& filter, int64_t queries, int64_t items, Device device);

}  // namespace topknot
