// Top-k against a float64 brute force, on every instruction set of this machine.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "backend/registry.h"
#include "core/random.h"
#include "ops/ops.h"
#include "test/check.h"

using namespace topknot;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

Tensor matrix(int64_t rows, int64_t cols, uint64_t seed) {
  Tensor t = Tensor::host<float>({rows, cols});
  Random random(seed, 0);
  for (float& x : t.span<float>()) x = static_cast<float>(random.normal());
  return t;
}

/// Small integers: every dot product is exact, and many tie.
Tensor integers(int64_t rows, int64_t cols, uint64_t seed) {
  Tensor t = Tensor::host<float>({rows, cols});
  Random random(seed, 0);
  for (float& x : t.span<float>()) x = static_cast<float>(static_cast<int>(random.below(5)) - 2);
  return t;
}

Tensor ints(std::vector<int32_t> values) {
  Tensor t = Tensor::host<int32_t>({static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.data<int32_t>());
  return t;
}

/// Each cell present with this probability.
Csr sparse(int64_t rows, int64_t cols, double density, uint64_t seed) {
  std::vector<int64_t> ptr{0};
  std::vector<int32_t> ids;
  Random random(seed, 1);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      if (random.uniform() < density) ids.push_back(static_cast<int32_t>(c));
    }
    ptr.push_back(static_cast<int64_t>(ids.size()));
  }
  const int64_t nnz = static_cast<int64_t>(ids.size());
  Csr m{Tensor::host<int64_t>({rows + 1}), ints(ids), Tensor::host<float>({nnz}, true), cols};
  std::copy(ptr.begin(), ptr.end(), m.indptr.data<int64_t>());
  return m;
}

/// A bitmap in which about one item of `every` is allowed; 0: none.
Tensor bitmap(int64_t items, uint64_t every, uint64_t seed) {
  Tensor t = Tensor::host<int64_t>({(items + 63) / 64}, true);
  Random random(seed, 2);
  for (int64_t i = 0; i < items; ++i) {
    if (every && random.below(every) == 0) t.data<int64_t>()[i / 64] |= int64_t(uint64_t{1} << (i % 64));
  }
  return t;
}

bool allowed(const Filter& f, int64_t query, int64_t item) {
  if (f.allowed && !(static_cast<uint64_t>(f.allowed->data<int64_t>()[item / 64]) >> (item % 64) & 1)) return false;
  if (!f.seen) return true;
  const int64_t row = f.seenRows ? f.seenRows->data<int32_t>()[query] : query;
  const CsrView seen = f.seen->view();
  return !std::binary_search(seen.indices + seen.indptr[row], seen.indices + seen.indptr[row + 1],
                             static_cast<int32_t>(item));
}

/// The score by its definition; l2 negated, so that higher is better. `scale` bounds the float32 error of the scan.
double reference(const Tensor& queries, int64_t q, const Tensor& items, int64_t i, Metric metric, double* scale) {
  const int64_t dims = items.cols();
  const float *a = queries.data<float>() + q * dims, *b = items.data<float>() + i * dims;
  double dot = 0, aa = 0, bb = 0, distance = 0, absolute = 0;
  for (int64_t k = 0; k < dims; ++k) {
    const double x = a[k], y = b[k];
    dot += x * y, aa += x * x, bb += y * y, distance += (x - y) * (x - y), absolute += std::fabs(x * y);
  }
  const double eps = 0x1p-23;
  if (metric == Metric::innerProduct) return *scale = eps * static_cast<double>(dims) * absolute, dot;
  if (metric == Metric::cosine) return *scale = 4 * eps, aa * bb > 0 ? dot / std::sqrt(aa * bb) : 0;
  return *scale = 4 * eps * distance, -distance;
}

/// The reference scores of all pairs.
struct Reference {
  Reference(const Tensor& queries, const Tensor& items, Metric metric)
      : metric(metric), queries(queries.rows()), items(items.rows()) {
    for (int64_t q = 0; q < queries.rows(); ++q) {
      for (int64_t i = 0; i < items.rows(); ++i) {
        scores.push_back(reference(queries, q, items, i, metric, &scales.emplace_back()));
      }
    }
  }
  Metric metric;
  int64_t queries, items;
  std::vector<double> scores, scales;
};

