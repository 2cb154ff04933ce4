// What the kernel of Bayesian personalized ranking is given.
#pragma once
#include <cstdint>

#include "backend/own_items.h"

namespace topknot {

/// Some positives, handled one after the other, and where their negatives come from.
struct BprTask {
  int64_t begin, end;          // of the arrays of positives
  int64_t poolBegin, poolEnd;  // of the pool; fewer than 2^32 places
  uint64_t stream;             // of the random numbers: Random(seed, stream)
};

/// What came of a task.
struct BprOutcome {
  double loss;      // Σ -ln σ(s_i - s_j), each before its own step; 0 unless asked for
  int64_t samples;  // positives for which a negative was found
};

/// One step of stochastic gradient ascent on ln σ(s_i - s_j) - λ/2 (|x_u|² + |y_i|² + |y_j|² + b_i² + b_j²) for each
/// positive (u, i), with s_i = x_u·y_i + b_i:
///   g = σ(s_j - s_i), x_u += η (g (y_i - y_j) - λ x_u), y_i += η (g x_u - λ y_i), y_j += η (-g x_u - λ y_j), with the
///   x_u from before the step, and likewise b_i += η (g - λ b_i), b_j += η (-g - λ b_j).
/// The negative j is the best-scored of `candidates` places of the task's pool, drawn uniformly; a draw that hits an
/// own item of u is repeated, negativeTries draws at most; without a candidate the positive is passed over. Rendle,
/// Freudenthaler, Gantner, Schmidt-Thieme, "BPR: Bayesian personalized ranking from implicit feedback", UAI 2009;
/// candidates > 1: Zhang, Chen, Wang, Yu, "Optimizing top-n collaborative filtering via dynamic negative item
/// sampling", SIGIR 2013.
struct BprArgs {
  OwnItemsView users;
  const BprTask* tasks;  // run side by side: their rows must differ, or else they race
  int64_t taskCount;
  const int32_t *positiveUsers, *positiveItems;
  const int32_t* pool;  // items
  int32_t candidates;
  uint64_t seed;
  int64_t stride;                    // of both factor matrices: a multiple of 16; what is beyond the factors is 0
  float *userFactors, *itemFactors;  // 64-byte aligned
  float* itemBiases;                 // null: none
  float rate, regularization;        // η, λ
  bool itemsFixed;                   // only x_u moves: fold-in
  bool wantLoss;
  BprOutcome* outcomes;  // [taskCount]
};

}  // namespace topknot
