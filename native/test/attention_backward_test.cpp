// The gradients of attention against their formulas in float64 and against differences of the forward formula.
#include <array>

#include "test/attention_reference.h"

using namespace topknot;
using namespace topknot::test;

namespace {

struct Gradients {
  std::vector<double> q, k, v, bias;
};

/// Of the sum of out times `weight`, its gradient with respect to out.
Gradients gradients(const Call& c, const Tensor& weight) {
  const Layout at(c.q, c.k, c.options);
  const Reference forward = reference(c.q, c.k, c.v, c.options);
  Gradients g{std::vector<double>(c.q.count()), std::vector<double>(c.k.count()), std::vector<double>(c.v.count()),
              std::vector<double>(c.options.bias ? c.options.bias->count() : 0)};
  const double scale = c.options.scale.value_or(1 / std::sqrt(static_cast<double>(at.dims)));
  std::vector<double> p;
  for (int64_t b = 0; b < at.batch(); ++b) {
    for (int64_t h = 0; h < at.heads; ++h) {
      for (int64_t i = 0; i < at.queries(b); ++i) {
        const int64_t query = at.query(b, h, i), row = at.row(b, h, i);
        const float* dout = weight.data<float>() + query;
        weightsOf(at, c.q, c.k, c.options, b, h, i, p);
        double delta = 0;
        for (int64_t d = 0; d < at.dims; ++d) delta += static_cast<double>(dout[d]) * forward.out[query + d];
        for (int64_t j = 0; j < at.keys(b); ++j) {
          const int64_t key = at.key(b, h, j);
          const double z = kept(c.options, row, j);
          double dp = 0;
          for (int64_t d = 0; d < at.dims; ++d) dp += static_cast<double>(dout[d]) * c.v.data<float>()[key + d];
          const double ds = p[j] * (z * dp - delta);
          for (int64_t d = 0; d < at.dims; ++d) {
            g.v[key + d] += p[j] * z * dout[d];
            g.q[query + d] += scale * ds * c.k.data<float>()[key + d];
            g.k[key + d] += scale * ds * c.q.data<float>()[query + d];
          }
          if (c.options.bias) g.bias[biasIndex(*c.options.bias, b, h, i, j)] += ds;
        }
      }
    }
  }
  return g;
}

AttentionGradients backward(const Call& c, const Tensor& weight) {
  static Stream stream;
  const AttentionResult r = ops::attention(stream, c.q, c.k, c.v, c.options);
  AttentionGradients g = ops::attentionBackward(stream, weight, c.q, c.k, c.v, r.out, r.logSumExp, c.options);
  g.q.pending->wait();
  return g;
}

Call plain(Shape q, Shape k) { return {normals(q, 1), normals(k, 2), normals(k, 3), {}, "plain"}; }

}  // namespace

TEST(gradientsMatchTheirFormulas) {
  setThreadCount(4);
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const Call c = draw(seed);
    const Tensor weight = normals(c.q.shape, seed + 77);
    const Gradients expected = gradients(c, weight);
    forEachIsa([&] {
      const AttentionGradients g = backward(c, weight);
      report(near(g.q, expected.q, 1e-5), c, "q");
      report(near(g.k, expected.k, 1e-5), c, "k");
      report(near(g.v, expected.v, 1e-5), c, "v");
      if (c.options.bias) report(near(*g.bias, expected.bias, 1e-5), c, "bias");
    });
  }
}

TEST(bfloat16IsFloat32Rounded) {
  static Stream stream;
  for (uint64_t seed = 500; seed < 700; ++seed) {
    Call half = draw(seed), full = half;
    for (Tensor Call::*t : {&Call::q, &Call::k, &Call::v}) {
      half.*t = toHalves(full.*t);
      full.*t = toFloats(half.*t);
    }
    const Tensor weight = toHalves(normals(half.q.shape, seed + 77)), wideWeight = toFloats(weight);
    const Gradients expected = gradients(full, wideWeight);
    forEachIsa([&] {
      const AttentionGradients g = backward(half, weight);
      CHECK(g.q.dtype == DType::bfloat16 && g.k.dtype == DType::bfloat16 && g.v.dtype == DType::bfloat16);
      // float32 with the same rounded result of the forward pass
      const AttentionResult r = attend(half.q, half.k, half.v, half.options);
      const AttentionGradients wide = ops::attentionBackward(stream, wideWeight, full.q, full.k, full.v,
                                                             toFloats(r.out), r.logSumExp, full.options);
      wide.q.pending->wait();
      report(sameBytes(g.q, toHalves(wide.q)) && sameBytes(g.k, toHalves(wide.k)) && sameBytes(g.v, toHalves(wide.v)),
             full, "rounded");
      if (g.bias) report(sameBytes(*g.bias, *wide.bias), full, "bias");
      // and the formula, but for rounding, whose largest part is that of the forward pass's result
      report(near(toFloats(g.q), expected.q, 0.05), full, "q");
      report(near(toFloats(g.k), expected.k, 0.05), full, "k");
      report(near(toFloats(g.v), expected.v, 0.05), full, "v");
    });
  }
}

