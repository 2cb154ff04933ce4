// The CUDA building blocks of networks under the SIMT emulator, and on the GPUs of this machine if there are any,
// against the CPU.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <optional>

#include "core/random.h"
#include "test/check.h"
#include "test/placed.h"
#include "test/simt/backend.h"

using namespace topknot;
using topknot::test::Placed;

namespace {

using Floats = std::vector<float>;
/// One call of a slot: what it writes.
using Call = std::function<Floats(const Backend&, const Exec&)>;
/// How a call is made on a GPU.
using Gpu = std::function<Floats(const Call&)>;

constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();

Floats normals(int64_t count, uint64_t seed, float scale = 1) {
  Random random(seed, 0);
  Floats out;
  for (int64_t i = 0; i < count; ++i) out.push_back(scale * static_cast<float>(random.normal()));
  return out;
}

/// Numbers in a `shift` floats behind an aligned place.
Floats shifted(const Floats& values, int64_t shift) {
  Floats out(values.size() + shift);
  std::copy(values.begin(), values.end(), out.begin() + shift);
  return out;
}

Floats emulated(const Call& call) {
  static const Backend backend = cuda::emulatedBackend();
  std::optional<Floats> first;
  simt::everySchedule([&] {
    Floats out = call(backend, {});
    if (first && !out.empty()) CHECK(std::memcmp(first->data(), out.data(), out.size() * sizeof out[0]) == 0);
    first = std::move(out);
  });
  CHECK(simt::liveAllocations() == 0);
  return *first;
}

Floats onCpu(const Call& call) { return call(cpuBackend(), {}); }

/// |got - want| <= absolute + relative |want|; NaN wants NaN, an infinity itself.
void checkNear(const char* what, const Floats& got, const Floats& want, double relative, double absolute) {
  CHECK(got.size() == want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i]))) continue;
    const bool near = std::fabs(static_cast<double>(got[i]) - want[i]) <=
                      absolute + relative * std::fabs(static_cast<double>(want[i]));
    CHECK(near && std::isfinite(want[i]));
    if (near && std::isfinite(want[i])) continue;
    std::printf("  %s, element %zu: %.9g, on the CPU %.9g\n", what, i, got[i], want[i]);
    return;
  }
}

void compare(const char* what, const Gpu& gpu, const Call& call, double relative, double absolute) {
  checkNear(what, gpu(call), onCpu(call), relative, absolute);
}

void checkUnary(const Gpu& gpu) {
  for (const Unary f : {Unary::none, Unary::relu, Unary::gelu, Unary::geluTanh, Unary::sigmoid, Unary::tanh,
                        Unary::silu, Unary::exp, Unary::log, Unary::sqrt}) {
    for (const int64_t count : {0, 1, 3, 1031}) {
      Floats x = normals(count, 1, 3);
      if (count > 100) {
        const Floats special{nan, inf, -inf, 0, -0.0f, 90, -90, 200, -200, 3e38f, -3e38f, 1e-40f, 1, -1};
        std::copy(special.begin(), special.end(), x.begin() + 20);
      }
      for (const int64_t shift : {0, 1}) {
        const auto forward = [&](const Backend& backend, const Exec& exec) {
          Placed memory(backend, exec);
          const Floats placed = shifted(x, shift);
          Floats out(x.size(), -7);
          const UnaryArgs args{f, memory.place(placed) + shift, count, memory.place(out)};
          check(backend.unary(exec, args));
          memory.fetch(out, args.out);
          return out;
        };
        compare("unary", gpu, forward, 2e-6, 1e-7);
        const bool tells = f == Unary::relu || f == Unary::sigmoid || f == Unary::tanh;
        for (const bool fromOut : {false, true}) {
          if (fromOut && !tells) continue;
          const Floats given = fromOut ? onCpu(forward) : x;
          compare(
              "unaryGradient", gpu,
              [&](const Backend& backend, const Exec& exec) {
                Placed memory(backend, exec);
                const Floats placed = shifted(normals(count, 2), shift);
                Floats out(x.size(), -7);
                const UnaryGradientArgs args{f,       memory.place(given), memory.place(placed) + shift, count,
                                             fromOut, memory.place(out)};
                check(backend.unaryGradient(exec, args));
                memory.fetch(out, args.out);
                return out;
              },
              4e-6, 4e-7);
        }
      }
    }
  }
}

