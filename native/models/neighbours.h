// Nearest neighbours of the rows of a sparse matrix: of items by their users, of users by their items.
//
// With v the value of row r at column t, N rows, n_t of them with an entry in column t, L_r the sum of row r and L its
// mean:
//   cosine  w = v
//   tfidf   w = v (ln((1 + N) / (1 + n_t)) + 1)
//   bm25    w = ln(1 + (N - n_t + 0.5) / (n_t + 0.5)) v (k1 + 1) / (v + k1 (1 - b + b L_r / L))
//                Robertson, Zaragoza, "The probabilistic relevance framework: BM25 and beyond", 2009
//   s_rc = w_r · w_c / (|w_r|^2(1-a) |w_c|^2a + shrinkage)    the cosine where the asymmetry a is 0.5
//                Aiolli, "Efficient top-N recommendation for very large scale binary rated datasets", RecSys 2013
#pragma once
#include <array>
#include <cstdint>

#include "core/csr.h"
#include "core/fields.h"
#include "core/job.h"

namespace topknot {

enum class NeighbourWeighting : int32_t { cosine, tfidf, bm25 };
TOPKNOT_ENUM(NeighbourWeighting, "cosine", "tfidf", "bm25")

struct NeighbourOptions {
  int64_t neighbours = 100;
  NeighbourWeighting similarity = NeighbourWeighting::cosine;
  double shrinkage = 0;
  double asymmetry = 0.5;
  double k1 = 1.2, b = 0.75;
};
TOPKNOT_FIELDS(NeighbourOptions, neighbours, similarity, shrinkage, asymmetry, k1, b)

/// The rows among which neighbours are sought.
struct NeighbourIndex {
  Csr terms;          // [columns, rows], weighted
  Tensor norms;       // float32 [rows]: lengths of the weighted rows
  Tensor idf;         // float64 [columns]
  double meanLength;  // L
};
TOPKNOT_FIELDS(NeighbourIndex, terms, norms, idf, meanLength)

namespace ops {

NeighbourIndex neighbourIndex(Job& job, Csr rows, NeighbourOptions options);

/// The nearest rows of the index for each of `rows`, at most `neighbours` of similarity above 0: [rows, indexed rows].
/// `self`: they are the rows of the index, and none is its own neighbour. Computes where the index has its terms and
/// norms; rows, the index's idf and the result are on the host.
Csr neighbours(Job& job, Csr rows, NeighbourIndex index, bool self, NeighbourOptions options);

/// What scores a history by neighbours: W_ij = s_ji for the neighbours i of j, over the sum of those if `normalize`.
Csr neighbourWeights(Job& job, Csr neighbours, bool normalize);

}  // namespace ops
}  // namespace topknot