/// Checks one result against all items: scores right, order right, ids distinct and allowed, nothing better left out.
bool correct(const TopkResult& r, const Reference& ref, int64_t k, const Filter& filter) {
  for (int64_t q = 0; q < ref.queries; ++q) {
    const int32_t* ids = r.ids.data<int32_t>() + q * k;
    const float* scores = r.scores.data<float>() + q * k;
    std::vector<char> returned(ref.items);
    int64_t available = 0;
    for (int64_t i = 0; i < ref.items; ++i) available += allowed(filter, q, i);
    const int64_t found = std::min(k, available);
    double worst = infinity;
    for (int64_t j = 0; j < k; ++j) {
      if (j >= found) {
        if (ids[j] != -1 || !std::isnan(scores[j])) return false;
        continue;
      }
      if (ids[j] < 0 || ids[j] >= ref.items || returned[ids[j]]++ || !allowed(filter, q, ids[j])) return false;
      const double expected = ref.scores[q * ref.items + ids[j]];
      const double score = ref.metric == Metric::l2 ? -scores[j] : scores[j];
      if (!(std::fabs(score - expected) <= 0x1p-22 * std::fabs(expected) + 1e-12)) return false;
      if (j > 0) {
        const double before = ref.metric == Metric::l2 ? -scores[j - 1] : scores[j - 1];
        if (score > before || (score == before && ids[j] < ids[j - 1])) return false;
      }
      worst = score;
    }
    for (int64_t i = 0; i < ref.items; ++i) {
      if (found < k || returned[i] || !allowed(filter, q, i)) continue;
      const double score = ref.scores[q * ref.items + i], scale = ref.scales[q * ref.items + i];
      if (score > worst + 2 * scale + 0x1p-22 * std::fabs(worst)) return false;
      // Where float32 is exact, ties must have gone to the lower ids.
      if (score == worst && i < ids[k - 1] && ref.metric != Metric::cosine && std::floor(score) == score) return false;
    }
  }
  return true;
}

bool sameBytes(const TopkResult& a, const TopkResult& b) {
  return std::memcmp(a.ids.data<char>(), b.ids.data<char>(), a.ids.bytes()) == 0 &&
         std::memcmp(a.scores.data<char>(), b.scores.data<char>(), a.scores.bytes()) == 0;
}

TopkResult search(const Tensor& queries, const Tensor& items, int64_t k, Metric metric, const Filter& filter = {}) {
  Job job;
  return ops::topk(job, queries, items, std::nullopt, k, metric, filter);
}

constexpr Metric metrics[] = {Metric::innerProduct, Metric::cosine, Metric::l2};

void report(bool ok, const char* what, int64_t dims, int64_t items, int64_t queries, int64_t k, Metric metric) {
  CHECK(ok);
  if (!ok) {
    std::printf("  %s: isa %s, %ld dims, %ld items, %ld queries, k %ld, metric %d\n", what, cpuBackend().isa,
                static_cast<long>(dims), static_cast<long>(items), static_cast<long>(queries), static_cast<long>(k),
                static_cast<int>(metric));
  }
}

template <typename F>
void forEachIsa(F&& f) {
  for (const Backend* backend : cpuBackends()) {
    useIsa(backend->isa);
    f();
  }
  useIsa(cpuBackends().front()->isa);
}

}  // namespace

TEST(matchesBruteForce) {
  setThreadCount(4);
  for (int64_t dims : {1, 3, 8, 17, 64, 100, 128, 200}) {
    for (int64_t n : {1, 7, 63, 64, 1000, 5003}) {
      const Tensor items = dims % 2 ? integers(n, dims, 1) : matrix(n, dims, 1);
      for (int64_t count : {1, 2, 5, 16, 33, 100}) {
        if (n == 5003 && count > 16 && dims != 17 && dims != 64) continue;  // time
        const Tensor queries = dims % 2 ? integers(count, dims, 2) : matrix(count, dims, 2);
        for (Metric metric : metrics) {
          const Reference ref(queries, items, metric);
          forEachIsa([&] {
            for (int64_t k : {int64_t{1}, std::min<int64_t>(10, n), n}) {
              if (k > 10 && n > 1000 && count > 5) continue;
              report(correct(search(queries, items, k, metric), ref, k, {}), "plain", dims, n, count, k, metric);
            }
          });
        }
      }
    }
  }
}

