// The CUDA kernels of sparse products and neighbours under the SIMT emulator, and on the GPUs of this machine if there
// are any, against the CPU.
#include <array>
#include <cstdlib>

#include "cuda/kernels/spgemm.cuh"
#include "cuda/kernels/spmm.cuh"
#include "test/emulated.h"
#include "test/sparse_problem.h"

using namespace topknot;
using topknot::test::emulate;
using topknot::test::near;
using topknot::test::normals;
using topknot::test::Placed;
using topknot::test::Sparse;

namespace {

/// Some rows of a, in any order and more than once.
std::vector<int32_t> someRows(const Sparse& a) {
  std::vector<int32_t> out;
  for (int64_t q = 0; a.rows > 0 && q < a.rows + 3; ++q) out.push_back(static_cast<int32_t>(q * 7 % a.rows));
  return out;
}

/// `offset`: floats by which the operands lie off a 16-byte border; `slack`: floats between their rows.
std::vector<float> runSpmm(const Backend& backend, const Exec& exec, const Sparse& a, int64_t cols, bool selected,
                           int64_t offset = 0, int64_t slack = 0) {
  const std::vector<int32_t> rows = someRows(a);
  const int64_t count = selected ? static_cast<int64_t>(rows.size()) : a.rows, ld = cols + slack;
  const std::vector<float> b = normals(offset + a.cols * ld, 3);
  std::vector<float> out(static_cast<size_t>(offset + count * ld), -5);
  Placed memory(backend, exec);
  float* result = memory.place(out);
  check(backend.spmm(exec, {.a = a.view(memory),
                            .rows = selected ? memory.place(rows) : nullptr,
                            .count = count,
                            .b = memory.place(b) + offset,
                            .ldb = ld,
                            .cols = cols,
                            .out = result + offset,
                            .ldo = ld}));
  memory.fetch(out, result);
  return out;
}

std::vector<float> runSpgemm(const Backend& backend, const Exec& exec, const Sparse& a, const Sparse& b,
                             bool selected) {
  const std::vector<int32_t> rows = someRows(a);
  const int64_t count = selected ? static_cast<int64_t>(rows.size()) : a.rows;
  std::vector<float> out(static_cast<size_t>(count * b.cols), -5);
  Placed memory(backend, exec);
  const SpgemmArgs args{.a = a.view(memory),
                        .rows = selected ? memory.place(rows) : nullptr,
                        .count = count,
                        .b = b.view(memory),
                        .out = memory.place(out)};
  check(backend.spgemm(exec, args));
  memory.fetch(out, args.out);
  return out;
}

struct Neighbours {
  std::vector<int32_t> ids;
  std::vector<float> scores;
  bool operator==(const Neighbours& other) const {  // by bits: what is missing scores NaN
    return ids == other.ids && !std::memcmp(scores.data(), other.scores.data(), scores.size() * sizeof(float));
  }
};

/// The lengths of rows and columns are taken as 1, so that sums of whole numbers are exact: ties are ties on both.
Neighbours runNeighbours(const Backend& backend, const Exec& exec, const Sparse& a, const Sparse& b, int64_t self,
                         int64_t k, bool exact) {
  std::vector<float> aNorms(static_cast<size_t>(a.rows), 1), bNorms(static_cast<size_t>(b.cols), 1);
  for (size_t c = 0; c < bNorms.size() && !exact; ++c) bNorms[c] = 1 + 0.01f * static_cast<float>(c % 13);
  Neighbours r{std::vector<int32_t>(static_cast<size_t>(a.rows * k), -7),
               std::vector<float>(static_cast<size_t>(a.rows * k), -7)};
  Placed memory(backend, exec);
  const NeighboursArgs args{.a = a.view(memory),
                            .b = b.view(memory),
                            .aNorms = memory.place(aNorms),
                            .bNorms = memory.place(bNorms),
                            .shrinkage = exact ? 0.0f : 0.3f,
                            .self = self,
                            .k = k,
                            .ids = memory.place(r.ids),
                            .scores = memory.place(r.scores)};
  check(backend.neighbours(exec, args));
  memory.fetch(r.ids, args.ids);
  memory.fetch(r.scores, args.scores);
  return r;
}

/// With whole numbers for values every sum is exact.
Sparse whole(Sparse m) {
  for (float& x : m.values) x = std::ceil(x);
  return m;
}

}  // namespace

TEST(sparseTimesDense) {
  const Sparse a(21, 700, {0, 3, 34, 4, 600, 1, 70});  // one row in seven is longer than a segment
  CHECK(a.indptr[5] - a.indptr[4] > cuda::spmmSegment);
  for (const int64_t cols : {1, 7, 34, 36, 68, 130, 260}) {
    for (const bool selected : {false, true}) {
      const auto run = [&](const Backend& gpu, const Exec& exec) { return runSpmm(gpu, exec, a, cols, selected); };
      CHECK(near(emulate(run), run(cpuBackend(), {}), 1e-6f));
    }
  }
}

