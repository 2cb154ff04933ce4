// A hash table from packed ids to their rows: how a loaded model finds a user without a JavaScript object for each.
#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

#include "ops/ops.h"

namespace topknot {
namespace {

/// Ids one after another: of eight bytes each, or, with `ends`, of any length.
class PackedIds {
 public:
  PackedIds(const Tensor& data, const std::optional<Tensor>& ends)
      : bytes_(static_cast<const char*>(data.buffer->data())),
        size_(static_cast<int64_t>(data.bytes())),
        ends_(ends ? ends->data<int64_t>() : nullptr),
        count_(ends ? ends->count() : size_ / 8) {}

  int64_t count() const { return count_; }

  std::string_view operator[](int64_t row) const {
    const int64_t begin = !ends_ ? row * 8 : row ? ends_[row - 1] : 0;
    const int64_t end = ends_ ? ends_[row] : begin + 8;
    return {bytes_ + begin, static_cast<size_t>(end - begin)};
  }

  void check() const {
    for (int64_t row = 0; ends_ && row < count_; ++row) {
      require(ends_[row] >= (row ? ends_[row - 1] : 0) && ends_[row] <= size_, ErrorCode::format,
              "ids.ends: expected rising ends within ", size_, " bytes but entry ", row, " is ", ends_[row]);
    }
  }

 private:
  const char* bytes_;
  int64_t size_;
  const int64_t* ends_;
  int64_t count_;
};

uint64_t hash(std::string_view id) {
  uint64_t h = id.size() + 0x9E3779B97F4A7C15u;
  const auto mix = [&h](uint64_t word) {
    h = (h ^ word) * 0xD6E8FEB86659FD93u;
    h ^= h >> 32;
  };
  for (; id.size() >= 8; id.remove_prefix(8)) {
    uint64_t word;
    std::memcpy(&word, id.data(), 8);
    mix(word);
  }
  uint64_t word = 0;
  std::memcpy(&word, id.data(), id.size());
  mix(word);
  return h * 0x9E3779B97F4A7C15u;
}

/// The slot that holds `id`, or the free one where it belongs: linear probing in a table that is at most half full.
int64_t slotOf(const PackedIds& ids, const Tensor& table, std::string_view id) {
  const uint64_t mask = static_cast<uint64_t>(table.count()) - 1;
  uint64_t slot = hash(id) >> 20 & mask;
  for (int32_t row; (row = table.data<int32_t>()[slot]) >= 0 && ids[row] != id;) slot = (slot + 1) & mask;
  return static_cast<int64_t>(slot);
}

}  // namespace

namespace ops {

Tensor idTable(Job& job, Tensor data, std::optional<Tensor> ends) {
  if (ends) expect(*ends, "ends", DType::int64, 1);
  const PackedIds ids(data, ends);
  ids.check();
  require(ids.count() <= INT32_MAX, ErrorCode::range, "ids: expected at most 2147483647 but received ", ids.count());
  Tensor table =
      Tensor::host<int32_t>({static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(ids.count()) * 2 + 2))});
  std::fill_n(table.data<int32_t>(), table.count(), -1);
  for (int64_t row = 0; row < ids.count(); ++row) {
    int32_t& slot = table.data<int32_t>()[slotOf(ids, table, ids[row])];
    require(slot < 0, ErrorCode::value, "ids: rows ", slot, " and ", row, " have the same id");
    slot = static_cast<int32_t>(row);
    if (row % 65536 == 0) job.checkCancelled();
  }
  return table;
}

int64_t idRow(Tensor data, std::optional<Tensor> ends, Tensor table, Tensor id) {
  expect(table, "table", DType::int32, 1);
  const std::string_view key(static_cast<const char*>(id.buffer->data()), id.bytes());
  return table.data<int32_t>()[slotOf(PackedIds(data, ends), table, key)];
}

}  // namespace ops
}  // namespace topknot
