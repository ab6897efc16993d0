// Matrix products on packed weights, tile by tile of registers, and copies of rows.
#pragma once

#include "simd.hpp"

namespace organics {
namespace {

#if defined(__AVX512F__)
constexpr int kRows = 8;  // of a register tile, which is two vectors wide
constexpr int kSums = 12;  // the same, of gradients
#elif defined(__AVX__)
constexpr int kRows = 6, kSums = 6;
#else
constexpr int kRows = 4, kSums = 4;
#endif
template <typename T>
constexpr Index kPanel = 2 * kLanes<T>;  // columns of a packed panel

static_assert(kMultiple % kLanes<float> == 0, "a panel is one or two vectors wide");

// The two factors of a product: rows of numbers, and packed weights. Without depth there are none.
template <typename T>
struct Factors {
  Index depth = 0;
  const T* rows = nullptr;
  Index stride = 0;
  const T* packed = nullptr;
};

// C[rows, V vectors] (+)= the sum of two products with one panel each.
template <typename T, int M, int V>
inline void multiply_tile(const Factors<T>& one, const Factors<T>& other, T* c, Index stride_c,
                          bool add) {
  Vector<T> sum[M][V];
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v)
      sum[i][v] = add ? load<T>(c + i * stride_c + v * kLanes<T>) : Vector<T>{};
  const T *__restrict a = other.rows, *__restrict panel = other.packed;
  Index stride = other.stride, depth = other.depth;
  for (int factors = 0; factors < 2; ++factors) {
    for (Index k = 0; k < depth; ++k) {
      Vector<T> w[V];
      for (int v = 0; v < V; ++v) w[v] = load<T>(panel + (k * V + v) * kLanes<T>);
      for (int i = 0; i < M; ++i)
        for (int v = 0; v < V; ++v) sum[i][v] += a[i * stride + k] * w[v];
    }
    a = one.rows, panel = one.packed;
    stride = one.stride, depth = one.depth;
  }
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v) store<T>(c + i * stride_c + v * kLanes<T>, sum[i][v]);
}

template <typename T, int M, int V>
void multiply_rows(Index rows, Factors<T> one, Factors<T> other, T* c, Index stride_c, bool add) {
  if constexpr (M > 0) {
    for (; rows >= M; rows -= M, c += M * stride_c) {
      multiply_tile<T, M, V>(one, other, c, stride_c, add);
      one.rows += M * one.stride;
      other.rows += M * other.stride;
    }
    if (rows > 0) multiply_rows<T, M - 1, V>(rows, one, other, c, stride_c, add);
  }
}

// One row of C (+)= the sum of two products with so many panels at once: one panel alone would wait
// for its own sums.
template <typename T, int P>
inline void multiply_row(const Factors<T>& one, const Factors<T>& other, T* c, bool add) {
  Vector<T> sum[P][2];
  for (int p = 0; p < P; ++p)
    for (int v = 0; v < 2; ++v)
      sum[p][v] = add ? load<T>(c + (2 * p + v) * kLanes<T>) : Vector<T>{};
  const T *__restrict a = other.rows, *__restrict panels = other.packed;
  Index depth = other.depth;
  for (int factors = 0; factors < 2; ++factors) {
    for (Index k = 0; k < depth; ++k)
      for (int p = 0; p < P; ++p)
        for (int v = 0; v < 2; ++v)
          sum[p][v] += a[k] * load<T>(panels + ((p * depth + k) * 2 + v) * kLanes<T>);
    a = one.rows, panels = one.packed, depth = one.depth;
  }
  for (int p = 0; p < P; ++p)
    for (int v = 0; v < 2; ++v) store<T>(c + (2 * p + v) * kLanes<T>, sum[p][v]);
}