TEST(sparseTimesPartsOfWiderMatrices) {
  const Sparse a(9, 50, {0, 5, 33});
  for (const auto& [cols, offset, slack] : {std::array<int64_t, 3>{68, 1, 0}, {68, 2, 2}, {68, 4, 4}, {68, 0, 3}}) {
    const auto run = [&](const Backend& gpu, const Exec& exec) {
      return runSpmm(gpu, exec, a, cols, false, offset, slack);
    };
    CHECK(near(emulate(run), run(cpuBackend(), {}), 1e-6f));
  }
}

TEST(longRowsAlone) {
  for (const int64_t length : {cuda::spmmSegment, cuda::spmmSegment + 1, 2 * cuda::spmmSegment}) {
    const Sparse a(3, 1200, {length});
    const auto run = [&](const Backend& gpu, const Exec& exec) { return runSpmm(gpu, exec, a, 5, false); };
    CHECK(near(emulate(run), run(cpuBackend(), {}), 2e-6f));
  }
  const Sparse none(0, 5, {1}), empty(4, 5, {0});
  for (const Sparse* a : {&none, &empty}) {
    const auto run = [&](const Backend& gpu, const Exec& exec) { return runSpmm(gpu, exec, *a, 8, false); };
    CHECK(emulate(run) == run(cpuBackend(), {}));
  }
}

TEST(sparseTimesSparse) {
  const Sparse a(9, 300, {0, 5, 70, 290}), b(300, 130, {3, 0, 60, 130});  // a row of a takes more than one batch
  for (const bool selected : {false, true}) {
    const auto run = [&](const Backend& gpu, const Exec& exec) { return runSpgemm(gpu, exec, a, b, selected); };
    CHECK(near(emulate(run), run(cpuBackend(), {}), 1e-6f));
  }
  const Sparse few(2, 12, {9, 0}), wide(12, 2 * cuda::productTile + 30, {40, 0, 300});
  const auto run = [&](const Backend& gpu, const Exec& exec) { return runSpgemm(gpu, exec, few, wide, false); };
  CHECK(near(emulate(run), run(cpuBackend(), {}), 1e-6f));
}

TEST(neighboursOfRows) {
  const Sparse a = whole(Sparse(6, 40, {0, 5, 30, 12})), b = whole(Sparse(40, 330, {90, 0, 200, 3}, 2));
  for (const int64_t k : {1, 10, 256, 300, 1100}) {
    for (const int64_t self : {-1, 2}) {
      for (const bool exact : {true, false}) {
        const auto run = [&](const Backend& gpu, const Exec& exec) {
          return runNeighbours(gpu, exec, a, b, self, k, exact);
        };
        const Neighbours got = emulate(run), expected = run(cpuBackend(), {});
        CHECK(got.ids == expected.ids && near(got.scores, expected.scores, 1e-6f));
        for (int64_t r = 0; r < a.rows && self >= 0; ++r) {
          const auto first = got.ids.begin() + r * k;
          CHECK(std::find(first, first + k, static_cast<int32_t>(self + r)) == first + k);
        }
      }
    }
  }
}

TEST(neighboursAmongManyColumns) {
  const Sparse a = whole(Sparse(2, 12, {9, 4})), b = whole(Sparse(12, cuda::productTile + 700, {500, 0, 3000}, 2));
  for (const int64_t k : {5, 300}) {
    const auto run = [&](const Backend& gpu, const Exec& exec) { return runNeighbours(gpu, exec, a, b, -1, k, true); };
    CHECK(emulate(run) == run(cpuBackend(), {}));
  }
}

TEST(onTheGpusOfThisMachine) {
  const std::vector<DeviceInfo> all = devices();
  if (std::getenv("TOPKNOT_CUDA_BUILT")) CHECK(cudaProblem().find("plugin is not") == std::string::npos);
  for (size_t i = 1; i < all.size(); ++i) {
    const Exec exec{.device = all[i].device.index};
    const Backend& gpu = backendOf(all[i].device);
    const Sparse a(2000, 3000, {0, 3, 34, 4, 2500, 1, 70});
    for (const int64_t cols : {1, 64, 130, 256}) {
      CHECK(near(runSpmm(gpu, exec, a, cols, true), runSpmm(cpuBackend(), {}, a, cols, true), 1e-5f));
    }
    const Sparse b = whole(Sparse(3000, 2 * cuda::productTile, {20, 300, 7}, 2)), c = whole(a);
    CHECK(runSpgemm(gpu, exec, c, b, true) == runSpgemm(cpuBackend(), {}, c, b, true));
    for (const int64_t k : {20, 1000}) {
      CHECK(runNeighbours(gpu, exec, c, b, 5, k, true) == runNeighbours(cpuBackend(), {}, c, b, 5, k, true));
    }
  }
}

TEST_MAIN()
