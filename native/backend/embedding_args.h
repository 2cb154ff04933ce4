// What the kernels of embedding tables are given. Rows of a table are looked up by int32 ids; ids and offsets have been
// checked by ops/.
#pragma once
#include <cstdint>

namespace topknot {

/// How the rows of a table are stored.
enum class RowFormat : int32_t {
  float32,
  float16,
  bfloat16,
  int8,  // x = scale * q + bias, q from -128
  int4   // x = scale * q + bias, q from 0 to 15; column c in the low half of byte c / 2 when c is even, else the high
};

struct TableView {
  const void* data;
  int64_t rows, cols;
  RowFormat format;
  const float* scale = nullptr;  // [rows]; for int8 and int4
  const float* bias = nullptr;

  constexpr int64_t rowBytes() const {
    switch (format) {
      case RowFormat::float32:
        return cols * 4;
      case RowFormat::float16:
      case RowFormat::bfloat16:
        return cols * 2;
      case RowFormat::int8:
        return cols;
      case RowFormat::int4:
        return cols / 2;
    }
    return 0;
  }
};

/// out[i] = row ids[i] as it is stored; as float32 for int8 and int4.
struct GatherArgs {
  TableView table;
  const int32_t* ids;
  int64_t count;
  void* out;
};

enum class BagMode : int32_t { sum, mean, max };

/// Bag b has the entries ids[offsets[b]] ... ids[offsets[b + 1] - 1].
struct BagsView {
  const int32_t* ids;
  const int64_t* offsets;  // [bags + 1], from 0 to the number of entries
  int64_t bags;
  const float* weights;  // [entries]; null: 1
  int64_t padding;       // entries with this id are left out; -1: none
};

/// out[b] = the sum, the mean or the elementwise maximum of a bag's rows; zeros for a bag without rows.
struct EmbeddingBagArgs {
  TableView table;
  BagsView bags;
  BagMode mode;
  float* out;  // [bags, cols]
  int32_t*
      winners;  // [bags, cols] for max: the entry that each maximum came from, -1 in a bag without rows; may be null
};

/// Sorts entries by (id, entry), padding left out: group g is the entries order[starts[g]] ... of row rows[g].
struct EmbeddingGroupArgs {
  const int32_t* ids;
  int64_t count, tableRows, padding;
  int32_t* order;   // [count]
  int32_t* rows;    // [count], rising; those of the groups come first
  int64_t* starts;  // [count + 1]
  int64_t* groups;  // how many groups there are
};

/// Of the entries order[0], order[1], ...: the bag that each is in, and what its row is multiplied by.
struct EmbeddingPlaceArgs {
  BagsView bags;
  const int32_t* order;  // [count] as EmbeddingGroupArgs gives it
  int64_t count;
  bool mean;        // the weight is 1 / the entries of the bag; else that of the entry
  int32_t* bagOf;   // [count]
  float* weightOf;  // [count]; null: not wanted
};

/// The gradient of each row that was looked up: of group g, Σ_i weights[i] gradient[ids[i]] over i in
/// [offsets[g], offsets[g + 1]); for max only the columns that entry order[i] won.
struct RowGradientsView {
  TableView gradient;      // float32 [bags, cols]: the derivative of the loss by each bag
  int64_t entries;         // of all groups
  BagsView groups;         // ids: the bag of each entry
  const int32_t* rows;     // [groups] the row of the table
  const int32_t* order;    // for max
  const int32_t* winners;  // for max: [bags, cols]; else null
};

struct EmbeddingGradientArgs {
  RowGradientsView rows;
  float* out;  // [groups, cols]
};

/// out[i] = gradient[b] · (row of entry i) for the entries i of bag b; 0 for padding.
struct EmbeddingWeightGradientArgs {
  TableView table;
  BagsView bags;
  const float* gradient;  // [bags, cols]
  float* out;             // [entries]
};

/// With g the gradient of a row x of the table:
///   sgd       x -= rate g
///   adagrad   s += mean(g²), x -= rate g / (√s + epsilon)                              s: one number for each row
///   adam      m += (1 - beta1) (g - m), v += (1 - beta2) (g² - v), x -= rate m / correction1 / (√(v / correction2) +
///   epsilon)
/// A row without entries is not touched, nor are its m and v.
enum class EmbeddingOptimizer : int32_t { sgd, adagrad, adam };

struct EmbeddingUpdateArgs {
  RowGradientsView rows;
  EmbeddingOptimizer optimizer;
  float rate, epsilon, beta1, beta2, correction1, correction2;
  void* table;
  RowFormat format;  // float32, or a 16-bit float: rounded stochastically by Philox keyed (seed, row, step)
  float* sums;       // adagrad: s [table rows]
  float* means;      // adam: m [table rows, cols]
  float* squares;    // adam: v [table rows, cols]
  uint64_t seed, step;
  const int32_t* keys = nullptr;  // [groups] the rows that random bits are keyed by; null: rows.rows
};

/// Each row between its least and its largest value: int8, or two 4-bit numbers in a byte.
struct EmbeddingQuantizeArgs {
  const float* rows;  // [count, cols]
  int64_t count, cols;
  RowFormat format;  // int8 or int4
  void* out;
  float* scale;  // [count]
  float* bias;   // [count]
};

}  // namespace topknot