// C[rows, columns] (+)= the sum of two products; columns is a multiple of kMultiple.
template <typename T>
void multiply(Index rows, Index columns, Factors<T> one, Factors<T> other, T* c, Index stride_c,
              bool add) {
  for (Index n = 0; n < columns;) {
    Index panels = 1;
    if (rows == 1 && columns - n >= 4 * kPanel<T>) {
      multiply_row<T, 4>(one, other, c + n, add);
      panels = 4;
    } else if (rows == 1 && columns - n >= 2 * kPanel<T>) {
      multiply_row<T, 2>(one, other, c + n, add);
      panels = 2;
    } else if (columns - n >= kPanel<T>) {
      multiply_rows<T, kRows, 2>(rows, one, other, c + n, stride_c, add);
    } else {
      multiply_rows<T, kRows, 1>(rows, one, other, c + n, stride_c, add);
    }
    n += panels * kPanel<T>;
    one.packed += panels * one.depth * kPanel<T>;
    other.packed += panels * other.depth * kPanel<T>;
  }
}

// D[M, V vectors] += sum over samples of x[sample, M] g[sample, V vectors].
template <typename T, int M, int V>
inline void accumulate_tile(Index samples, const T* __restrict x, Index stride_x,
                            const T* __restrict g, Index stride_g, T* __restrict d,
                            Index stride_d) {
  Vector<T> sum[M][V];
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v) sum[i][v] = load<T>(d + i * stride_d + v * kLanes<T>);
  for (Index s = 0; s < samples; ++s) {
    Vector<T> w[V];
    for (int v = 0; v < V; ++v) w[v] = load<T>(g + s * stride_g + v * kLanes<T>);
    for (int i = 0; i < M; ++i)
      for (int v = 0; v < V; ++v) sum[i][v] += x[s * stride_x + i] * w[v];
  }
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v) store<T>(d + i * stride_d + v * kLanes<T>, sum[i][v]);
}

template <typename T, int M, int V>
void accumulate_rows(Index rows, Index samples, const T* x, Index stride_x, const T* g,
                     Index stride_g, T* d, Index stride_d) {
  if constexpr (M > 0) {
    for (; rows >= M; rows -= M, x += M, d += M * stride_d)
      accumulate_tile<T, M, V>(samples, x, stride_x, g, stride_g, d, stride_d);
    if (rows > 0) accumulate_rows<T, M - 1, V>(rows, samples, x, stride_x, g, stride_g, d, stride_d);
  }
}

// Samples of which a panel of cotangents stays in the first cache.
constexpr Index kSamples = 128;

// D[rows, columns] += x[samples, rows]^T g[samples, columns]; `panel` is room for a panel of samples.
template <typename T>
void accumulate(Index rows, Index columns, Index samples, const T* x, Index stride_x, const T* g,
                Index stride_g, T* d, T* panel) {
  if (samples > kSamples) {
    accumulate(rows, columns, kSamples, x, stride_x, g, stride_g, d, panel);
    return accumulate(rows, columns, samples - kSamples, x + kSamples * stride_x, stride_x,
                      g + kSamples * stride_g, stride_g, d, panel);
  }
  for (Index n = 0; n < columns; n += kPanel<T>) {
    const Index width = smaller(kPanel<T>, columns - n);
    const T* from = g + n;
    Index stride = stride_g;
    if (rows > kSums) {  // it is read several times
      for (Index s = 0; s < samples; ++s)
        for (Index i = 0; i < width; i += kLanes<T>)
          store<T>(panel + s * width + i, load<T>(from + s * stride_g + i));
      from = panel;
      stride = width;
    }
    if (width == kPanel<T>)
      accumulate_rows<T, kSums, 2>(rows, samples, x, stride_x, from, stride, d + n, columns);
    else
      accumulate_rows<T, kSums, 1>(rows, samples, x, stride_x, from, stride, d + n, columns);
  }
}

// Panels of a matrix M(k, n) = source[k * stride_k + n * stride_n]; columns from `given` on are 0.
template <typename T>
T* pack_matrix(Index depth, Index columns, Index given, const T* source, Index stride_k,
               Index stride_n, T* packed) {
  for (Index n = 0; n < columns; n += kPanel<T>) {
    const Index width = smaller(kPanel<T>, columns - n);
    for (Index k = 0; k < depth; ++k)
      for (Index j = n; j < n + width; ++j)
        *packed++ = j < given ? source[k * stride_k + j * stride_n] : T(0);
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
