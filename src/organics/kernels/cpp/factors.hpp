// What matrix products are made of: rows of elements, and packed weights.
//
// E is an element: a number of the type T of the sums, or `Rounded`.
#pragma once

#include "rounded.hpp"

namespace organics {
namespace {

template <typename T>
constexpr Index kPanel = 2 * kLanes<T>;  // columns of a packed panel

static_assert(kMultiple % kLanes<float> == 0, "a panel is one or two vectors wide");

template <typename E>
struct Element {
  using Sum = E;
  static constexpr Index kNumbers = 1;
};
template <>
struct Element<Rounded> {
  using Sum = float;
  static constexpr Index kNumbers = kTogether;
};
template <typename E>
using Sum = typename Element<E>::Sum;
template <typename E>
constexpr bool kMade = false;  // whether factors are made from rows of numbers
template <>
constexpr bool kMade<Rounded> = true;
template <typename E>
using Elements = decltype(load(static_cast<const E*>(nullptr)));  // a vector of them

// How many elements so many numbers are.
template <typename E>
inline Index elements(Index numbers) {
  return (numbers + Element<E>::kNumbers - 1) / Element<E>::kNumbers;
}

// The two factors of a product: rows of elements, and packed weights. Without depth there are none.
template <typename E>
struct Factors {
  Index depth = 0;
  const E* rows = nullptr;
  Index stride = 0;
  const E* packed = nullptr;
};

// Rows of `depth` numbers as factors. If they are made, then at `room`, which moves past them.
template <typename E>
inline Factors<E> factors(Index rows, Index depth, const Sum<E>* from, Index stride,
                          const E* packed, E*& room) {
  if constexpr (kMade<E>) {
    const Index count = elements<E>(depth);
    E* const made = room;
    for (Index r = 0; r < rows; ++r) round_row(depth, from + r * stride, made + r * count);
    room += rows * count;
    return {count, made, count, packed};
  } else {
    return {depth, from, stride, packed};
  }
}

}  // namespace
}  // namespace organics
