// Philox4x32-10, one counter in each lane: the numbers of philox() in core/random.h.
#include <cstdint>

#include <hwy/highway.h>

#if defined(TOPKNOT_PHILOX_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TOPKNOT_PHILOX_INL
#undef TOPKNOT_PHILOX_INL
#else
#define TOPKNOT_PHILOX_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using WordTag = hn::ScalableTag<uint32_t>;
using Words = hn::Vec<WordTag>;

/// a * factor, as its high and its low half.
HWY_INLINE void multiplyWide(Words a, uint32_t factor, Words& high, Words& low) {
  const WordTag words;
  const hn::Repartition<uint64_t, WordTag> wide;
  const Words f = hn::Set(words, factor);
  const auto even = hn::MulEven(a, f);
  const auto odd = hn::MulEven(hn::BitCast(words, hn::ShiftRight<32>(hn::BitCast(wide, a))), f);
  high = hn::OddEven(hn::BitCast(words, odd), hn::BitCast(words, hn::ShiftRight<32>(even)));
  low = hn::OddEven(hn::BitCast(words, hn::ShiftLeft<32>(odd)), hn::BitCast(words, even));
}

/// c: the counters, that is the low and the high word of the step, then those of the row; becomes the four numbers.
HWY_INLINE void philoxLanes(uint64_t seed, Words (&c)[4]) {
  const WordTag words;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    Words highA, lowA, highB, lowB;
    multiplyWide(c[0], 0xD2511F53u, highA, lowA);
    multiplyWide(c[2], 0xCD9E8D57u, highB, lowB);
    c[0] = hn::Xor(hn::Xor(highB, c[1]), hn::Set(words, k0));
    c[1] = lowB;
    c[2] = hn::Xor(hn::Xor(highA, c[3]), hn::Set(words, k1));
    c[3] = lowA;
  }
}

}  // namespace
}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
