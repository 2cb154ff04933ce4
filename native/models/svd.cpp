#include "models/svd.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>

#include "backend/registry.h"
#include "core/random.h"
#include "ops/ops.h"

namespace topknot {
namespace {

using MatrixF = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Some columns of a row-major matrix.
struct Columns {
  float* data;
  int64_t rows, cols, stride;

  Columns part(int64_t first, int64_t count) const { return {data + first, rows, count, stride}; }
};

Columns all(const Tensor& t) { return {t.data<float>(), t.rows(), t.cols(), t.cols()}; }

/// The spaces of one iteration: a basis on the side that is iterated on, and its image under the matrix.
class BlockKrylov {
 public:
  /// `a` [m, n] with n <= m, and its transpose.
  BlockKrylov(Job& job, const Csr& a, const Csr& at, const SvdOptions& o)
      : job_(job),
        a_(a),
        at_(at),
        k_(o.k),
        block_(std::min(o.k + o.oversampling, a.cols)),
        depth_(depthOf(block_, a.cols)),
        basis_(Tensor::host<float>({a.cols, block_ * (depth_ + 1)})),
        image_(Tensor::host<float>({a.rows(), block_ * (depth_ + 1)})) {}

  int64_t block() const { return block_; }
  int64_t depth() const { return depth_; }
  int64_t products() const { return products_; }
  /// The block that the next cycle starts from, orthonormal, and its image: after `start` and after `cycle`.
  Columns directions() const { return all(basis_).part(0, block_); }
  Columns images() const { return all(image_).part(0, block_); }

  void start(const std::optional<Tensor>& from, int64_t seed) {
    const Columns x = directions();
    const int64_t given = from ? std::min(from->cols(), block_) : 0;
    parallelFor(x.rows, 256, job_.exec(), [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) {
        Random random(static_cast<uint64_t>(seed), static_cast<uint64_t>(r));
        for (int64_t c = 0; c < x.cols; ++c) {
          const double normal = random.normal();
          x.data[r * x.stride + c] = c < given ? from->data<float>()[r * from->cols() + c] : static_cast<float>(normal);
        }
      }
    });
    for (int pass = 0; pass < 2; ++pass) orthonormalize(x, {});
    multiply(a_, x, images());
  }

  /// Grows the space from the directions, unless the residuals of the first k are small enough: they are returned
  /// relative to the largest σ².
  double grow(double tolerance) {
    double residual = 0;
    for (int64_t t = 0; t < depth_; ++t) {
      const Columns next = all(basis_).part((t + 1) * block_, block_);
      multiply(at_, all(image_).part(t * block_, block_), next);
      if (t == 0 && (residual = residualOf(next)) <= tolerance) break;
      const std::vector<double> before = norms(next);
      for (int pass = 0; pass < 2; ++pass) {
        project(next, all(basis_).part(0, (t + 1) * block_));
        orthonormalize(next, pass == 0 ? before : std::vector<double>());
      }
      multiply(a_, next, all(image_).part((t + 1) * block_, block_));
      ++products_;
      job_.checkCancelled();
    }
    return residual;
  }

  /// The best directions of the space become the next block.
  void restart() {
    const int64_t size = basis_.cols();
    const Tensor gram = Tensor::host<float>({size, size});
    run(cpuBackend(), &Backend::gram, "gram", job_.exec(),
        GramArgs{{image_.data<float>(), image_.rows(), size}, 1, gram.data<float>()});
    job_.checkCancelled();
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> ritz(
        Eigen::Map<const MatrixF>(gram.data<float>(), size, size).cast<double>());
    const Tensor best = Tensor::host<float>({size, block_});
    Eigen::Map<MatrixF>(best.data<float>(), size, block_) =
        ritz.eigenvectors().rightCols(block_).rowwise().reverse().cast<float>();
    const Columns x = replaced(basis_, best);
    straighten(x);
    multiply(a_, x, images());
    job_.checkCancelled();
  }

