// Sparse times dense: four rows of b are added to a row of the result in one pass, so that the result, a tile of which
// stays in the first-level cache, is read and written once for four rows read.
#include <algorithm>

#include "backend/spmm_args.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/spmm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

constexpr int64_t tileCols = 2048;

/// out[0, cols) += Σ_r w_r b_r of four rows.
HWY_INLINE void addRows(const float* const (&b)[4], const float (&w)[4], int64_t cols, float* HWY_RESTRICT out) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto w0 = hn::Set(d, w[0]), w1 = hn::Set(d, w[1]), w2 = hn::Set(d, w[2]), w3 = hn::Set(d, w[3]);
  int64_t c = 0;
  for (; c + lanes <= cols; c += lanes) {
    auto sum = hn::MulAdd(w0, hn::LoadU(d, b[0] + c), hn::LoadU(d, out + c));
    sum = hn::MulAdd(w1, hn::LoadU(d, b[1] + c), sum);
    sum = hn::MulAdd(w2, hn::LoadU(d, b[2] + c), sum);
    hn::StoreU(hn::MulAdd(w3, hn::LoadU(d, b[3] + c), sum), d, out + c);
  }
  for (; c < cols; ++c) {
    for (int r = 0; r < 4; ++r) out[c] += w[r] * b[r][c];
  }
}

/// Columns [begin, end) of the result's row q.
void multiplyRow(const SpmmArgs& a, int64_t q, int64_t begin, int64_t end) {
  float* out = a.out + q * a.ldo + begin;
  std::fill_n(out, end - begin, 0.0f);
  const int64_t row = a.rows ? a.rows[q] : q, last = a.a.indptr[row + 1];
  for (int64_t e = a.a.indptr[row]; e < last; e += 4) {
    const float* b[4];
    float w[4];
    for (int64_t r = 0; r < 4; ++r) {
      const int64_t at = std::min(e + r, last - 1);  // a row less than four are left for has weight 0
      b[r] = a.b + a.a.indices[at] * a.ldb + begin;
      w[r] = e + r < last ? a.a.values[at] : 0.0f;
    }
    addRows(b, w, end - begin, out);
  }
}

}  // namespace

Status spmm(const Exec& exec, const SpmmArgs& a) {
  return guard([&] {
    const int64_t tiles = (a.cols + tileCols - 1) / tileCols;
    parallelFor(a.count * tiles, tiles > 1 ? 1 : 64, exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t c = task % tiles * tileCols;
        multiplyRow(a, task / tiles, c, std::min(c + tileCols, a.cols));
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
