// The kernels of each family put into a table. A file a family, so that they compile side by side.
#pragma once
#include "backend/backend.h"

namespace topknot::cuda {

void addSearch(Backend& table);
void addEmbedding(Backend& table);
void addAttention(Backend& table);
void addBlocks(Backend& table);
void addFactorization(Backend& table);
void addSparse(Backend& table);
void addTraining(Backend& table);
void addLinalg(Backend& table);
void addTensors(Backend& table);

/// All of them.
inline void addKernels(Backend& table) {
  addSearch(table);
  addEmbedding(table);
  addAttention(table);
  addBlocks(table);
  addFactorization(table);
  addSparse(table);
  addTraining(table);
  addLinalg(table);
  addTensors(table);
}

}  // namespace topknot::cuda
