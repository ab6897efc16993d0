// Matrix products on packed weights, block by block of registers, and copies of rows.
#pragma once

#include "tiles.hpp"

namespace organics {
namespace {

#if defined(__AVX512F__)
constexpr int kRows = 8;  // of a block, which is two vectors wide
constexpr int kSums = 12;  // the same, of gradients
#elif defined(__AVX__)
constexpr int kRows = 6, kSums = 6;
#else
constexpr int kRows = 4, kSums = 4;
#endif

// C[rows, V vectors] (+)= the sum of two products with one panel each.
template <typename E, int M, int V>
inline void multiply_block(const Factors<E>& one, const Factors<E>& other, Sum<E>* c, Index stride_c,
                          bool add) {
  using T = Sum<E>;
  Vector<T> sum[M][V];
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v)
      sum[i][v] = add ? load<T>(c + i * stride_c + v * kLanes<T>) : Vector<T>{};
  const E *__restrict a = other.rows, *__restrict panel = other.packed;
  Index stride = other.stride, depth = other.depth;
  for (int factors = 0; factors < 2; ++factors) {
    for (Index k = 0; k < depth; ++k) {
      Elements<E> w[V];
      for (int v = 0; v < V; ++v) w[v] = load(panel + (k * V + v) * kLanes<T>);
      for (int i = 0; i < M; ++i)
        for (int v = 0; v < V; ++v) add_product(sum[i][v], a[i * stride + k], w[v]);
    }
    a = one.rows, panel = one.packed;
    stride = one.stride, depth = one.depth;
  }
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v) store<T>(c + i * stride_c + v * kLanes<T>, sum[i][v]);
}

template <typename E, int M, int V>
void multiply_rows(Index rows, Factors<E> one, Factors<E> other, Sum<E>* c, Index stride_c, bool add) {
  if constexpr (M > 0) {
    for (; rows >= M; rows -= M, c += M * stride_c) {
      multiply_block<E, M, V>(one, other, c, stride_c, add);
      one.rows += M * one.stride;
      other.rows += M * other.stride;
    }
    if (rows > 0) multiply_rows<E, M - 1, V>(rows, one, other, c, stride_c, add);
  }
}

// C[rows, V vectors] (+)= the sum of two products with one panel each, by tiles if there are such and
// they are asked for, as far as they are filled.
template <typename E, int V>
void multiply_panel(Index rows, const Factors<E>& one, const Factors<E>& other, Sum<E>* c,
                    Index stride_c, bool add, [[maybe_unused]] bool tiles) {
  if constexpr (kTiled<E>) {
    if (tiles && (one.depth >= kSide || other.depth >= kSide)) {
      const Factors<E> rest_of_one = rest<V>(one), rest_of_other = rest<V>(other);
      const bool more = rest_of_one.depth + rest_of_other.depth > 0;
      if (more) multiply_rows<E, kRows, V>(rows, rest_of_one, rest_of_other, c, stride_c, add);
      return multiply_rows_of_tiles<V>(rows, one, other, c, stride_c, add || more);
    }
  }
  multiply_rows<E, kRows, V>(rows, one, other, c, stride_c, add);
}

// One row of C (+)= the sum of two products with so many panels at once: one panel alone would wait
// for its own sums.
template <typename E, int P>
inline void multiply_row(const Factors<E>& one, const Factors<E>& other, Sum<E>* c, bool add) {
  using T = Sum<E>;
  Vector<T> sum[P][2];
  for (int p = 0; p < P; ++p)
    for (int v = 0; v < 2; ++v)
      sum[p][v] = add ? load<T>(c + (2 * p + v) * kLanes<T>) : Vector<T>{};
  const E *__restrict a = other.rows, *__restrict panels = other.packed;
  Index depth = other.depth;
  for (int factors = 0; factors < 2; ++factors) {
    for (Index k = 0; k < depth; ++k)
      for (int p = 0; p < P; ++p)
        for (int v = 0; v < 2; ++v)
          add_product(sum[p][v], a[k], load(panels + ((p * depth + k) * 2 + v) * kLanes<T>));
    a = one.rows, panels = one.packed, depth = one.depth;
  }
  for (int p = 0; p < P; ++p)
    for (int v = 0; v < 2; ++v) store<T>(c + (2 * p + v) * kLanes<T>, sum[p][v]);
}

