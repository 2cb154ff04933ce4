#include "test/simt/sm90.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "core/dtype.h"

namespace simt::sm90 {
namespace {

using topknot::RowFormat;
using topknot::cuda::TensorMap;
using topknot::cuda::TensorTiles;

constexpr uint64_t initialised = 0x6ba77e4d6ba77e4dull;  // what a barrier holds here, unless something overwrote it
constexpr int mostBytes = (1 << 20) - 1;                 // that a phase can expect, and arrivals likewise

struct Phase {
  int arrivals, missing;
  int64_t bytes = 0;  // announced, not landed; less than zero while some landed before they were announced
  int parity = 0;
  bool fenced = false;
};

struct BoxCopy {
  size_t to;
  TensorMap map;
  uint64_t* barrier;
  std::array<int, 4> from;
  At at;
};

/// The sums of a warp that products in flight add to.
struct Sums {
  float* lanes[32];
  int count;
  std::vector<float> values;  // [32, count]
  int products = 0;           // in flight
};

struct Pending {
  Product given;
  uint32_t a[32][4];
  Sums* sums;
  bool done = false;
};

struct Warp {
  bool fenced = false;
  size_t products = 0;  // begun so far
  std::vector<std::unique_ptr<Sums>> sums;
  std::vector<Pending> open;  // not committed
  std::vector<std::vector<Pending>> groups;
};

struct Block {
  std::map<uint64_t*, Phase> barriers;
  std::vector<BoxCopy> copies;  // in flight
  std::vector<char> async;      // shared memory as the copy engine and the tensor cores see it
  Warp warps[32];
  std::vector<Product> begun[8];  // by each warpgroup, in order
};
Block& block() {
  static Block& one = *new Block;
  return one;
}

std::string place(const At& at) {
  const std::string file = at.file_name();
  return " at " + file.substr(file.rfind('/') + 1) + ":" + std::to_string(at.line());
}

Phase& phaseOf(uint64_t* barrier, const char* what, const At& at) {
  const auto found = block().barriers.find(barrier);
  if (found == block().barriers.end()) throw Fault(what + place(at) + ": the barrier was never initialised");
  if (*barrier != initialised) throw Fault(what + place(at) + ": something was stored over the barrier");
  return found->second;
}

void endIfDone(Phase& p) {
  if (p.missing > 0 || p.bytes != 0) return;
  p.parity ^= 1;
  p.missing = p.arrivals;
}

constexpr size_t swizzled(size_t address) { return address ^ (address >> 3 & 0x70); }

bool published(size_t address, size_t bytes) {
  return std::memcmp(sharedMemory().base() + address, block().async.data() + address, bytes) == 0;
}

void land(const BoxCopy& c) {
  const TensorTiles& t = c.map.tiles;
  const int perPiece = 16 / t.elementBytes;
  int row = 0;
  const auto side = [&](int i) { return i < t.rank ? t.box[i] : 1; };
  for (int w = 0; w < side(3); ++w) {
    for (int z = 0; z < side(2); ++z) {
      for (int y = 0; y < side(1); ++y, ++row) {
        const int64_t at[4] = {c.from[0], int64_t{c.from[1]} + y, int64_t{c.from[2]} + z, int64_t{c.from[3]} + w};
        bool inside = true;
        int64_t start = 0;
        for (int i = 1; i < t.rank; ++i) {
          inside = inside && at[i] >= 0 && at[i] < t.sizes[i];
          start += at[i] * t.strides[i];
        }
        for (int p = 0; p < 8; ++p) {
          char piece[16] = {};
          for (int e = 0; e < perPiece; ++e) {
            const int64_t x = at[0] + p * perPiece + e;
            if (!inside || x < 0 || x >= t.sizes[0]) continue;
            std::memcpy(piece + e * t.elementBytes, static_cast<const char*>(t.data) + (start + x) * t.elementBytes,
                        static_cast<size_t>(t.elementBytes));
          }
          const size_t to = swizzled(c.to + static_cast<size_t>(row) * 128 + static_cast<size_t>(p) * 16);
          std::memcpy(sharedMemory().base() + to, piece, 16);
          std::memcpy(block().async.data() + to, piece, 16);
        }
      }
    }
  }
  Phase& p = phaseOf(c.barrier, "copyTile", c.at);
  p.bytes -= t.boxBytes();
  endIfDone(p);
}

void landFor(const uint64_t* barrier) {
  std::vector<BoxCopy>& copies = block().copies;
  for (size_t i = 0; i < copies.size();) {
    if (copies[i].barrier != barrier) {
      ++i;
      continue;
    }
    const BoxCopy mine = copies[i];
    copies.erase(copies.begin() + static_cast<std::ptrdiff_t>(i));
    land(mine);
  }
}

float numberAt(const char* bytes, RowFormat format) {
  if (format == RowFormat::float32) {
    uint32_t bits;
    std::memcpy(&bits, bytes, sizeof bits);
    return __uint_as_float(bits & 0xffffe000u);
  }
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  return format == RowFormat::float16 ? toFloat(topknot::Float16{bits}) : toFloat(topknot::BFloat16{bits});
}

/// Reads `count` rows of a (or columns of b) from `first` on, K steps deep: out[i * rowStep + k * depthStep].
void readTile(const Product& p, uint64_t tile, bool down, int first, int count, int K, double* out, int rowStep,
              int depthStep) {
  const auto field = [&](int bit) { return static_cast<size_t>(tile >> bit & 0x3fff) << 4; };
  const size_t start = field(0), leading = field(16), stride = field(32);
  const size_t bytes = p.format == RowFormat::float32 ? 4 : 2, perPiece = 16 / bytes;
  const auto wrong = [&](const char* what) {
    throw Fault("wgmma" + place(p.at) + ": the descriptor of a tile " + what);
  };
  if (tile >> 62 != 1) wrong("does not say 128-byte swizzle");
  if ((tile >> 49 & 7) != 0 || stride % 1024 != 0 || (start & (down ? 1023 : 0x380)) != 0) {
    wrong("does not begin at the swizzle's pattern: expected 1024-byte alignment");
  }
  if (!down && (start & 127) + static_cast<size_t>(K) * bytes > 128) wrong("goes past the end of its rows");
  const auto piece = [&](size_t linear) -> const char* {
    const size_t at = swizzled(linear);
    if (!sharedMemory().declares(sharedMemory().base() + at, 16)) wrong("goes past the end of shared memory");
    if (!published(at, 16)) {
      throw Fault("wgmma" + place(p.at) + " reads shared memory that ordinary stores changed without fenceAsyncProxy");
    }
    return block().async.data() + at;
  };
  if (!down) {
    for (int i = 0; i < count; ++i) {
      const size_t row = static_cast<size_t>(first + i), from = start + row / 8 * stride + row % 8 * 128;
      for (size_t k = 0; k < static_cast<size_t>(K); k += perPiece) {
        const char* data = piece(from + k * bytes);
        for (size_t e = 0; e < perPiece; ++e) {
          out[i * rowStep + static_cast<int>(k + e) * depthStep] =
              static_cast<double>(numberAt(data + e * bytes, p.format));
        }
      }
    }
    return;
  }
  for (int k = 0; k < K; ++k) {
    for (int i = 0; i < count; i += 8) {
      const size_t row = static_cast<size_t>(first + i), depth = static_cast<size_t>(k);
      const char* data = piece(start + row / 64 * leading + depth / 8 * stride + depth % 8 * 128 + row % 64 * 2);
      for (int e = 0; e < 8; ++e)
        out[(i + e) * rowStep + k * depthStep] = static_cast<double>(numberAt(data + 2 * e, p.format));
    }
  }
}

/// The 16 rows of the warp whose products these are.
void multiply(Pending& pending, unsigned warp) {
  const Product& p = pending.given;
  const bool tf32 = p.format == RowFormat::float32;
  const int K = tf32 ? 8 : 16, N = 2 * p.count;
  double a[16][16];
  std::vector<double> b(static_cast<size_t>(K * N)), sum(static_cast<size_t>(N));
  if (p.a) {
    for (int l = 0; l < 32; ++l) {
      for (int i = 0; i < 4; ++i) {
        const int row = l / 4 + i % 2 * 8, column = l % 4;
        const char* bytes = reinterpret_cast<const char*>(&pending.a[l][i]);
        for (int h = 0; h < (tf32 ? 1 : 2); ++h) {
          const int k = tf32 ? column + i / 2 * 4 : 2 * column + h + i / 2 * 8;
          a[row][k] = static_cast<double>(numberAt(bytes + 2 * h, p.format));
        }
      }
    }
  } else {
    readTile(p, p.aTile, p.aDown, static_cast<int>(warp % 4 * 16), 16, K, &a[0][0], 16, 1);
  }
  readTile(p, p.bTile, p.bDown, 0, N, K, b.data(), 1, N);
  for (int row = 0; row < 16; ++row) {
    // In float64, where products and sums of so few are as good as exact.
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int k = 0; k < K; ++k) {
      for (int n = 0; n < N; ++n) sum[static_cast<size_t>(n)] += a[row][k] * b[static_cast<size_t>(k * N + n)];
    }
    for (int n = 0; n < N; ++n) {
      const int lane = row % 8 * 4 + n % 8 / 2, i = n / 8 * 4 + row / 8 * 2 + n % 2;
      float& out = pending.sums->values[static_cast<size_t>(lane * p.count + i)];
      out = static_cast<float>((p.accumulate ? static_cast<double>(out) : 0.0) + sum[static_cast<size_t>(n)]);
    }
  }
  pending.done = true;
}

Warp& myWarp() { return block().warps[threadIdx.x / 32]; }

bool isPoison(const float& x) { return std::memcmp(&x, &poison, sizeof x) == 0; }

void checkUntouched(const Sums& s, const At& at) {
  for (const float* lane : s.lanes) {
    if (!std::all_of(lane, lane + s.count, isPoison)) {
      throw Fault("wgmma" + place(at) + ": its sums were changed before waitForWgmma");
    }
  }
}

Sums& sumsInFlight(Warp& warp, void* const* lanes) {
  const Product& first = *static_cast<const Product*>(lanes[0]);
  for (const auto& s : warp.sums) {
    if (s->lanes[0] != first.sums) continue;
    if (s->count != first.count) throw Fault("wgmma" + place(first.at) + ": the sums are in flight in another shape");
    checkUntouched(*s, first.at);
    return *s;
  }
  Sums& s = *warp.sums.emplace_back(std::make_unique<Sums>());
  s.count = first.count;
  for (int l = 0; l < 32; ++l) {
    s.lanes[l] = static_cast<const Product*>(lanes[l])->sums;
    s.values.insert(s.values.end(), s.lanes[l], s.lanes[l] + s.count);
    for (int i = 0; i < s.count; ++i) std::memcpy(s.lanes[l] + i, &poison, sizeof poison);
  }
  return s;
}

bool alike(const Product& x, const Product& y) {
  return x.count == y.count && !x.a == !y.a && x.aTile == y.aTile && x.bTile == y.bTile &&
         x.accumulate == y.accumulate && x.aDown == y.aDown && x.bDown == y.bDown && x.format == y.format;
}

void begin(void* const* lanes) {
  const Product& first = *static_cast<const Product*>(lanes[0]);
  const unsigned number = threadIdx.x / 32;
  Warp& warp = block().warps[number];
  for (int l = 1; l < 32; ++l) {
    if (!alike(first, *static_cast<const Product*>(lanes[l])))
      throw Fault("wgmma" + place(first.at) + ": the lanes of a warp ask for different products");
  }
  if (!warp.fenced) throw Fault("wgmma" + place(first.at) + ": expected fenceWgmma before it");
  std::vector<Product>& begun = block().begun[number / 4];
  if (warp.products == begun.size()) begun.push_back(first);
  else if (!alike(begun[warp.products], first))
    throw Fault("wgmma" + place(first.at) + ": the warps of a warpgroup ask for different products");
  ++warp.products;

  Pending& mine = warp.open.emplace_back(Pending{first, {}, &sumsInFlight(warp, lanes)});
  ++mine.sums->products;
  for (int l = 0; l < 32 && first.a; ++l)
    std::memcpy(mine.a[l], static_cast<const Product*>(lanes[l])->a, sizeof mine.a[l]);
  if (!early()) return;
  for (auto& group : warp.groups) {
    for (Pending& p : group) {
      if (!p.done) multiply(p, number);
    }
  }
  for (Pending& p : warp.open) {
    if (!p.done) multiply(p, number);
  }
}

void finish(void* const* lanes) {
  const unsigned number = threadIdx.x / 32;
  Warp& warp = block().warps[number];
  for (size_t left = *static_cast<const size_t*>(lanes[0]); warp.groups.size() > left;) {
    for (Pending& p : warp.groups.front()) {
      if (!p.done) multiply(p, number);
      if (--p.sums->products > 0) continue;
      Sums& s = *p.sums;
      checkUntouched(s, p.given.at);
      for (int l = 0; l < 32; ++l) std::copy_n(s.values.begin() + l * s.count, s.count, s.lanes[l]);
      std::erase_if(warp.sums, [&](const auto& one) { return one.get() == &s; });
    }
    warp.groups.erase(warp.groups.begin());
  }
  warp.fenced = false;
}

}  // namespace