/// Operand a has the dimensions of `dims` that are in the bits of `aHas`, and one element along the others.
void checkBinaryShape(const Gpu& gpu, const std::vector<int64_t>& dims, int aHas, int bHas, int64_t shift) {
  for (const Binary f : {Binary::add, Binary::subtract, Binary::multiply, Binary::divide}) {
    BinaryArgs args{f, nullptr, nullptr, static_cast<int32_t>(dims.size()), {}, {}, {}, nullptr};
    int64_t aCount = 1, bCount = 1, count = 1;
    for (int d = args.rank - 1; d >= 0; --d) {
      args.dims[d] = dims[d];
      args.aStride[d] = aHas >> d & 1 ? aCount : 0;
      args.bStride[d] = bHas >> d & 1 ? bCount : 0;
      if (aHas >> d & 1) aCount *= dims[d];
      if (bHas >> d & 1) bCount *= dims[d];
      count *= dims[d];
    }
    Floats a = normals(aCount, 3), b = normals(bCount, 4);
    if (aCount > 6) a[1] = nan, a[2] = inf, a[3] = 0;
    if (bCount > 6) b[2] = inf, b[3] = 0, b[4] = 0, b[5] = -inf;
    a = shifted(a, shift);
    compare(
        "binary", gpu,
        [&](const Backend& backend, const Exec& exec) {
          Placed memory(backend, exec);
          Floats out(static_cast<size_t>(count), -7);
          BinaryArgs placed = args;
          placed.a = memory.place(a) + shift, placed.b = memory.place(b), placed.out = memory.place(out);
          check(backend.binary(exec, placed));
          memory.fetch(out, placed.out);
          return out;
        },
        0, 0);
  }
}

void checkBinary(const Gpu& gpu) {
  for (const int64_t shift : {0, 1}) {
    checkBinaryShape(gpu, {1031}, 1, 1, shift);
    checkBinaryShape(gpu, {1024}, 1, 0, shift);
    checkBinaryShape(gpu, {12, 36}, 3, 2, shift);  // a row for all rows
    checkBinaryShape(gpu, {12, 36}, 3, 1, shift);  // a number for each row
    checkBinaryShape(gpu, {12, 35}, 1, 2, shift);
    checkBinaryShape(gpu, {3, 5, 8}, 5, 7, shift);
    checkBinaryShape(gpu, {2, 1, 3, 4, 1, 5, 2, 4}, 0b10100101, 0b11011010, shift);
    checkBinaryShape(gpu, {3, 0, 2}, 7, 7, shift);
    checkBinaryShape(gpu, {1, 1}, 0, 3, shift);
  }
}

struct Shape {
  int64_t outer, length, inner;
};
const std::vector<Shape> shapes{{1, 1, 1},    {3, 5, 1},     {9, 1024, 1}, {2, 3000, 1}, {4, 7, 5},
                                {2, 300, 33}, {1, 17000, 2}, {0, 3, 2},    {2, 3, 0},    {300, 2, 1}};

void checkReduce(const Gpu& gpu) {
  std::vector<Shape> all = shapes;
  all.push_back({2, 0, 3});
  all.push_back({2, 0, 1});
  for (const auto& [outer, length, inner] : all) {
    for (const Reduction kind : {Reduction::sum, Reduction::mean, Reduction::max}) {
      const Floats x = normals(outer * length * inner, 5);
      const auto reduce = [&](const Floats& of) {
        return [&](const Backend& backend, const Exec& exec) {
          Placed memory(backend, exec);
          Floats out(static_cast<size_t>(outer * inner), -7);
          const ReduceArgs args{kind, memory.place(of), outer, length, inner, memory.place(out)};
          check(backend.reduce(exec, args));
          memory.fetch(out, args.out);
          return out;
        };
      };
      Floats sizes = x, special = x;
      for (float& value : sizes) value = std::fabs(value);
      double largest = 0;
      for (const float size : onCpu(reduce(sizes))) largest = std::fmax(largest, size);
      compare("reduce", gpu, reduce(x), 0, kind == Reduction::max ? 0 : 0x1p-20 * largest);
      if (special.empty()) continue;
      special[special.size() / 2] = nan;
      special[special.size() / 3] = inf;
      special[0] = -inf;
      compare("reduce of NaN and infinities", gpu, reduce(special), 0, 0x1p-20 * largest);
    }
  }
}

void checkReduceGradient(const Gpu& gpu) {
  for (const auto& [outer, length, inner] : shapes) {
    for (const Reduction kind : {Reduction::sum, Reduction::mean, Reduction::max}) {
      Floats x = normals(outer * length * inner, 6);
      for (float& value : x) value = std::nearbyint(value);  // many maxima alike
      if (x.size() > 20) x[x.size() / 2] = x[x.size() - 2] = nan;
      for (int64_t l = 0; inner > 2 && l < length; ++l) x[l * inner + 1] = -inf;
      compare(
          "reduceGradient", gpu,
          [&](const Backend& backend, const Exec& exec) {
            Placed memory(backend, exec);
            Floats out(x.size(), -7);
            const Floats gradient = normals(outer * inner, 7);
            const ReduceGradientArgs args{kind,   memory.place(x), memory.place(gradient), outer,
                                          length, inner,           memory.place(out)};
            check(backend.reduceGradient(exec, args));
            memory.fetch(out, args.out);
            return out;
          },
          0, 0);
    }
  }
}

struct Matrix {
  int64_t rows, cols;
};
const std::vector<Matrix> matrices{{0, 5}, {1, 1}, {9, 7}, {10, 32}, {3, 1024}, {20, 1025}, {3, 3000}};