TEST(filtersBeforeSelection) {
  for (int64_t n : {1, 64, 1000, 5003}) {
    const Tensor items = integers(n, 9, 3);
    for (int64_t count : {1, 3, 5, 40}) {
      const Tensor queries = integers(count, 9, 4);
      std::vector<int32_t> rows;
      for (int64_t q = 0; q < count; ++q) rows.push_back(static_cast<int32_t>((q * 7 + 1) % 3));
      for (Metric metric : metrics) {
        const Reference ref(queries, items, metric);
        for (uint64_t every : {0, 1, 2, 10, 100}) {
          const Filter filters[] = {{bitmap(n, every, 5), {}, {}},
                                    {{}, sparse(count, n, every ? 1.0 / static_cast<double>(every) : 0, 6), {}},
                                    {bitmap(n, every, 7), sparse(3, n, 0.5, 8), ints(rows)}};
          for (const Filter& filter : filters) {
            for (int64_t k : {int64_t{1}, std::min<int64_t>(20, n), n}) {
              if (k > 1000 && count > 5) continue;
              forEachIsa([&] {
                const TopkResult r = search(queries, items, k, metric, filter);
                report(correct(r, ref, k, filter), "filtered", 9, n, count, k, metric);
              });
            }
          }
        }
      }
    }
  }
}

TEST(sameBytesAtAnyThreadCount) {
  forEachIsa([] {
    const Tensor items = matrix(40000, 24, 9), tied = integers(40000, 4, 10);
    for (const Tensor& x : {items, tied}) {
      for (int64_t count : {1, 3, 4, 50}) {
        const Tensor queries = x.cols() == 4 ? integers(count, 4, 11) : matrix(count, 24, 11);
        const Filter filter{bitmap(40000, 2, 12), sparse(count, 40000, 0.01, 13), {}};
        for (Metric metric : metrics) {
          for (int64_t k : {10, 3000}) {
            setThreadCount(1);
            const TopkResult one = search(queries, x, k, metric, filter);
            for (int threads : {2, 4}) {
              setThreadCount(threads);
              report(sameBytes(one, search(queries, x, k, metric, filter)), "threads", x.cols(), 40000, count, k,
                     metric);
            }
          }
        }
      }
    }
    setThreadCount(4);
  });
}

TEST(scoresDoNotDependOnTheBatchOrTheInstructionSet) {
  const Tensor items = matrix(3000, 50, 14), queries = matrix(40, 50, 15);
  for (Metric metric : metrics) {
    useIsa(cpuBackends().front()->isa);
    const TopkResult all = search(queries, items, 20, metric);
    forEachIsa([&] {
      CHECK(sameBytes(all, search(queries, items, 20, metric)));
      Tensor one = Tensor::host<float>({1, 50});
      std::copy_n(queries.data<float>() + 7 * 50, 50, one.data<float>());
      const TopkResult single = search(one, items, 20, metric);
      CHECK(std::memcmp(single.scores.data<float>(), all.scores.data<float>() + 7 * 20, 20 * sizeof(float)) == 0);
    });
  }
}

TEST(equalScoresGoToLowerIds) {
  forEachIsa([] {
    const Tensor items = Tensor::host<float>({5000, 6});
    std::fill_n(items.data<float>(), 5000 * 6, 2.0f);
    for (int64_t count : {1, 3, 20}) {
      const Tensor queries = integers(count, 6, 16);
      for (Metric metric : metrics) {
        const TopkResult r = search(queries, items, 100, metric);
        for (int64_t j = 0; j < count * 100; ++j) CHECK(r.ids.data<int32_t>()[j] == j % 100);
      }
    }
  });
}

TEST(negativeZeroIsZeroAndZeroVectorsScoreZero) {
  forEachIsa([] {
    Tensor items = Tensor::host<float>({4, 2}), queries = Tensor::host<float>({5, 2});
    const float rows[] = {-0.0f, 0.0f, 0.0f, -0.0f, 1.0f, 1.0f, -1.0f, 0.0f};
    std::copy_n(rows, 8, items.data<float>());
    std::fill_n(queries.data<float>(), 10, -0.0f);
    for (Metric metric : {Metric::innerProduct, Metric::cosine}) {
      const TopkResult r = search(queries, items, 4, metric);
      for (int64_t j = 0; j < 20; ++j) {
        CHECK(r.ids.data<int32_t>()[j] == j % 4);
        CHECK(r.scores.data<float>()[j] == 0 && !std::signbit(r.scores.data<float>()[j]));
      }
    }
  });
}