void initBarrier(uint64_t* barrier, int arrivals) {
  sharedOffset(barrier);
  if (reinterpret_cast<uintptr_t>(barrier) % 8 != 0) throw Fault("initBarrier: expected 8-byte alignment");
  if (arrivals < 1 || arrivals > mostBytes) throw Fault("initBarrier: expected 1 to 2^20 - 1 arrivals");
  *barrier = initialised;
  block().barriers[barrier] = {.arrivals = arrivals, .missing = arrivals};
}

void arrive(uint64_t* barrier, int bytes, const At& at) {
  preempt();
  Phase& p = phaseOf(barrier, "arrive", at);
  if (bytes < 0 || p.bytes + bytes > mostBytes) throw Fault("arrive" + place(at) + ": too many bytes for one phase");
  if (p.missing == 0) throw Fault("arrive" + place(at) + ": all arrivals of this phase were there already");
  p.bytes += bytes;
  --p.missing;
  endIfDone(p);
}

void waitPhase(uint64_t* barrier, int parity, const At& at) {
  struct Wait {
    uint64_t* barrier;
    int parity;
    const At& at;
  } mine{barrier, parity, at};
  const auto ended = [](void* w) {
    const Wait& wait = *static_cast<Wait*>(w);
    if (phaseOf(wait.barrier, "waitPhase", wait.at).parity != wait.parity) return true;
    landFor(wait.barrier);
    return phaseOf(wait.barrier, "waitPhase", wait.at).parity != wait.parity;
  };
  preempt();
  if (!ended(&mine)) waitUntil("waitPhase", ended, &mine, at);
}