void checkSoftmax(const Gpu& gpu) {
  for (const auto& [rows, cols] : matrices) {
    for (const bool log : {false, true}) {
      Floats x = normals(rows * cols, 8, 5);
      if (rows > 8) {
        x[1] = -inf, x[cols] = nan, x[2 * cols + 1] = inf, x[3 * cols + 2] = 1e4f, x[4 * cols + 2] = 3e38f;
        std::fill_n(x.begin() + 5 * cols, cols, -inf);
        std::fill_n(x.begin() + 6 * cols, cols, -inf);
        x[6 * cols] = nan;
      }
      const auto forward = [&](const Backend& backend, const Exec& exec) {
        Placed memory(backend, exec);
        Floats out(x.size(), -7);
        const SoftmaxArgs args{memory.place(x), rows, cols, log, memory.place(out)};
        check(backend.softmax(exec, args));
        memory.fetch(out, args.out);
        return out;
      };
      compare("softmax", gpu, forward, 2e-6, 1e-6);
      const Floats y = onCpu(forward);
      compare(
          "softmaxGradient", gpu,
          [&](const Backend& backend, const Exec& exec) {
            Placed memory(backend, exec);
            const Floats gradient = normals(rows * cols, 9);
            Floats out(x.size(), -7);
            const SoftmaxGradientArgs args{memory.place(y), memory.place(gradient), rows, cols, log, memory.place(out)};
            check(backend.softmaxGradient(exec, args));
            memory.fetch(out, args.out);
            return out;
          },
          2e-6, 2e-5);
    }
  }
}

void checkLayerNorm(const Gpu& gpu) {
  std::vector<Matrix> all = matrices;
  all.push_back({300, 6});
  for (const auto& [rows, cols] : all) {
    for (const bool affine : {false, true}) {
      Floats x = normals(rows * cols, 10);
      for (float& value : x) value += 3;
      if (rows > 8) x[2 * cols] = nan, x[3 * cols + 1] = inf;
      const Floats weight = normals(cols, 11), bias = normals(cols, 12), gradient = normals(rows * cols, 13);
      const auto place = [&](Placed& memory, const Floats& of) { return affine ? memory.place(of) : nullptr; };
      compare(
          "layerNorm", gpu,
          [&](const Backend& backend, const Exec& exec) {
            Placed memory(backend, exec);
            Floats out(x.size(), -7);
            const LayerNormArgs args{memory.place(x), place(memory, weight), place(memory, bias), rows, cols,
                                     1e-5f,           memory.place(out)};
            check(backend.layerNorm(exec, args));
            memory.fetch(out, args.out);
            return out;
          },
          1e-5, 1e-5);
      for (const int wanted : {0, 1, 2, 3}) {  // which of the sums over rows
        compare(
            "layerNormGradient", gpu,
            [&](const Backend& backend, const Exec& exec) {
              Placed memory(backend, exec);
              Floats out(x.size(), -7), weightSums(cols, -7), biasSums(cols, -7);
              const LayerNormGradientArgs args{memory.place(x),
                                               place(memory, weight),
                                               memory.place(gradient),
                                               rows,
                                               cols,
                                               1e-5f,
                                               memory.place(out),
                                               wanted & 1 ? memory.place(weightSums) : nullptr,
                                               wanted & 2 ? memory.place(biasSums) : nullptr};
              check(backend.layerNormGradient(exec, args));
              memory.fetch(out, args.out);
              if (wanted & 1) memory.fetch(weightSums, args.weightGradient);
              if (wanted & 2) memory.fetch(biasSums, args.biasGradient);
              out.insert(out.end(), weightSums.begin(), weightSums.end());
              out.insert(out.end(), biasSums.begin(), biasSums.end());
              return out;
            },
            1e-5, 2e-5);
      }
    }
  }
}

}  // namespace

TEST(functionsOfOneTensor) { checkUnary(emulated); }
TEST(functionsOfTwoTensors) { checkBinary(emulated); }
TEST(reductions) { checkReduce(emulated); }
TEST(gradientsOfReductions) { checkReduceGradient(emulated); }
TEST(softmaxOfRows) { checkSoftmax(emulated); }
TEST(layerNormOfRows) { checkLayerNorm(emulated); }

TEST(onTheGpusOfThisMachine) {
  const std::vector<DeviceInfo> all = devices();
  if (std::getenv("TOPKNOT_CUDA_BUILT")) CHECK(cudaProblem().find("plugin is not") == std::string::npos);
  for (size_t i = 1; i < all.size(); ++i) {
    const Gpu gpu = [&](const Call& call) {
      return call(backendOf(all[i].device), Exec{.device = all[i].device.index});
    };
    for (const auto& checks :
         {checkUnary, checkBinary, checkReduce, checkReduceGradient, checkSoftmax, checkLayerNorm}) {
      checks(gpu);
    }
  }
}

TEST_MAIN()