// C[rows, columns] (+)= the sum of two products; columns is a multiple of kMultiple. Sums by tiles
// round otherwise.
template <typename E>
void multiply(Index rows, Index columns, Factors<E> one, Factors<E> other, Sum<E>* c, Index stride_c,
              bool add, bool tiles) {
  using T = Sum<E>;
  for (Index n = 0; n < columns;) {
    const Index left = columns - n;
    Index panels = 1;
    if (rows == 1 && !tiles && left >= 4 * kPanel<T>) {
      multiply_row<E, 4>(one, other, c + n, add);
      panels = 4;
    } else if (rows == 1 && !tiles && left >= 2 * kPanel<T>) {
      multiply_row<E, 2>(one, other, c + n, add);
      panels = 2;
    } else if (left >= kPanel<T>) {
      multiply_panel<E, 2>(rows, one, other, c + n, stride_c, add, tiles);
    } else {
      multiply_panel<E, 1>(rows, one, other, c + n, stride_c, add, tiles);
    }
    n += panels * kPanel<T>;
    one.packed += panels * one.depth * kPanel<T>;
    other.packed += panels * other.depth * kPanel<T>;
  }
}

// D[M, V vectors] += sum over samples of x[sample, M] g[sample, V vectors].
template <typename E, int M, int V>
inline void accumulate_block(Index samples, const E* __restrict x, Index stride_x,
                            const E* __restrict g, Index stride_g, Sum<E>* __restrict d,
                            Index stride_d) {
  using T = Sum<E>;
  Vector<T> sum[M][V];
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v) sum[i][v] = load<T>(d + i * stride_d + v * kLanes<T>);
  for (Index s = 0; s < samples; ++s) {
    Elements<E> w[V];
    for (int v = 0; v < V; ++v) w[v] = load(g + s * stride_g + v * kLanes<T>);
    for (int i = 0; i < M; ++i)
      for (int v = 0; v < V; ++v) add_product(sum[i][v], x[s * stride_x + i], w[v]);
  }
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v) store<T>(d + i * stride_d + v * kLanes<T>, sum[i][v]);
}

template <typename E, int M, int V>
void accumulate_rows(Index rows, Index samples, const E* x, Index stride_x, const E* g,
                     Index stride_g, Sum<E>* d, Index stride_d) {
  if constexpr (M > 0) {
    for (; rows >= M; rows -= M, x += M, d += M * stride_d)
      accumulate_block<E, M, V>(samples, x, stride_x, g, stride_g, d, stride_d);
    if (rows > 0) accumulate_rows<E, M - 1, V>(rows, samples, x, stride_x, g, stride_g, d, stride_d);
  }
}

// The same for any number of rows, by tiles as far as there are such and they are filled: `turned` has
// what fills tiles of `x`, transposed.
template <typename E, int V>
void accumulate_panel(Index rows, Index samples, const E* x, Index stride_x, const E* g,
                      Index stride_g, Sum<E>* d, Index stride_d, [[maybe_unused]] const E* turned) {
  if constexpr (kTiled<E>) {
    const Index tiled = rows - rows % kSide, whole = samples - samples % kSide;
    const Factors<E> of_tiles{whole, turned, whole, g};
    multiply_rows_of_tiles<V>(tiled, of_tiles, Factors<E>{}, d, stride_d, true);
    if (samples > whole)
      accumulate_rows<E, kSums, V>(tiled, samples - whole, x + whole * stride_x, stride_x,
                                   g + whole * stride_g, stride_g, d, stride_d);
    rows -= tiled;
    x += tiled;
    d += tiled * stride_d;
  }
  accumulate_rows<E, kSums, V>(rows, samples, x, stride_x, g, stride_g, d, stride_d);
}

// Samples of which a panel of cotangents stays in the first cache.
constexpr Index kSamples = 128;

// How many elements `accumulate` needs room for, for so many rows.
template <typename E>
inline Index accumulating_room(Index rows) {
  return elements<E>(kSamples) * (kPanel<Sum<E>> + (kMade<E> ? rows : 0) + (kTiled<E> ? rows : 0));
}