 private:
  /// About 512 columns, as the eigenproblem of a restart has that order, and no more than can be independent.
  static int64_t depthOf(int64_t block, int64_t cols) {
    return std::min(std::clamp<int64_t>(512 / block - 1, 2, 8), std::max<int64_t>(1, (cols - 1) / block));
  }

  void multiply(const Csr& m, const Columns& x, const Columns& out) {
    run(cpuBackend(), &Backend::spmm, "spmm", job_.exec(),
        SpmmArgs{m.view(), nullptr, m.rows(), x.data, x.stride, x.cols, out.data, out.stride});
  }

  /// c = alpha op(a) b + beta c
  void multiply(const Columns& a, bool transposed, const Columns& b, float alpha, float beta, const Columns& c) {
    run(cpuBackend(), &Backend::matmul, "matmul", job_.exec(),
        MatmulArgs{.m = c.rows,
                   .n = c.cols,
                   .k = b.rows,
                   .a = {a.data, a.stride, transposed},
                   .b = {b.data, b.stride},
                   .c = c.data,
                   .cStride = c.stride,
                   .alpha = alpha,
                   .beta = beta});
  }

  /// The first block of `m` becomes m · factor.
  Columns replaced(const Tensor& m, const Tensor& factor) {
    const Tensor product = Tensor::host<float>({m.rows(), factor.cols()});
    multiply(all(m), false, all(factor), 1, 0, all(product));
    const Columns out = all(m).part(0, factor.cols());
    copy(product, out);
    return out;
  }

  void copy(const Tensor& from, const Columns& to) {
    parallelFor(to.rows, 1024, job_.exec(), [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r)
        std::copy_n(from.data<float>() + r * to.cols, to.cols, to.data + r * to.stride);
    });
  }

  /// x -= v vᵀx
  void project(const Columns& x, const Columns& v) {
    const Tensor c = Tensor::host<float>({v.cols, x.cols});
    multiply(v, true, x, 1, 0, all(c));
    multiply(v, false, all(c), -1, 1, x);
  }

  Eigen::MatrixXd gramOf(const Columns& x) {
    const Tensor g = Tensor::host<float>({x.cols, x.cols});
    multiply(x, true, x, 1, 0, all(g));
    return Eigen::Map<const MatrixF>(g.data<float>(), x.cols, x.cols).cast<double>();
  }

  std::vector<double> norms(const Columns& x) {
    const Eigen::VectorXd d = gramOf(x).diagonal();
    std::vector<double> out(static_cast<size_t>(x.cols));
    for (int64_t c = 0; c < x.cols; ++c) out[c] = std::sqrt(std::max(0.0, d[c]));
    return out;
  }

  /// x becomes orthonormal: x D Q Λ^-½ with D xᵀx D = Q Λ Qᵀ (Stathopoulos, Wu, "A block orthogonalization procedure
  /// with constant synchronization requirements", 2002). What is no more than rounding, of itself or of the lengths
  /// `before` something was subtracted, becomes zero: a space that is exhausted gets no noise.
  void orthonormalize(const Columns& x, const std::vector<double>& before) {
    const Eigen::MatrixXd gram = gramOf(x);
    Eigen::VectorXd scale = Eigen::VectorXd::Zero(x.cols);
    for (int64_t c = 0; c < x.cols; ++c) {
      const double length = std::sqrt(std::max(0.0, gram(c, c)));
      if (length > 0 && (before.empty() || length > 1e-5 * before[c])) scale[c] = 1 / length;
    }
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(scale.asDiagonal() * gram * scale.asDiagonal());
    const double largest = eigen.eigenvalues()[x.cols - 1];
    Eigen::VectorXd inverse = Eigen::VectorXd::Zero(x.cols);
    for (int64_t c = 0; c < x.cols; ++c) {
      if (eigen.eigenvalues()[c] > 1e-6 * largest) inverse[c] = 1 / std::sqrt(eigen.eigenvalues()[c]);
    }
    const Tensor factor = Tensor::host<float>({x.cols, x.cols});
    Eigen::Map<MatrixF>(factor.data<float>(), x.cols, x.cols) =
        (scale.asDiagonal() * eigen.eigenvectors() * inverse.asDiagonal()).cast<float>();
    transform(x, factor);
  }