void copyBox(void* to, const TensorMap& map, uint64_t* barrier, int rank, std::array<int, 4> from, const At& at) {
  const auto wrong = [&](const char* what) { throw Fault("copyTile" + place(at) + ": " + what); };
  const TensorTiles& t = map.tiles;
  const size_t offset = sharedOffset(to), bytes = static_cast<size_t>(t.boxBytes());
  if (const char* fault = topknot::cuda::mapFault(t)) wrong(fault);
  if (t.rank != rank) wrong("the map has another rank");
  if (offset % 1024 != 0) wrong("expected 1024-byte alignment in shared memory");
  if (!sharedMemory().declares(static_cast<char*>(to), bytes)) wrong("the box goes past the end of shared memory");
  if (!phaseOf(barrier, "copyTile", at).fenced) wrong("expected fenceBarriers after initBarrier");
  if (!published(offset, bytes)) wrong("it overwrites what ordinary stores changed without fenceAsyncProxy");
  block().copies.push_back({offset, map, barrier, from, at});
  if (early()) landFor(barrier);
}

void publish(char* data, size_t bytes) {
  std::memcpy(block().async.data() + (data - sharedMemory().base()), data, bytes);
}

void fenceAsyncProxy() {
  sharedMemory().forVariables(publish);
  for (auto& [barrier, phase] : block().barriers) phase.fenced = true;
}

