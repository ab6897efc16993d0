// Products by tile registers, which have 16 rows of 16 elements, on processors with AMX.
#pragma once

#include "factors.hpp"

namespace organics {
namespace {

constexpr Index kSide = 16;  // of a tile

// What of the factors does not fill tiles, of a panel V vectors wide.
template <int V, typename E>
inline Factors<E> rest(const Factors<E>& f) {
  const Index whole = f.depth - f.depth % kSide;
  return {f.depth - whole, f.rows + whole, f.stride, f.packed + whole * V * kSide};
}

#if defined(__AMX_BF16__)

template <typename E>
constexpr bool kTiled = kMade<E>;
static_assert(kLanes<float> == kSide, "a vector is a row of a tile");

struct Shapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
alignas(64) constexpr Shapes kShapes;

// As long as it lives, its thread has tile registers.
struct Tiles {
  Tiles() { _tile_loadconfig(&kShapes); }
  ~Tiles() { _tile_release(); }
};

// C[M tiles, V tiles] (+)= the sum of two products with one panel each, of what fills tiles.
template <int M, int V>
inline void multiply_tiles(const Factors<Rounded>& one, const Factors<Rounded>& other, float* c,
                           Index stride_c, bool add) {
  static_assert(M <= 2 && V <= 2 && sizeof(Rounded) == sizeof(float));
  constexpr Index kWidth = V * kSide, kBytes = sizeof(float);
  constexpr bool kWide = V > 1, kHigh = M > 1;
  float* const lower = c + kSide * stride_c;
  const Index next = stride_c * kBytes;
  __asm__ volatile("" ::: "memory");  // GCC is not told that loading a tile reads memory
  if (add) {
    _tile_loadd(0, c, next);
    if constexpr (kWide) _tile_loadd(1, c + kSide, next);
    if constexpr (kHigh) _tile_loadd(2, lower, next);
    if constexpr (kHigh && kWide) _tile_loadd(3, lower + kSide, next);
  } else {
    _tile_zero(0);
    if constexpr (kWide) _tile_zero(1);
    if constexpr (kHigh) _tile_zero(2);
    if constexpr (kHigh && kWide) _tile_zero(3);
  }
  const Factors<Rounded>* const both[] = {&other, &one};
  for (const Factors<Rounded>* f : both) {
    const Index stride = f->stride * kBytes;
    for (Index k = 0; k + kSide <= f->depth; k += kSide) {
      const Rounded *const a = f->rows + k, *const w = f->packed + k * kWidth;
      _tile_loadd(4, a, stride);
      _tile_loadd(6, w, kWidth * kBytes);
      _tile_dpbf16ps(0, 4, 6);
      if constexpr (kWide) {
        _tile_loadd(7, w + kSide, kWidth * kBytes);
        _tile_dpbf16ps(1, 4, 7);
      }
      if constexpr (kHigh) {
        _tile_loadd(5, a + kSide * f->stride, stride);
        _tile_dpbf16ps(2, 5, 6);
        if constexpr (kWide) _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  _tile_stored(0, c, next);
  if constexpr (kWide) _tile_stored(1, c + kSide, next);
  if constexpr (kHigh) _tile_stored(2, lower, next);
  if constexpr (kHigh && kWide) _tile_stored(3, lower + kSide, next);
}

// The same for any number of rows. Behind those of the factors there is room for some more.
template <int V>
void multiply_rows_of_tiles(Index rows, Factors<Rounded> one, Factors<Rounded> other, float* c,
                            Index stride_c, bool add) {
  const auto pass = [&](Index count) {
    rows -= count;
    c += count * stride_c;
    one.rows += count * one.stride;
    other.rows += count * other.stride;
  };
  for (; rows >= 2 * kSide; pass(2 * kSide)) multiply_tiles<2, V>(one, other, c, stride_c, add);
  if (rows >= kSide) {
    multiply_tiles<1, V>(one, other, c, stride_c, add);
    pass(kSide);
  }
  if (rows > 0) {
    constexpr Index kWidth = V * kSide;
    alignas(kVectorBytes) float whole[kSide * kWidth];
    const auto copy = [&](const float* from, Index stride_from, float* to, Index stride_to) {
      for (Index r = 0; r < rows; ++r)
        for (Index i = 0; i < kWidth; i += kSide)
          store<float>(to + r * stride_to + i, load<float>(from + r * stride_from + i));
    };
    if (add) copy(c, stride_c, whole, kWidth);
    multiply_tiles<1, V>(one, other, whole, kWidth, add);
    copy(whole, kWidth, c, stride_c);
  }
}

// Of rows of elements, both numbers multiples of `kSide`, the columns as rows.
inline void transpose(Index rows, Index columns, const Rounded* from, Index stride, Rounded* to) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = low + _mm512_set1_epi64(0x800000008);
  for (Index r = 0; r < rows; r += kSide)
    for (Index c = 0; c < columns; c += kSide) {
      __m512i now[kSide], next[kSide];
#pragma GCC unroll 16
      for (Index i = 0; i < kSide; ++i) now[i] = (__m512i)load(from + (r + i) * stride + c);
#pragma GCC unroll 4
      for (int pass = 0; pass < 4; ++pass) {  // each rotates the eight bits of an element's place
#pragma GCC unroll 8
        for (Index i = 0; i < kSide / 2; ++i) {
          next[2 * i] = _mm512_permutex2var_epi32(now[i], low, now[i + kSide / 2]);
          next[2 * i + 1] = _mm512_permutex2var_epi32(now[i], high, now[i + kSide / 2]);
        }
#pragma GCC unroll 16
        for (Index i = 0; i < kSide; ++i) now[i] = next[i];
      }
#pragma GCC unroll 16
      for (Index i = 0; i < kSide; ++i)
        *reinterpret_cast<Bits*>(to + (c + i) * rows + r) = (Bits)now[i];
    }
}

#else

template <typename E>
constexpr bool kTiled = false;

struct Tiles {
  Tiles() {}
};

template <int V, typename E>
void multiply_rows_of_tiles(Index, const Factors<E>&, const Factors<E>&, Sum<E>*, Index, bool);
template <typename E>
void transpose(Index, Index, const E*, Index, E*);

#endif

}  // namespace
}  // namespace organics
