// Numbers in bfloat16, the upper half of a float, as elements of matrix products with sums in float.
//
// With instructions for them an element is two numbers, the first in the lower bits, and a product of
// two elements is the sum of two products. Without, it is one number, rounded, as a float.
#pragma once

#include "simd.hpp"

namespace organics {
namespace {

typedef std::uint32_t Bits __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));

// The nearest number in bfloat16, the even one of two, in the upper half of the bits; the lower half
// is not 0. NaN stays.
inline std::uint32_t rounded(float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  return x == x ? bits + 0x7FFF + ((bits >> 16) & 1) : 0x7FC00000;
}

#if defined(__AVX512BF16__)

constexpr Index kTogether = 2;  // numbers of an element

struct Rounded {
  std::uint32_t bits;
};

inline Bits load(const Rounded* from) { return *reinterpret_cast<const Bits*>(from); }

inline Rounded element(float first, float second) {
  return {rounded(first) >> 16 | (rounded(second) & 0xFFFF0000)};
}

// Elements of the neighbours in a row.
inline void round_row(Index count, const float* from, Rounded* to) {
  for (; count >= 32; count -= 32, from += 32, to += 16)
    *reinterpret_cast<Bits*>(to) = (Bits)_mm512_cvtne2ps_pbh(load<float>(from + 16), load<float>(from));
  for (; count >= 2; count -= 2, from += 2) *to++ = element(from[0], from[1]);
  if (count > 0) *to = element(from[0], 0.0f);
}

// Elements of a number of one row and that of the next, which is 0 after the last.
inline void round_columns(Index rows, Index count, const float* from, Index stride, Rounded* to) {
  const Bits lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const __m512i both = (__m512i)(lane | (lane + 16) << 16);
  for (Index r = 0; r < rows; r += 2, from += 2 * stride, to += count) {
    const bool last = r + 1 == rows;
    const float* const next = from + (last ? 0 : stride);
    Index i = 0;
    for (; i + kLanes<float> <= count; i += kLanes<float>) {
      const Vector<float> second = last ? Vector<float>{} : load<float>(next + i);
      const __m512i apart = (__m512i)_mm512_cvtne2ps_pbh(second, load<float>(from + i));
      *reinterpret_cast<Bits*>(to + i) = (Bits)_mm512_permutexvar_epi16(both, apart);
    }
    for (; i < count; ++i) to[i] = element(from[i], last ? 0.0f : next[i]);
  }
}

inline void add_product(Vector<float>& sum, Rounded a, Bits w) {
  sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(int(a.bits)), (__m512bh)w);
}

#else

constexpr Index kTogether = 1;

struct Rounded {
  float number;
};

inline Vector<float> load(const Rounded* from) { return load(&from->number); }

inline Rounded element(float number, float) {
  const std::uint32_t bits = rounded(number) & 0xFFFF0000;
  Rounded made;
  __builtin_memcpy(&made, &bits, sizeof(made));
  return made;
}

inline void round_row(Index count, const float* from, Rounded* to) {
  Index i = 0;
  for (; i + kLanes<float> <= count; i += kLanes<float>) {
    const Vector<float> x = load(from + i);
    const Bits bits = reinterpret_cast<Bits>(x);
    const Bits upper = x == x ? bits + 0x7FFF + ((bits >> 16) & 1) : Bits{} + 0x7FC00000;
    store(&to[i].number, reinterpret_cast<Vector<float>>(upper & 0xFFFF0000));
  }
  for (; i < count; ++i) to[i] = element(from[i], 0.0f);
}

inline void round_columns(Index rows, Index count, const float* from, Index stride, Rounded* to) {
  for (Index r = 0; r < rows; ++r) round_row(count, from + r * stride, to + r * count);
}

inline void add_product(Vector<float>& sum, Rounded a, Vector<float> w) { sum += a.number * w; }

#endif

}  // namespace
}  // namespace organics