void product(Product mine) { together("wgmma", &mine, begin, mine.at); }

void fenceProducts() {
  together(
      "fenceWgmma", nullptr, [](void* const*) { myWarp().fenced = true; }, At::current());
}

void commitProducts() {
  together(
      "commitWgmma", nullptr, [](void* const*) { myWarp().groups.push_back(std::exchange(myWarp().open, {})); },
      At::current());
}

void waitForProducts(int groupsLeft) {
  size_t left = static_cast<size_t>(groupsLeft);
  together("waitForWgmma", &left, finish, At::current());
}

void checkLanded(const float* sums) {
  for (const auto& s : myWarp().sums) {
    if (s->lanes[threadIdx.x % 32] == sums)
      throw Fault("waitForWgmma names sums of a product that it does not wait for");
  }
}

void startBlock() {
  Block& b = block();
  b.barriers.clear();
  b.copies.clear();
  for (Warp& warp : b.warps) warp = {};
  for (auto& begun : b.begun) begun.clear();
  b.async.resize(SharedMemory::window);
}

void endThread(unsigned thread) {
  const Warp& warp = block().warps[thread / 32];
  for (const auto& group : warp.groups) {
    if (!group.empty()) throw Fault("a thread ended without waiting for the wgmma" + place(group.front().given.at));
  }
  if (!warp.open.empty())
    throw Fault("a thread ended without committing the wgmma" + place(warp.open.front().given.at));
}

void endBlock(const char* kernel) {
  const Block& b = block();
  if (!b.copies.empty()) {
    throw Fault(std::string(kernel) + ": the block ended without waiting for the copyTile" +
                place(b.copies.front().at));
  }
  for (unsigned w = 0; w < 32; ++w) {
    if (b.warps[w].products != b.begun[w / 4].size())
      throw Fault(std::string(kernel) + ": not all four warps of a warpgroup took part in its last wgmma");
  }
}

}  // namespace simt::sm90