// D[rows, columns] += x[samples, rows]^T g[samples, columns]
template <typename E>
void accumulate(Index rows, Index columns, Index samples, const Sum<E>* x, Index stride_x,
                const Sum<E>* g, Index stride_g, Sum<E>* d, E* room) {
  using T = Sum<E>;
  if (samples > kSamples) {
    accumulate(rows, columns, kSamples, x, stride_x, g, stride_g, d, room);
    return accumulate(rows, columns, samples - kSamples, x + kSamples * stride_x, stride_x,
                      g + kSamples * stride_g, stride_g, d, room);
  }
  const Index count = elements<E>(samples);
  E* const panel = room;
  const E* of_x;
  if constexpr (kMade<E>) {
    E* const made = room + count * kPanel<T>;
    round_columns(samples, rows, x, stride_x, made);
    of_x = made;
    stride_x = rows;
  } else {
    of_x = x;
  }
  E* const turned = room + count * (kPanel<T> + rows);
  if constexpr (kTiled<E>)
    transpose(count - count % kSide, rows - rows % kSide, of_x, rows, turned);
  for (Index n = 0; n < columns; n += kPanel<T>) {
    const Index width = smaller(kPanel<T>, columns - n);
    const E* from = panel;
    Index stride = width;
    if constexpr (kMade<E>) {
      round_columns(samples, width, g + n, stride_g, panel);
    } else if (rows > kSums) {  // it is read several times
      for (Index s = 0; s < samples; ++s)
        for (Index i = 0; i < width; i += kLanes<T>)
          store<T>(panel + s * width + i, load<T>(g + n + s * stride_g + i));
    } else {
      from = g + n;
      stride = stride_g;
    }
    if (width == kPanel<T>)
      accumulate_panel<E, 2>(rows, count, of_x, stride_x, from, stride, d + n, columns, turned);
    else
      accumulate_panel<E, 1>(rows, count, of_x, stride_x, from, stride, d + n, columns, turned);
  }
}

// Panels of a matrix M(k, n) = source[k * stride_k + n * stride_n]; columns from `given` on are 0.
template <typename E>
E* pack_matrix(Index depth, Index columns, Index given, const Sum<E>* source, Index stride_k,
               Index stride_n, E* packed) {
  using T = Sum<E>;
  for (Index n = 0; n < columns; n += kPanel<T>) {
    const Index width = smaller(kPanel<T>, columns - n);
    for (Index k = 0; k < depth; k += Element<E>::kNumbers)
      for (Index j = n; j < n + width; ++j) {
        const T* const from = source + k * stride_k + j * stride_n;
        if constexpr (kMade<E>)
          *packed++ = j < given ? element(*from, k + 1 < depth ? from[stride_k] : 0.0f) : E{};
        else
          *packed++ = j < given ? *from : T(0);
      }
  }
  return packed;
}

template <typename T>
void copy_rows(Index rows, Index count, const T* from, Index stride_from, T* to, Index stride_to) {
  for (Index r = 0; r < rows; ++r)
    for (Index i = 0; i < count; ++i) to[r * stride_to + i] = from[r * stride_from + i];
}

// The same for what is not read again soon: it goes past the cache. `count` is a multiple of
// kMultiple and `to` is aligned to a vector, or nothing is gained.
template <typename T>
void stream_rows(Index rows, Index count, const T* from, Index stride_from, T* to) {
#if defined(__SSE2__)
  if (reinterpret_cast<std::uintptr_t>(to) % kVectorBytes == 0) {
    for (Index r = 0; r < rows; ++r)
      for (Index i = 0; i < count; i += kLanes<T>) {
        const Vector<T> value = load<T>(from + r * stride_from + i);
        T* const there = to + r * count + i;
#if defined(__AVX512F__)
        _mm512_stream_si512(reinterpret_cast<__m512i*>(there), (__m512i)value);
#elif defined(__AVX__)
        _mm256_stream_si256(reinterpret_cast<__m256i*>(there), (__m256i)value);
#else
        _mm_stream_si128(reinterpret_cast<__m128i*>(there), (__m128i)value);
#endif
      }
    return;
  }
#endif
  copy_rows(rows, count, from, stride_from, to, count);
}

}  // namespace
}  // namespace organics