  /// x (1.5 I - 0.5 xᵀx): what rounding has left of x's distance from orthonormal is squared, and its columns stay
  /// apart.
  void straighten(const Columns& x) {
    const Tensor factor = Tensor::host<float>({x.cols, x.cols});
    Eigen::Map<MatrixF>(factor.data<float>(), x.cols, x.cols) =
        (1.5 * Eigen::MatrixXd::Identity(x.cols, x.cols) - 0.5 * gramOf(x)).cast<float>();
    transform(x, factor);
  }

  void transform(const Columns& x, const Tensor& factor) {
    const Tensor product = Tensor::host<float>({x.rows, x.cols});
    multiply(x, false, all(factor), 1, 0, all(product));
    copy(product, x);
  }

  /// The largest |AᵀA x - θ x| / θ₁ of the first k directions, `product` being AᵀA x and θ = |A x|².
  double residualOf(const Columns& product) {
    const std::vector<double> sigma = norms(images());
    const Columns x = directions();
    std::vector<double> squares(static_cast<size_t>(k_));
    for (int64_t r = 0; r < x.rows; ++r) {
      for (int64_t c = 0; c < std::min(k_, x.cols); ++c) {
        const double d = static_cast<double>(product.data[r * product.stride + c]) -
                         sigma[c] * sigma[c] * static_cast<double>(x.data[r * x.stride + c]);
        squares[c] += d * d;
      }
    }
    const double first = *std::max_element(sigma.begin(), sigma.end());
    const double worst = std::sqrt(*std::max_element(squares.begin(), squares.end()));
    return first > 0 ? worst / (first * first) : 0;
  }

  Job& job_;
  const Csr &a_, &at_;
  int64_t k_, block_, depth_, products_ = 0;
  Tensor basis_, image_;
};

/// The first k directions x and their images A x, as v, s and u. `signs`: the one whose largest elements are positive.
Svd decomposed(const Columns& x, const Columns& ax, const Columns& signs, int64_t k) {
  Svd out{};
  out.u = Tensor::host<float>({ax.rows, k}, true);
  out.s = Tensor::host<float>({k}, true);
  out.v = Tensor::host<float>({x.rows, k}, true);
  std::vector<std::pair<double, int64_t>> order;
  for (int64_t c = 0; c < std::min(k, x.cols); ++c) {
    double square = 0;
    for (int64_t r = 0; r < ax.rows; ++r) {
      const double y = static_cast<double>(ax.data[r * ax.stride + c]);
      square += y * y;
    }
    order.emplace_back(-std::sqrt(square), c);
  }
  std::sort(order.begin(), order.end());
  for (size_t j = 0; j < order.size(); ++j) {
    const auto [negative, c] = order[j];
    const double sigma = -negative;
    if (!(sigma > -1e-5 * order[0].first)) break;  // beyond the rank there is only rounding
    float most = 0;
    for (int64_t r = 0; r < signs.rows; ++r) {
      const float v = signs.data[r * signs.stride + c];
      if (std::abs(v) > std::abs(most)) most = v;
    }
    const double sign = most < 0 ? -1 : 1;
    out.s.data<float>()[j] = static_cast<float>(sigma);
    for (int64_t r = 0; r < x.rows; ++r) {
      out.v.data<float>()[r * k + static_cast<int64_t>(j)] =
          static_cast<float>(sign * static_cast<double>(x.data[r * x.stride + c]));
    }
    for (int64_t r = 0; r < ax.rows; ++r) {
      out.u.data<float>()[r * k + static_cast<int64_t>(j)] =
          static_cast<float>(sign * static_cast<double>(ax.data[r * ax.stride + c]) / sigma);
    }
  }
  return out;
}

