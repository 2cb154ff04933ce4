#include "models/svd.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>

#include "backend/memory.h"
#include "backend/registry.h"
#include "core/random.h"
#include "models/row_blocks.h"
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
  /// `a` [m, n] with n <= m, and its transpose. Products are computed on `device`, eigenproblems on the host.
  BlockKrylov(Job& job, Device device, const Csr& a, const Csr& at, const SvdOptions& o)
      : job_(job),
        device_(device),
        rows_(a.rows()),
        cols_(a.cols),
        k_(o.k),
        block_(std::min(o.k + o.oversampling, a.cols)),
        depth_(depthOf(block_, a.cols)),
        room_(roomForRows(a, 4 * block_ * (depth_ + 3) * (rows_ + cols_), device, o.deviceBytes)),
        basis_(empty<float>(device, {cols_, block_ * (depth_ + 1)})),
        image_(empty<float>(device, {rows_, block_ * (depth_ + 1)})),
        one_(Tensor::host<float>({1})),
        a_(a, device, room_),
        at_(at, device, room_) {
    one_.data<float>()[0] = 1;
    one_ = copyTo(one_, device);
  }

  int64_t block() const { return block_; }
  int64_t depth() const { return depth_; }
  int64_t products() const { return products_; }
  /// The block that the next cycle starts from, orthonormal, and its image: after `start` and after `cycle`.
  Columns directions() const { return all(basis_).part(0, block_); }
  Columns images() const { return all(image_).part(0, block_); }

  /// A copy of some columns.
  Tensor copyOf(const Columns& x) const {
    const Tensor out = empty<float>(device_, {x.rows, x.cols});
    BinaryArgs args{Binary::multiply, x.data, one_.data<float>(), 2, {x.rows, x.cols}, {x.stride, 1}, {}, {}};
    args.out = out.data<float>();
    run(device_, &Backend::binary, "binary", job_.exec(), args);
    return out;
  }

  void start(const std::optional<Tensor>& from, int64_t seed) {
    const Tensor first = Tensor::host<float>({cols_, block_});
    const Columns x = all(first);
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
    orthonormalize(copyTo(first, device_), {}, directions());
    orthonormalize(copyOf(directions()), {}, directions());
    multiply(a_, directions(), images());
  }

  /// Grows the space from the directions, unless the residuals of the first k are small enough: they are returned
  /// relative to the largest σ².
  double grow(double tolerance) {
    double residual = 0;
    for (int64_t t = 0; t < depth_; ++t) {
      const Tensor grown = empty<float>(device_, {cols_, block_});
      multiply(at_, all(image_).part(t * block_, block_), all(grown));
      if (t == 0 && (residual = residualOf(grown)) <= tolerance) break;
      const std::vector<double> before = norms(all(grown));
      const Columns basis = all(basis_).part(0, (t + 1) * block_), next = all(basis_).part((t + 1) * block_, block_);
      project(all(grown), basis);
      orthonormalize(grown, before, next);
      project(next, basis);
      orthonormalize(copyOf(next), {}, next);
      multiply(a_, next, all(image_).part((t + 1) * block_, block_));
      ++products_;
      job_.checkCancelled();
    }
    return residual;
  }

  /// The best directions of the space become the next block.
  void restart() {
    const int64_t size = basis_.cols();
    const Tensor gram = empty<float>(device_, {size, size});
    run(device_, &Backend::gram, "gram", job_.exec(),
        GramArgs{{image_.data<float>(), image_.rows(), size}, 1, gram.data<float>()});
    job_.checkCancelled();
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> ritz(onHost(gram));
    const Tensor best = empty<float>(device_, {cols_, block_});
    multiply(all(basis_), false, all(placed(ritz.eigenvectors().rightCols(block_).rowwise().reverse())), 1, 0,
             all(best));
    straighten(best, directions());
    multiply(a_, directions(), images());
    job_.checkCancelled();
  }

 private:
  /// About 512 columns, as the eigenproblem of a restart has that order, and no more than can be independent.
  static int64_t depthOf(int64_t block, int64_t cols) {
    return std::min(std::clamp<int64_t>(512 / block - 1, 2, 8), std::max<int64_t>(1, (cols - 1) / block));
  }

  void multiply(const RowBlocks& m, const Columns& x, const Columns& out) {
    m.each([&](const RowBlock& block) {
      run(device_, &Backend::spmm, "spmm", job_.exec(),
          SpmmArgs{block.rows.view(), nullptr, block.rows.rows(), x.data, x.stride, x.cols,
                   out.data + block.first * out.stride, out.stride});
      job_.checkCancelled();
    });
  }

  /// c = alpha op(a) b + beta c
  void multiply(const Columns& a, bool transposed, const Columns& b, float alpha, float beta, const Columns& c) {
    run(device_, &Backend::matmul, "matmul", job_.exec(),
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

  /// A small matrix, from the device and to it.
  static Eigen::MatrixXd onHost(const Tensor& m) {
    const Tensor host = copyTo(m, {});
    return Eigen::Map<const MatrixF>(host.data<float>(), host.rows(), host.cols()).cast<double>();
  }
  Tensor placed(const Eigen::MatrixXd& m) const {
    const Tensor host = Tensor::host<float>({m.rows(), m.cols()});
    Eigen::Map<MatrixF>(host.data<float>(), m.rows(), m.cols()) = m.cast<float>();
    return copyTo(host, device_);
  }

  /// x -= v vᵀx
  void project(const Columns& x, const Columns& v) {
    const Tensor c = empty<float>(device_, {v.cols, x.cols});
    multiply(v, true, x, 1, 0, all(c));
    multiply(v, false, all(c), -1, 1, x);
  }

  Eigen::MatrixXd gramOf(const Columns& x) {
    const Tensor g = empty<float>(device_, {x.cols, x.cols});
    multiply(x, true, x, 1, 0, all(g));
    return onHost(g);
  }

  std::vector<double> norms(const Columns& x) {
    const Eigen::VectorXd d = gramOf(x).diagonal();
    std::vector<double> out(static_cast<size_t>(x.cols));
    for (int64_t c = 0; c < x.cols; ++c) out[c] = std::sqrt(std::max(0.0, d[c]));
    return out;
  }

  /// out = x made orthonormal: x D Q Λ^-½ with D xᵀx D = Q Λ Qᵀ (Stathopoulos, Wu, "A block orthogonalization procedure
  /// with constant synchronization requirements", 2002). What is no more than rounding, of itself or of the lengths
  /// `before` something was subtracted, becomes zero: a space that is exhausted gets no noise.
  void orthonormalize(const Tensor& x, const std::vector<double>& before, const Columns& out) {
    const Eigen::MatrixXd gram = gramOf(all(x));
    Eigen::VectorXd scale = Eigen::VectorXd::Zero(x.cols());
    for (int64_t c = 0; c < x.cols(); ++c) {
      const double length = std::sqrt(std::max(0.0, gram(c, c)));
      if (length > 0 && (before.empty() || length > 1e-5 * before[c])) scale[c] = 1 / length;
    }
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(scale.asDiagonal() * gram * scale.asDiagonal());
    const double largest = eigen.eigenvalues()[x.cols() - 1];
    Eigen::VectorXd inverse = Eigen::VectorXd::Zero(x.cols());
    for (int64_t c = 0; c < x.cols(); ++c) {
      if (eigen.eigenvalues()[c] > 1e-6 * largest) inverse[c] = 1 / std::sqrt(eigen.eigenvalues()[c]);
    }
    const Tensor factor = placed(scale.asDiagonal() * eigen.eigenvectors() * inverse.asDiagonal());
    multiply(all(x), false, all(factor), 1, 0, out);
  }

  /// out = x (1.5 I - 0.5 xᵀx): what rounding has left of x's distance from orthonormal is squared, and its columns
  /// stay apart.
  void straighten(const Tensor& x, const Columns& out) {
    const Tensor factor = placed(1.5 * Eigen::MatrixXd::Identity(x.cols(), x.cols()) - 0.5 * gramOf(all(x)));
    multiply(all(x), false, all(factor), 1, 0, out);
  }

  /// The largest |AᵀA x - θ x| / θ₁ of the first k directions, `product` being AᵀA x and θ = |A x|².
  double residualOf(const Tensor& products) {
    const std::vector<double> sigma = norms(images());
    const Tensor hostProducts = copyTo(products, {}), hostDirections = copyTo(copyOf(directions()), {});
    const Columns product = all(hostProducts), x = all(hostDirections);
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
  Device device_;
  int64_t rows_, cols_, k_, block_, depth_, room_, products_ = 0;
  Tensor basis_, image_, one_;
  RowBlocks a_, at_;
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
  require(o.deviceBytes >= 0, ErrorCode::range, "deviceBytes: expected 0 or more but received ", o.deviceBytes);
}

}  // namespace

namespace ops {

Svd truncatedSvd(Job& job, Csr matrix, std::optional<Tensor> start, SvdOptions o) {
  csrValidate(job, matrix);
  checkOptions(o);
  const Device device = deviceNamed(o.device.value_or("cpu"));
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
  BlockKrylov space(job, device, a, at, o);
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
  const Tensor found = copyTo(space.copyOf(space.directions()), {}), images = copyTo(space.copyOf(space.images()), {});
  const Columns x = all(found), ax = all(images);
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
