// What both solvers of ALS share: which rows are heavy, and what is said about a row that cannot be solved.
#pragma once
#include "backend/als_args.h"
#include "cuda/device_scan.h"

namespace topknot::cuda {

/// How a half-sweep is cut. Tests set it to reach every path on small shapes.
struct AlsPlan {
  int64_t heavy = 4096;                    // rows with more entries than this are shared by blocks
  int64_t heavyCg = 1024;                  // by conjugate gradients: than one warp has
  int64_t workspace = int64_t{256} << 20;  // bytes of partial results at a time
};

/// One past the row whose system is not positive definite, the largest of them.
SIMT_DEVICE void reportRow(unsigned long long* failed, int64_t row) {
  atomicMax(failed, static_cast<unsigned long long>(row + 1));
}

/// What the host says about a failed row.
inline void checkSolved(Queue& queue, const unsigned long long* failed) {
  const unsigned long long row = queue.fetch(failed);
  if (row == 0) return;
  queue.fail(failure(ErrorCode::value,
                     "ALS: the system of row %llu is not positive definite in float32: use a larger regularization, or "
                     "weights that are neither negative nor huge",
                     row - 1));
}

SIMT_DEVICE bool isHeavy(const CsrView& rows, int64_t row, int64_t heavy) {
  return rows.indptr[row + 1] - rows.indptr[row] > heavy;
}

/// flags [rows + 1]: 1 for heavy rows.
__global__ void __launch_bounds__(256) alsFlagHeavy(CsrView rows, int64_t heavy, int32_t* flags) {
  const int64_t row = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (row <= rows.rows) flags[row] = row < rows.rows && isHeavy(rows, row, heavy);
}

__global__ void __launch_bounds__(256) alsListHeavy(CsrView rows, int64_t heavy, const int32_t* places, int32_t* list) {
  const int64_t row = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (row < rows.rows && isHeavy(rows, row, heavy)) list[places[row]] = static_cast<int32_t>(row);
}

struct HeavyRows {
  const int32_t* list;
  int64_t count;
};

/// The heavy rows in order.
inline HeavyRows findHeavyRows(Queue& queue, const CsrView& rows, int64_t heavy) {
  int32_t *flags = queue.workspace<int32_t>(rows.rows + 1), *places = queue.workspace<int32_t>(rows.rows + 1);
  const Grid grid{rows.rows / 256 + 1};
  queue.launch("alsFlagHeavy", alsFlagHeavy, grid, 256, rows, heavy, flags);
  exclusiveSum(queue, flags, places, rows.rows + 1);
  const int64_t count = queue.fetch(places + rows.rows);
  int32_t* list = flags;  // not needed any more
  if (count > 0) queue.launch("alsListHeavy", alsListHeavy, grid, 256, rows, heavy, places, list);
  return {list, count};
}

}  // namespace topknot::cuda