TEST(gradientsMatchDifferences) {
  for (uint64_t seed = 2000; seed < 2040; ++seed) {
    Call c = draw(seed);
    if (c.q.count() == 0 || c.k.count() == 0) continue;
    const Tensor weight = normals(c.q.shape, seed + 77);
    const AttentionGradients g = backward(c, weight);
    const auto sum = [&] {
      const Reference r = reference(c.q, c.k, c.v, c.options);
      double total = 0;
      for (int64_t i = 0; i < weight.count(); ++i) total += r.out[i] * static_cast<double>(weight.data<float>()[i]);
      return total;
    };
    Random random(seed, 5);
    std::vector<std::pair<Tensor*, const Tensor*>> inputs{{&c.q, &g.q}, {&c.k, &g.k}, {&c.v, &g.v}};
    if (c.options.bias) inputs.push_back({&*c.options.bias, &*g.bias});
    for (const auto& [input, gradient] : inputs) {
      const int64_t at = static_cast<int64_t>(random.below(static_cast<uint64_t>(input->count())));
      float& x = input->data<float>()[at];
      const float before = x, above = before + 0x1p-9f, below = before - 0x1p-9f;
      if (!std::isfinite(before)) continue;
      x = above;
      const double high = sum();
      x = below;
      const double low = sum();
      x = before;
      const double slope = (high - low) / (static_cast<double>(above) - static_cast<double>(below));
      report(std::fabs(gradient->data<float>()[at] - slope) <= 2e-4 * (1 + std::fabs(slope)), c, "slope");
    }
  }
}

TEST(fewHeadsSplitTheirKeys) {
  forEachIsa([] {
    for (const bool causal : {false, true}) {
      Call c = plain({1, 2, 700, 20}, {1, 1, 1100, 20});
      c.options.causal = causal;
      const Tensor weight = normals(c.q.shape, 5);
      const Gradients expected = gradients(c, weight);
      const AttentionGradients g = backward(c, weight);
      report(near(g.q, expected.q, 1e-5), c, "q");
      report(near(g.k, expected.k, 1e-5), c, "k");
      report(near(g.v, expected.v, 1e-5), c, "v");
    }
  });
}

TEST(sameBytesAtAnyThreadCount) {
  forEachIsa([] {
    for (uint64_t seed = 3000; seed < 3030; ++seed) {
      Call c = draw(seed);
      if (seed == 3000) c = plain({1, 2, 300, 9}, {1, 1, 1500, 9});  // split by keys
      const Tensor weight = normals(c.q.shape, seed);
      setThreadCount(1);
      const AttentionGradients one = backward(c, weight);
      for (int threads : {2, 3, 4}) {
        setThreadCount(threads);
        const AttentionGradients g = backward(c, weight);
        bool same = sameBytes(one.q, g.q) && sameBytes(one.k, g.k) && sameBytes(one.v, g.v);
        if (g.bias) same &= sameBytes(*one.bias, *g.bias);
        report(same, c, "threads");
      }
    }
    setThreadCount(4);
  });
}

TEST(queriesWithoutKeysHaveNoGradient) {
  forEachIsa([] {
    Call c = plain({1, 1, 20, 5}, {1, 1, 7, 5});
    c.options.causal = true;
    const AttentionGradients g = backward(c, normals(c.q.shape, 4));
    for (int64_t i = 0; i < 13 * 5; ++i) CHECK(g.q.data<float>()[i] == 0);
    c = plain({1, 1, 20, 5}, {1, 1, 7, 5});
    c.options.keyMask = Tensor::host(DType::boolean, {1, 7}, true);
    const AttentionGradients none = backward(c, normals(c.q.shape, 4));
    for (const Tensor& t : {none.q, none.k, none.v}) {
      for (float x : t.span<float>()) CHECK(x == 0);
    }
    c = plain({2, 1, 20, 5}, {2, 1, 0, 5});
    const AttentionGradients noKeys = backward(c, normals(c.q.shape, 4));
    for (float x : noKeys.q.span<float>()) CHECK(x == 0);
    c = plain({2, 1, 0, 5}, {2, 1, 7, 5});
    const AttentionGradients noQueries = backward(c, normals(c.q.shape, 4));
    for (float x : noQueries.k.span<float>()) CHECK(x == 0);
  });
}

TEST(badArgumentsAreNamed) {
  static Stream stream;
  const Call c = plain({1, 2, 6, 4}, {1, 2, 5, 4});
  const AttentionResult r = attend(c.q, c.k, c.v);
  const auto call = [&](const Tensor& weight, const Tensor& out, const Tensor& sums) {
    ops::attentionBackward(stream, weight, c.q, c.k, c.v, out, sums, {}).q.pending->wait();
  };
  const auto throws = [&](const Tensor& weight, const Tensor& out, const Tensor& sums, const std::string& message) {
    try {
      call(weight, out, sums);
    } catch (const Error& e) {
      return concat(text(e.code()), " ", e.what()).starts_with(message);
    }
    return false;
  };
  CHECK(throws(normals({1, 2, 5, 4}, 1), r.out, r.logSumExp, "ERR_SHAPE outGradient: "));
  CHECK(throws(r.out, normals({1, 2, 6, 3}, 1), r.logSumExp, "ERR_SHAPE out: "));
  CHECK(throws(r.out, r.out, normals({1, 2, 5}, 1), "ERR_SHAPE logSumExp: "));
  CHECK(throws(vectorOf<int32_t>({1}), r.out, r.logSumExp, "ERR_DTYPE outGradient: "));
  CHECK(throws(toHalves(r.out), r.out, r.logSumExp, "ERR_DTYPE outGradient: expected float32, as q is"));
  CHECK(throws(r.out, toHalves(r.out), r.logSumExp, "ERR_DTYPE out: "));
  CHECK(throws(r.out, r.out, toHalves(r.logSumExp), "ERR_DTYPE logSumExp: expected float32"));
  Tensor weight = normals(c.q.shape, 1);
  weight.data<float>()[7] = std::nanf("");
  CHECK(throws(weight, r.out, r.logSumExp, "ERR_VALUE outGradient: expected finite numbers but element 7"));
}

TEST_MAIN()
