// Vectors of numbers, as wide as the instruction set has them, and elementary functions of them.
//
// What is compiled for one instruction set has internal linkage, so that no code for a newer
// processor can be linked into the code for an older one; for the same reason nothing of the C++
// library is used.
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "sequence.hpp"

namespace organics {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <typename T>
struct Simd;
template <>
struct Simd<float> {
  typedef float Vector __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef std::int32_t Bits __attribute__((vector_size(kVectorBytes)));
};
template <>
struct Simd<double> {
  typedef double Vector __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef std::int64_t Bits __attribute__((vector_size(kVectorBytes)));
};
template <typename T>
using Vector = typename Simd<T>::Vector;
template <typename T>
constexpr Index kLanes = kVectorBytes / sizeof(T);

template <typename T>
inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const Vector<T>*>(from);
}
template <typename T>
inline void store(T* to, Vector<T> value) {
  *reinterpret_cast<Vector<T>*>(to) = value;
}

inline Index round_up(Index n) { return (n + kMultiple - 1) / kMultiple * kMultiple; }
inline Index smaller(Index a, Index b) { return a < b ? a : b; }

// e^x = 2^n e^r: adding `kMagic` rounds x / ln 2 to the integer n, in the low bits of the sum.
template <typename T>
struct Exponential;
template <>
struct Exponential<float> {
  static constexpr float kLimit = 87.0f, kMagic = 12582912.0f;  // 1.5 * 2^23
  static constexpr float kHigh = 0.693359375f, kLow = -2.12194440e-4f;  // ln 2, in two parts
  static constexpr std::int32_t kMagicBits = 0x4B400000, kBias = 127;
  static constexpr int kMantissa = 23, kDegree = 7;
};
template <>
struct Exponential<double> {
  static constexpr double kLimit = 708.0, kMagic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kHigh = 0.693147180369123816490, kLow = 1.90821492927058770002e-10;
  static constexpr std::int64_t kMagicBits = 0x4338000000000000, kBias = 1023;
  static constexpr int kMantissa = 52, kDegree = 13;
};

template <typename T>
constexpr T reciprocal_factorial(int n) {
  T product = 1;
  for (int i = 2; i <= n; ++i) product *= T(i);
  return T(1) / product;
}

// e^x = 2^n (1 + rest), with x first brought to where that is a normal number; NaN stays.
template <typename T>
struct Power {
  Vector<T> scale, rest;
};

template <typename T>
inline Power<T> exponential(Vector<T> x) {
  using E = Exponential<T>;
  const Vector<T> limit = Vector<T>{} + E::kLimit;
  x = x > limit ? limit : x < -limit ? -limit : x;
  const Vector<T> shifted = x * T(1.4426950408889634) + E::kMagic;
  const Vector<T> n = shifted - E::kMagic;
  const Vector<T> r = (x - n * E::kHigh) - n * E::kLow;
  Vector<T> power = Vector<T>{} + reciprocal_factorial<T>(E::kDegree);
#pragma GCC unroll 13
  for (int i = E::kDegree - 1; i >= 1; --i) power = power * r + reciprocal_factorial<T>(i);
  using Bits = typename Simd<T>::Bits;
  const Bits scale = (reinterpret_cast<Bits>(shifted) - E::kMagicBits + E::kBias) << E::kMantissa;
  return {reinterpret_cast<Vector<T>>(scale), power * r};
}

// 1 / x of what is neither very large nor very small.
template <typename T>
inline Vector<T> reciprocal(Vector<T> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {  // an estimate, made better, takes half as long as a division
    const Vector<T> y = _mm512_maskz_rcp14_ps(__mmask16(-1), x);
    return y + y * (T(1) - x * y);
  }
#endif
  return T(1) / x;
}

template <typename T>
inline Vector<T> sigmoid(Vector<T> x) {
  const Power<T> power = exponential<T>(-x);
  return reciprocal<T>(T(1) + power.scale + power.scale * power.rest);
}

// By e^2x - 1, which is as precise near 0 as elsewhere.
template <typename T>
inline Vector<T> hyperbolic_tangent(Vector<T> x) {
  const Power<T> power = exponential<T>(x + x);
  const Vector<T> grown = power.scale * power.rest + (power.scale - T(1));
  return grown * reciprocal<T>(grown + T(2));
}

// Their derivatives, by what they give.
template <typename T>
inline Vector<T> sigmoid_slope(Vector<T> s) {
  return s * (T(1) - s);
}
template <typename T>
inline Vector<T> tanh_slope(Vector<T> t) {
  return (T(1) - t) * (T(1) + t);
}

template <typename T>
inline Vector<T> square_root(Vector<T> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return _mm512_sqrt_ps(x);
  else
    return _mm512_sqrt_pd(x);
#elif defined(__AVX__)
  if constexpr (sizeof(T) == 4)
    return _mm256_sqrt_ps(x);
  else
    return _mm256_sqrt_pd(x);
#elif defined(__SSE2__)
  if constexpr (sizeof(T) == 4)
    return _mm_sqrt_ps(x);
  else
    return _mm_sqrt_pd(x);
#else
  for (Index i = 0; i < kLanes<T>; ++i)
    x[i] = sizeof(T) == 4 ? T(__builtin_sqrtf(float(x[i]))) : T(__builtin_sqrt(double(x[i])));
  return x;
#endif
}

// sum += a w
template <typename T>
inline void add_product(Vector<T>& sum, T a, Vector<T> w) {
  sum += a * w;
}

template <typename T>
inline Vector<T> relu(Vector<T> x) {
  return x < 0 ? Vector<T>{} : x;  // NaN stays
}

}  // namespace
}  // namespace organics
