#include "ops/broadcast.h"

#include <algorithm>

#include "backend/memory.h"
#include "backend/registry.h"

namespace topknot {
namespace {

int64_t product(std::span<const int64_t> dims) {
  int64_t n = 1;
  for (int64_t d : dims) n *= d;
  return n;
}

/// `dims` with as many ones in front as make `rank` of them.
std::vector<int64_t> padded(std::span<const int64_t> dims, size_t rank) {
  std::vector<int64_t> out(rank - dims.size(), 1);
  out.insert(out.end(), dims.begin(), dims.end());
  return out;
}

}  // namespace

Broadcast::Broadcast(std::span<const int64_t> a, std::span<const int64_t> b, const char* aName, const char* bName) {
  const size_t rank = std::max(a.size(), b.size());
  const std::vector<int64_t> as = padded(a, rank), bs = padded(b, rank);
  dims.resize(rank), aStride.resize(rank), bStride.resize(rank);
  int64_t aStep = 1, bStep = 1;
  for (size_t i = rank; i-- > 0;) {
    require(as[i] == bs[i] || as[i] == 1 || bs[i] == 1, ErrorCode::shape, bName,
            ": expected dimensions that are equal to those of ", aName, ", counted from the last, or 1, but received ",
            text(Shape(b)), " with ", text(Shape(a)));
    dims[i] = as[i] == 1 ? bs[i] : as[i];
    aStride[i] = as[i] == 1 ? 0 : aStep;
    bStride[i] = bs[i] == 1 ? 0 : bStep;
    aStep *= as[i], bStep *= bs[i];
  }
}

int64_t Broadcast::count() const { return product(dims); }

Broadcast Broadcast::merged() const {
  Broadcast out = *this;
  out.dims.clear(), out.aStride.clear(), out.bStride.clear();
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] == 1) continue;
    if (!out.dims.empty() && out.aStride.back() == aStride[i] * dims[i] && out.bStride.back() == bStride[i] * dims[i]) {
      out.dims.back() *= dims[i];
      out.aStride.back() = aStride[i], out.bStride.back() = bStride[i];
    } else {
      out.dims.push_back(dims[i]), out.aStride.push_back(aStride[i]), out.bStride.push_back(bStride[i]);
    }
  }
  return out;
}

void sumRepeated(const Exec& exec, Device device, const float* x, std::span<const int64_t> from,
                 std::span<const int64_t> to, float* out) {
  std::vector<int64_t> dims(from.begin(), from.end());
  const std::vector<int64_t> target = padded(to, dims.size());
  const auto repeated = [&](size_t i) { return i < dims.size() && target[i] == 1 && dims[i] != 1; };
  Tensor sums;  // what is left after the dimensions that have been summed
  for (size_t i = 0; i < dims.size(); ++i) {
    if (!repeated(i)) continue;
    size_t end = i;
    while (repeated(end)) ++end;
    const std::span all(dims);
    const ReduceArgs args{.kind = Reduction::sum,
                          .x = x,
                          .outer = product(all.first(i)),
                          .length = product(all.subspan(i, end - i)),
                          .inner = product(all.subspan(end)),
                          .out = nullptr};
    Tensor next = empty<float>(device, {args.outer * args.inner});
    ReduceArgs into = args;
    into.out = next.data<float>();
    run(device, &Backend::reduce, "reduce", exec, into);
    std::fill(dims.begin() + static_cast<int64_t>(i), dims.begin() + static_cast<int64_t>(end), 1);
    sums = next, x = sums.data<float>();
  }
  copyBytes(device, out, x, static_cast<size_t>(product(dims)) * sizeof(float));
}

}  // namespace topknot