TEST(infinitiesAndNaNComeInOrder) {
  forEachIsa([] {
    const int64_t n = 600;
    Tensor items = matrix(n, 8, 17);
    float* x = items.data<float>();
    x[5 * 8] = infinity;
    x[6 * 8] = -infinity;
    x[7 * 8] = std::nanf("");
    for (int k = 0; k < 8; ++k) x[8 * 8 + k] = 3e38f;
    for (int64_t count : {1, 20}) {
      Tensor queries = Tensor::host<float>({count, 8});
      std::fill_n(queries.data<float>(), count * 8, 1.0f);
      const TopkResult r = search(queries, items, n, Metric::innerProduct);
      for (int64_t q = 0; q < count; ++q) {
        const int32_t* ids = r.ids.data<int32_t>() + q * n;
        CHECK(ids[0] == 5 && ids[1] == 8 && ids[n - 2] == 6 && ids[n - 1] == 7);
        CHECK(std::isnan(r.scores.data<float>()[q * n + n - 1]));
      }
      for (Metric metric : {Metric::cosine, Metric::l2}) {
        const TopkResult s = search(queries, items, n, metric);
        std::vector<char> returned(n);
        for (int64_t j = 0; j < n; ++j) returned[s.ids.data<int32_t>()[j]] = 1;
        CHECK(std::count(returned.begin(), returned.end(), 1) == n);
      }
    }
  });
}

TEST(l2IsExactFarFromTheOrigin) {
  forEachIsa([] {
    // |x|² is 10^10 times the squared distances: norms in float32 alone could not tell any two items apart.
    Tensor items = matrix(2000, 16, 18);
    for (float& x : items.span<float>()) x = 100000 + std::round(x * 4);
    Tensor tiny = matrix(2000, 16, 19);
    for (float& x : tiny.span<float>()) x *= 1e-22f;
    Tensor huge = matrix(2000, 16, 20);
    for (float& x : huge.span<float>()) x *= 1e18f;
    for (int64_t count : {1, 20}) {
      Tensor queries = Tensor::host<float>({count, 16});
      std::copy_n(items.data<float>() + 50 * 16, count * 16, queries.data<float>());
      CHECK(correct(search(queries, items, 10, Metric::l2), Reference(queries, items, Metric::l2), 10, {}));
      CHECK(search(queries, items, 10, Metric::l2).ids.data<int32_t>()[0] == 50);
      std::copy_n(huge.data<float>(), count * 16, queries.data<float>());
      CHECK(correct(search(queries, huge, 10, Metric::l2), Reference(queries, huge, Metric::l2), 10, {}));
      CHECK(correct(search(queries, huge, 10, Metric::cosine), Reference(queries, huge, Metric::cosine), 10, {}));
      std::copy_n(tiny.data<float>(), count * 16, queries.data<float>());
      CHECK(correct(search(queries, tiny, 10, Metric::cosine), Reference(queries, tiny, Metric::cosine), 10, {}));
    }
  });
}

TEST(selectTopkMatchesSorting) {
  Job job;
  forEachIsa([&] {
    for (int64_t n : {1, 31, 1000, 70000}) {
      for (int64_t rows : {1, 6}) {
        Tensor scores = integers(rows, n, 21);
        for (int64_t i = 0; i < rows * n; i += 17) scores.data<float>()[i] = i % 2 ? infinity : -infinity;
        for (int64_t i = 5; i < rows * n; i += 29) scores.data<float>()[i] = std::nanf("");
        const Filter filters[] = {{}, {bitmap(n, 3, 22), sparse(rows, n, 0.1, 23), {}}};
        for (const Filter& filter : filters) {
          for (int64_t k : {int64_t{1}, std::min<int64_t>(50, n), n}) {
            const TopkResult r = ops::selectTopk(job, scores, k, filter);
            for (int64_t q = 0; q < rows; ++q) {
              const float* s = scores.data<float>() + q * n;
              std::vector<int32_t> ids;
              for (int64_t i = 0; i < n; ++i) {
                if (allowed(filter, q, i)) ids.push_back(static_cast<int32_t>(i));
              }
              std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
                return std::isnan(s[a]) ? false : std::isnan(s[b]) ? true : s[a] > s[b];
              });
              ids.resize(k, -1);
              CHECK(std::equal(ids.begin(), ids.end(), r.ids.data<int32_t>() + q * k));
              for (int64_t j = 0; j < k; ++j) {
                const float score = r.scores.data<float>()[q * k + j];
                CHECK(ids[j] < 0 || std::isnan(s[ids[j]]) ? std::isnan(score) : score == s[ids[j]]);
              }
            }
          }
        }
      }
    }
  });
}

