// Attention by its formula in float64, and calls drawn at random: for the tests of the forward and the backward pass.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "core/random.h"
#include "ops/ops.h"
#include "test/check.h"

namespace topknot::test {

inline constexpr double infinity = std::numeric_limits<double>::infinity();

inline Tensor normals(Shape shape, uint64_t seed, float scale = 1) {
  Tensor t = Tensor::host<float>(shape);
  Random random(seed, 0);
  for (float& x : t.span<float>()) x = scale * static_cast<float>(random.normal());
  return t;
}

template <typename T>
Tensor vectorOf(const std::vector<T>& values) {
  Tensor t = Tensor::host<T>({static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.template data<T>());
  return t;
}

/// Where the sequences of a call lie, whatever its layout.
struct Layout {
  Layout(const Tensor& q, const Tensor& k, const AttentionOptions& o) : packed(o.queryOffsets.has_value()) {
    heads = q.shape[1], kvHeads = k.shape[1], dims = q.shape[q.rank() - 1];
    if (packed) {
      for (int64_t i = 0; i < o.queryOffsets->count(); ++i) {
        const auto at = [i](const Tensor& t) {
          return t.dtype == DType::int32 ? t.data<int32_t>()[i] : t.data<int64_t>()[i];
        };
        queryAt.push_back(at(*o.queryOffsets));
        keyAt.push_back(at(o.keyOffsets ? *o.keyOffsets : *o.queryOffsets));
      }
    } else {
      for (int64_t b = 0; b <= q.shape[0]; ++b) queryAt.push_back(b * q.shape[2]), keyAt.push_back(b * k.shape[2]);
    }
  }
  int64_t batch() const { return static_cast<int64_t>(queryAt.size()) - 1; }
  int64_t queries(int64_t b) const { return queryAt[b + 1] - queryAt[b]; }
  int64_t keys(int64_t b) const { return keyAt[b + 1] - keyAt[b]; }
  int64_t query(int64_t b, int64_t h, int64_t i) const {
    return packed ? ((queryAt[b] + i) * heads + h) * dims : ((b * heads + h) * queries(b) + i) * dims;
  }
  int64_t key(int64_t b, int64_t h, int64_t j) const {
    const int64_t g = h / (heads / kvHeads);
    return packed ? ((keyAt[b] + j) * kvHeads + g) * dims : ((b * kvHeads + g) * keys(b) + j) * dims;
  }
  int64_t row(int64_t b, int64_t h, int64_t i) const {
    return packed ? h * queryAt.back() + queryAt[b] + i : (b * heads + h) * queries(b) + i;
  }
  bool packed;
  int64_t heads, kvHeads, dims;
  std::vector<int64_t> queryAt, keyAt;
};

inline int64_t biasIndex(const Tensor& bias, int64_t b, int64_t h, int64_t i, int64_t j) {
  const Shape& s = bias.shape;
  return (((s[0] == 1 ? 0 : b) * s[1] + (s[1] == 1 ? 0 : h)) * s[2] + i) * s[3] + j;
}

/// What dropout multiplies the weight of query row `row` and key j with.
inline double kept(const AttentionOptions& o, int64_t row, int64_t j) {
  if (o.dropout == 0) return 1;
  const auto words = philox(static_cast<uint64_t>(o.seed), static_cast<uint64_t>(row), static_cast<uint64_t>(j / 4));
  const double draw = static_cast<double>(words[static_cast<size_t>(j % 4)] >> 8) / 16777216.0;
  return draw < o.dropout ? 0 : 1 / (1 - o.dropout);
}

struct Reference {
  std::vector<double> out, logSumExp;
};

/// The weights of one query, before dropout; returns its log-sum-exp.
inline double weightsOf(const Layout& at, const Tensor& q, const Tensor& k, const AttentionOptions& o, int64_t b,
                        int64_t h, int64_t i, std::vector<double>& p) {
  const int64_t n = at.queries(b), m = at.keys(b), place = i + m - n;
  const double scale = o.scale.value_or(1 / std::sqrt(static_cast<double>(at.dims)));
  const int64_t right = o.causal ? 0 : o.right.value_or(m + n), left = o.left.value_or(m + n);
  p.assign(m, -infinity);
  double largest = -infinity;
  for (int64_t j = 0; j < m; ++j) {
    if (j < place - left || j > place + right) continue;
    if (o.keyMask && !o.keyMask->data<uint8_t>()[at.keyAt[b] + j]) continue;
    double dot = 0;
    for (int64_t c = 0; c < at.dims; ++c) {
      dot += static_cast<double>(q.data<float>()[at.query(b, h, i) + c]) * k.data<float>()[at.key(b, h, j) + c];
    }
    p[j] = dot * scale + (o.bias ? o.bias->data<float>()[biasIndex(*o.bias, b, h, i, j)] : 0.0);
    largest = std::max(largest, p[j]);
  }
  if (largest == -infinity) return p.assign(m, 0.0), -infinity;
  double sum = 0;
  for (double& x : p) sum += x = std::exp(x - largest);
  for (double& x : p) x /= sum;
  return largest + std::log(sum);
}

inline Reference reference(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& o) {
  const Layout at(q, k, o);
  Reference r{std::vector<double>(q.count()), std::vector<double>(q.count() / at.dims)};
  std::vector<double> p;
  for (int64_t b = 0; b < at.batch(); ++b) {
    for (int64_t h = 0; h < at.heads; ++h) {
      for (int64_t i = 0; i < at.queries(b); ++i) {
        const int64_t row = at.row(b, h, i);
        r.logSumExp[row] = weightsOf(at, q, k, o, b, h, i, p);
        for (int64_t j = 0; j < at.keys(b); ++j) {
          const double w = p[j] * kept(o, row, j);
          for (int64_t c = 0; c < at.dims; ++c) {
            r.out[at.query(b, h, i) + c] += w * static_cast<double>(v.data<float>()[at.key(b, h, j) + c]);
          }
        }
      }
    }
  }
  return r;
}

inline AttentionResult attend(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& o = {}) {
  static Stream stream;
  AttentionResult r = ops::attention(stream, q, k, v, o);
  r.out.pending->wait();
  return r;
}

inline bool near(const Tensor& t, const std::vector<double>& expected, double tolerance) {
  for (int64_t i = 0; i < t.count(); ++i) {
    const double x = t.data<float>()[i], e = expected[i];
    if (x == e) continue;
    if (!(std::fabs(x - e) <= tolerance * (1 + std::fabs(e)))) {
      std::printf("  element %ld: %.9g, expected %.9g\n", static_cast<long>(i), x, e);
      return false;
    }
  }
  return true;
}

inline bool sameBytes(const Tensor& a, const Tensor& b) {
  return a.shape == b.shape && std::memcmp(a.data<char>(), b.data<char>(), a.bytes()) == 0;
}

template <typename F>
void forEachIsa(F&& f) {
  for (const Backend* backend : cpuBackends()) {
    useIsa(backend->isa);
    f();
  }
  useIsa(cpuBackends().front()->isa);
}

struct Call {
  Tensor q, k, v;
  AttentionOptions options;
  std::string text;
};

inline Tensor toHalves(const Tensor& t) {
  Tensor out = Tensor::host<BFloat16>(t.shape);
  std::transform(t.data<float>(), t.data<float>() + t.count(), out.data<BFloat16>(), toBFloat16);
  return out;
}

inline Tensor toFloats(const Tensor& t) {
  Tensor out = Tensor::host<float>(t.shape);
  std::transform(t.data<BFloat16>(), t.data<BFloat16>() + t.count(), out.data<float>(),
                 [](BFloat16 x) { return toFloat(x); });
  return out;
}

inline Tensor mask(int64_t batch, int64_t keys, uint64_t seed) {
  Tensor t = Tensor::host(seed % 2 ? DType::boolean : DType::uint8, {batch, keys});
  Random random(seed, 3);
  for (int64_t i = 0; i < t.count(); ++i) t.data<uint8_t>()[i] = random.below(4) != 0;
  if (batch > 1) std::fill_n(t.data<uint8_t>(), keys, uint8_t{0});  // a sequence without any key
  for (int64_t j = keys / 2; j < keys; ++j) t.data<uint8_t>()[(batch - 1) * keys + j] = 0;  // padding at the end
  return t;
}

/// A call with options drawn at random, and heads of one of these sizes.
inline Call draw(uint64_t seed,
                 const std::vector<int64_t>& sizes = {1, 2, 3, 7, 8, 12, 13, 32, 33, 50, 64, 100, 129, 256}) {
  Random random(seed, 4);
  const auto pick = [&random](const std::vector<int64_t>& from) { return from[random.below(from.size())]; };
  Call c;
  const int64_t dims = pick(sizes);
  const int64_t kvHeads = pick({1, 2, 3}), heads = kvHeads * pick({1, 2, 4}), batch = pick({1, 2, 3});
  const int64_t limit = dims > 64 ? 70 : 150;
  const auto length = [&] { return static_cast<int64_t>(random.below(4) ? random.below(limit) : random.below(20)); };
  const bool packed = random.below(3) == 0;
  AttentionOptions& o = c.options;
  int64_t queries = length(), keys = random.below(2) ? queries : length(), longest[2] = {queries, keys};
  if (packed) {
    std::vector<int64_t> queryAt{0}, keyAt{0};
    for (int64_t b = 0; b < batch; ++b)
      queryAt.push_back(queryAt.back() + length()), keyAt.push_back(keyAt.back() + length());
    const bool self = random.below(2) == 0;
    o.queryOffsets = vectorOf(std::vector<int32_t>(queryAt.begin(), queryAt.end()));
    if (!self) o.keyOffsets = vectorOf(keyAt);
    queries = queryAt.back(), keys = self ? queries : keyAt.back();
    for (int side = 0; side < 2; ++side) {
      const std::vector<int64_t>& at = side == 0 || self ? queryAt : keyAt;
      longest[side] = static_cast<int64_t>(random.below(3));  // a bias may be longer than any sequence
      for (int64_t b = 0; b < batch; ++b) longest[side] = std::max(longest[side], at[b + 1] - at[b]);
    }
  }
  const auto shape = [&](int64_t h, int64_t n) { return packed ? Shape{n, h, dims} : Shape{batch, h, n, dims}; };
  c.q = normals(shape(heads, queries), seed * 3 + 1);
  c.k = normals(shape(kvHeads, keys), seed * 3 + 2);
  c.v = normals(shape(kvHeads, keys), seed * 3 + 3);
  o.causal = random.below(3) == 0;
  if (random.below(3) == 0) o.left = static_cast<int64_t>(random.below(40));
  if (random.below(3) == 0) o.right = static_cast<int64_t>(random.below(40));
  if (random.below(4) == 0) o.scale = 1.3 / std::sqrt(static_cast<double>(dims));
  if (random.below(3) == 0) o.dropout = 0.25, o.seed = static_cast<int64_t>(seed);
  if (random.below(3) == 0) {
    o.keyMask = mask(packed ? 1 : batch, keys, seed);
    if (packed) o.keyMask->shape = {keys};
  }
  if (random.below(3) == 0) {
    o.bias = normals({pick({1, batch}), pick({1, heads}), longest[0], longest[1]}, seed * 3 + 4);
    for (float& x : o.bias->span<float>()) {
      if (random.below(10) == 0) x = -std::numeric_limits<float>::infinity();
    }
  }
  c.text = concat("case ", seed, ": q ", text(c.q.shape), " k ", text(c.k.shape), packed ? " packed" : "",
                  o.causal ? " causal" : "", o.left ? " left" : "", o.right ? " right" : "", o.keyMask ? " mask" : "",
                  o.bias ? " bias" : "", o.dropout > 0 ? " dropout" : "");
  return c;
}

inline void report(bool ok, const Call& c, const char* what) {
  CHECK(ok);
  if (!ok) std::printf("  %s: isa %s, %s\n", what, cpuBackend().isa, c.text.c_str());
}

}  // namespace topknot::test