/// Multiplies the values by the power of two that takes the largest to about 1, so that squares neither overflow nor
/// vanish; answers what singular values must be multiplied by.
double normalize(Csr& m) {
  float largest = 0;
  for (const float x : m.values.span<const float>()) largest = std::max(largest, std::abs(x));
  const int exponent = largest > 0 ? std::ilogb(largest) : 0;
  if (exponent >= -16 && exponent <= 16) return 1;
  const Tensor values = Tensor::host<float>({m.nnz()});
  for (int64_t e = 0; e < m.nnz(); ++e) {
    values.data<float>()[e] = std::ldexp(m.values.data<float>()[e], -exponent);
  }
  m.values = values;
  return std::ldexp(1.0, exponent);
}

void checkOptions(const SvdOptions& o) {
  require(o.k >= 1 && o.k <= 2048, ErrorCode::range, "k: expected 1 to 2048 but received ", o.k);
  require(o.oversampling >= 0 && o.oversampling <= 1024, ErrorCode::range,
          "oversampling: expected 0 to 1024 but received ", o.oversampling);
  require(o.tolerance > 0 && o.tolerance < 1, ErrorCode::range,
          "tolerance: expected a number between 0 and 1 but received ", o.tolerance);
  require(o.maxCycles >= 1, ErrorCode::range, "maxCycles: expected 1 or more but received ", o.maxCycles);
}

}  // namespace

namespace ops {

Svd truncatedSvd(Job& job, Csr matrix, std::optional<Tensor> start, SvdOptions o) {
  csrValidate(job, matrix);
  checkOptions(o);
  require(matrix.rows() > 0 && matrix.cols > 0, ErrorCode::shape,
          "matrix: expected at least one row and one column but received [", matrix.rows(), ", ", matrix.cols, "]");
  if (start) {
    expect(*start, "start", DType::float32, 2);
    require(start->rows() == matrix.cols, ErrorCode::shape, "start: expected ", matrix.cols,
            " rows, as many as the matrix has columns, but received ", start->rows());
    requireFinite(job, *start);
  }
  const double scale = normalize(matrix);
  // The iteration runs on the shorter side.
  const bool swapped = matrix.rows() < matrix.cols;
  const Csr transposed = csrTranspose(job, matrix);
  const Csr &a = swapped ? transposed : matrix, &at = swapped ? matrix : transposed;
  if (swapped && start) {
    const Tensor image = Tensor::host<float>({matrix.rows(), start->cols()});
    run(cpuBackend(), &Backend::spmm, "spmm", job.exec(),
        SpmmArgs{matrix.view(), nullptr, matrix.rows(), start->data<float>(), start->cols(), start->cols(),
                 image.data<float>(), start->cols()});
    start = image;
  }
  BlockKrylov space(job, a, at, o);
  space.start(start, o.seed);
  double residual = 1, least = 1;
  int idle = 0;  // cycles in a row without progress: what is left is rounding
  const double total = static_cast<double>(o.maxCycles);
  for (int64_t cycle = 0; cycle < o.maxCycles; ++cycle) {
    job.progress({static_cast<double>(cycle), total, std::nan("")});
    residual = space.grow(cycle == 0 ? 0 : o.tolerance);
    if (cycle > 0 && residual <= o.tolerance) break;
    idle = cycle > 1 && residual > 0.8 * least ? idle + 1 : 0;
    if (idle == 2) break;
    least = std::min(least, residual);
    space.restart();
  }
  job.progress({total, total, std::nan("")});
  const Columns x = space.directions(), ax = space.images();
  Svd out = decomposed(x, ax, swapped ? ax : x, o.k);
  if (swapped) std::swap(out.u, out.v);
  require(std::isfinite(residual), ErrorCode::value, "matrix: its singular values could not be found in float32");
  for (float& s : out.s.span<float>()) {
    s = static_cast<float>(scale * static_cast<double>(s));
    require(std::isfinite(s), ErrorCode::value, "matrix: its singular values exceed float32: scale the values down");
  }
  out.residual = residual;
  out.products = space.products();
  return out;
}

}  // namespace ops
}  // namespace topknot