TEST(rankCountsMatchBruteForce) {
  Job job;
  forEachIsa([&] {
    for (int64_t n : {1, 100, 2000}) {
      for (int64_t count : {1, 15, 70}) {
        const Tensor queries = integers(count, 5, 24), items = integers(n, 5, 25);
        const Csr positives = sparse(count, n, 0.02, 26);
        const Filter filters[] = {{}, {bitmap(n, 2, 27), sparse(count, n, 0.3, 28), {}}};
        for (const Filter& filter : filters) {
          const RankCounts r = ops::rankCounts(job, queries, items, positives, filter);
          const CsrView p = positives.view();
          for (int64_t q = 0; q < count; ++q) {
            std::vector<double> scores(n);
            double scale;
            for (int64_t i = 0; i < n; ++i) {
              scores[i] = reference(queries, q, items, i, Metric::innerProduct, &scale);
            }
            for (int64_t e = p.indptr[q]; e < p.indptr[q + 1]; ++e) {
              int32_t above = 0, equal = 0;
              for (int64_t i = 0; i < n; ++i) {
                if (!allowed(filter, q, i)) continue;
                if (std::binary_search(p.indices + p.indptr[q], p.indices + p.indptr[q + 1], i)) continue;
                above += scores[i] > scores[p.indices[e]];
                equal += scores[i] == scores[p.indices[e]];
              }
              CHECK(r.above.data<int32_t>()[e] == above && r.equal.data<int32_t>()[e] == equal);
            }
          }
        }
      }
    }
  });
}

TEST(pairScoresAndNormsAgreeWithTopk) {
  Job job;
  forEachIsa([&] {
    const Tensor users = matrix(9, 33, 29), items = matrix(200, 33, 30);
    const TopkResult r = search(users, items, 200, Metric::innerProduct);
    std::vector<int32_t> userIds, itemIds;
    for (int64_t j = 0; j < 9 * 200; ++j) {
      userIds.push_back(static_cast<int32_t>(j / 200));
      itemIds.push_back(r.ids.data<int32_t>()[j]);
    }
    const Tensor scores = ops::pairScores(job, users, items, ints(userIds), ints(itemIds));
    CHECK(std::memcmp(scores.data<float>(), r.scores.data<float>(), scores.bytes()) == 0);
    const Tensor norms = ops::squaredNorms(job, items);
    for (int64_t i = 0; i < 200; ++i) {
      double sum = 0;
      for (int64_t k = 0; k < 33; ++k) sum += std::pow(static_cast<double>(items.data<float>()[i * 33 + k]), 2);
      CHECK(std::fabs(norms.data<float>()[i] - sum) <= 1e-6 * sum);
    }
  });
}

TEST(badArgumentsAreNamed) {
  Job job;
  const Tensor items = matrix(10, 4, 31), queries = matrix(3, 4, 32);
  CHECK_THROWS(search(matrix(3, 5, 1), items, 1, Metric::l2), shape);
  CHECK_THROWS(search(ints({1}), items, 1, Metric::l2), dtype);
  CHECK_THROWS(search(queries, items, 0, Metric::l2), range);
  CHECK_THROWS(search(queries, items, 11, Metric::l2), range);
  CHECK_THROWS(search(queries, Tensor::host<float>({0, 4}), 1, Metric::l2), range);
  CHECK_THROWS(search(Tensor::host<float>({1, 0}), Tensor::host<float>({1, 0}), 1, Metric::l2), shape);
  Tensor bad = matrix(3, 4, 33);
  bad.data<float>()[6] = std::nanf("");
  CHECK_THROWS(search(bad, items, 1, Metric::innerProduct), value);
  CHECK_THROWS(search(queries, items, 1, Metric::l2, {bitmap(65, 1, 1), {}, {}}), shape);
  CHECK_THROWS(search(queries, items, 1, Metric::l2, {{}, sparse(2, 10, 0.5, 1), {}}), shape);
  CHECK_THROWS(search(queries, items, 1, Metric::l2, {{}, sparse(3, 9, 0.5, 1), {}}), shape);
  CHECK_THROWS(search(queries, items, 1, Metric::l2, {{}, sparse(2, 10, 0.5, 1), ints({0, 1, 2})}), range);
  CHECK_THROWS(search(queries, items, 1, Metric::l2, {{}, {}, ints({0, 1, 2})}), argument);
  CHECK_THROWS(ops::topk(job, queries, items, matrix(1, 9, 1), 1, Metric::l2, {}), shape);
  CHECK_THROWS(ops::selectTopk(job, queries, 5, {}), range);
  CHECK_THROWS(ops::pairScores(job, queries, items, ints({0, 3}), ints({0, 0})), range);
  CHECK_THROWS(ops::pairScores(job, queries, items, ints({0, 2}), ints({0})), shape);
  CHECK_THROWS(ops::rankCounts(job, queries, items, sparse(3, 9, 0.5, 1), {}), shape);
  job.cancel();
  CHECK_THROWS(ops::topk(job, queries, items, std::nullopt, 1, Metric::innerProduct, {}), aborted);
  CHECK(search(Tensor::host<float>({0, 4}), items, 2, Metric::l2).ids.count() == 0);
}

TEST_MAIN()
