// The approximate index as plain tensors, for its file, and made anew: from them, or without what was removed.
#include <algorithm>
#include <cmath>
#include <shared_mutex>

#include "cpu/kernels/pair_score.h"
#include "ops/hnsw_index.h"

namespace topknot {

/// Vectors from a file as rows that may be changed.
Tensor HnswIndex::rowsOf(Job& job, const Tensor& vectors) const {
  const int64_t n = vectors.rows();
  const Tensor rows = Tensor::host<float>({n, stride_}, true);
  parallelFor(n, 1024, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = rows.data<float>() + i * stride_;
      std::copy_n(vectors.data<float>() + i * width_, dims_, row);
      require(std::isfinite(pairDot(row, row, dims_)), ErrorCode::format, "vectors: row ", i,
              " of the file holds a number that is not finite");
      lengthen(row);
    }
  });
  job.checkCancelled();
  return rows;
}

HnswIndex::HnswIndex(Job& job, const HnswOptions& options, const HnswState& state, bool mapped)
    : HnswIndex(options, state.dimensions) {
  expect(state.vectors, "vectors", DType::float32, 2);
  expect(state.keys, "keys", DType::int32, 1);
  graph_ = HnswGraph(options.connectivity, state.graph, mapped);
  const int64_t n = graph_.size();
  require(state.vectors.rows() == n && state.vectors.cols() == width_ && state.keys.count() == n, ErrorCode::format,
          "graph: expected ", n, " vectors of ", width_, " numbers and as many keys but received ",
          state.vectors.rows(), " of ", state.vectors.cols(), " and ", state.keys.count());
  bound_ = state.bound;
  rows_ = mapped ? state.vectors : rowsOf(job, state.vectors);
  if (mapped) stride_ = width_;

  const std::span<const int32_t> keys = state.keys.span<const int32_t>();
  keys_.assign(keys.begin(), keys.end());
  slots_.assign(static_cast<size_t>(n), -1);
  for (int64_t slot = n; slot-- > 0;) {
    const int32_t key = keys_[static_cast<size_t>(slot)];
    require(key >= -1 && key < n && (key < 0 || slots_[static_cast<size_t>(key)] < 0), ErrorCode::format, "keys: node ",
            slot, " has key ", key, ", which is not one of its own");
    if (key < 0) {
      free_.push_back(static_cast<int32_t>(slot));
    } else {
      slots_[static_cast<size_t>(key)] = static_cast<int32_t>(slot);
      ++count_;
    }
  }
  slots_.resize(static_cast<size_t>(count_));
  live_.assign(slots_.size() / 64 + 1, 0);
  for (int64_t key = 0; key < count_; ++key) {
    require(slots_[static_cast<size_t>(key)] >= 0, ErrorCode::format, "keys: none of the nodes has key ", key);
    live_[static_cast<size_t>(key) / 64] |= uint64_t{1} << (key % 64);
  }
  count();
}

/// Brings what lies in a file into memory: before the first change.
void HnswIndex::own(Job& job) {
  if (!graph_.viewed()) return;
  HnswIndex copied(job, options_, copy(job), false);
  const std::lock_guard alone(lock_);
  graph_ = std::move(copied.graph_);
  rows_ = std::move(copied.rows_);
  stride_ = copied.stride_;
  count();
}

HnswState HnswIndex::copy(Job& job) const {
  const int64_t n = graph_.size();
  HnswState out{.vectors = rows_,
                .keys = Tensor::host<int32_t>({n}),
                .graph = graph_.bytes(),
                .dimensions = dims_,
                .bound = bound_};
  job.checkCancelled();
  if (!graph_.viewed()) {
    out.vectors = Tensor::host<float>({n, width_}, true);
    parallelFor(n, 4096, job.exec(), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i)
        std::copy_n(rows_.data<float>() + i * stride_, dims_, out.vectors.data<float>() + i * width_);
    });
    job.checkCancelled();
  }
  std::fill_n(out.keys.data<int32_t>(), n, -1);
  int32_t next = 0;
  for (int32_t slot : slots_) {
    if (slot >= 0) out.keys.data<int32_t>()[slot] = next++;
  }
  return out;
}

// Nothing but a change writes to what these two read, so searches go on.

HnswState HnswIndex::state(Job& job) const {
  const std::lock_guard hold(changing_);
  return copy(job);
}

std::shared_ptr<HnswIndex> HnswIndex::compacted(Job& job, bool parallel) const {
  const std::lock_guard hold(changing_);
  if (count_ > 0 && count_ == graph_.size()) return std::make_shared<HnswIndex>(job, options_, copy(job), false);
  const auto fresh = std::make_shared<HnswIndex>(options_, dims_);
  std::vector<int32_t> from, slots, keys;
  for (int32_t slot : slots_) {
    if (slot < 0) continue;
    keys.push_back(static_cast<int32_t>(from.size()));
    from.push_back(slot);
  }
  const auto vector = [&](int64_t i) { return rows_.data<float>() + from[static_cast<size_t>(i)] * stride_; };
  fresh->insert(job, {static_cast<int64_t>(from.size()), vector, true}, parallel, slots);
  fresh->publish({}, keys, slots);
  return fresh;
}

}  // namespace topknot
