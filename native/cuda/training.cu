#include "cuda/families.h"
#include "cuda/kernels/bpr.cuh"
#include "cuda/kernels/logistic_mf.cuh"
#include "cuda/kernels/rating_sgd.cuh"
#include "cuda/kernels/svdpp.cuh"

namespace topknot::cuda {

void addTraining(Backend& table) {
  table.bpr = bpr;
  table.logisticMf = logisticMf;
  table.ratingSgd = ratingSgd;
  table.svdpp = svdpp;
}

}  // namespace topknot::cuda
