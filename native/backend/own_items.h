// Which columns the rows of a sparse matrix have, in a form that answers from one cache line where a search through the
// row would wait for several: drawing negatives is little but such questions.
#pragma once
#include <cstdint>

#include "backend/views.h"

namespace topknot {

struct OwnItemsView {
  CsrView rows;         // values are not read
  const uint8_t* bits;  // 16 for each entry: those of row r start at byte 2 * indptr[r]
};

/// The bit of an item among those of a row with `entries` entries: set for every own item, and by chance for one in
/// sixteen others.
constexpr uint64_t ownItemBit(int64_t entries, int32_t item) {
  return uint64_t{static_cast<uint32_t>(item) * 0x9E3779B1u} * (16 * static_cast<uint64_t>(entries)) >> 32;
}

/// Draws for one negative before it is given up. Who owns half of the items loses one in 65,536.
inline constexpr int negativeTries = 16;

}  // namespace topknot
