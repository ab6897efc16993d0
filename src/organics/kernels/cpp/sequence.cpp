// The kernels of `sequence.hpp` for one instruction set: ORGANICS_ISA names it, and the compiler's
// flags choose it. Everything has internal linkage, so that no code for a newer processor can be
// linked into the code for an older one; for the same reason nothing of the C++ library is used.
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "sequence.hpp"

namespace organics {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRows = 8;  // of a register tile, which is two vectors wide
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kRows = 6;
#else
constexpr int kVectorBytes = 16;
constexpr int kRows = 4;
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
constexpr Index kPanel = 2 * kLanes<T>;  // columns of a packed panel

static_assert(kMultiple % kLanes<float> == 0, "a panel is one or two vectors wide");

template <typename T>
inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const Vector<T>*>(from);
}
template <typename T>
inline void store(T* to, Vector<T> value) {
  *reinterpret_cast<Vector<T>*>(to) = value;
}

// Where the parts of a record are, and its size, in units of H.
enum Part { kY, kA, kB0, kB, kQ, kU, kZ, kYhat, kPool, kF0, kF1, kRecord };
// Cotangents of the same step: of W_r q, of W u, of z and of the two gates before their sigmoid.
enum Cotangent { kGYhat, kGPool, kGZ, kGF0, kGF1, kCotangents };

inline Index round_up(Index n) { return (n + kMultiple - 1) / kMultiple * kMultiple; }
inline Index smaller(Index a, Index b) { return a < b ? a : b; }

// ---- elementary functions, a vector at a time ----------------------------------------------------

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

template <typename T>
inline Vector<T> sigmoid(Vector<T> x) {
  using E = Exponential<T>;
  const Vector<T> limit = Vector<T>{} + E::kLimit;
  x = x > limit ? -limit : x < -limit ? limit : -x;
  const Vector<T> shifted = x * T(1.4426950408889634) + E::kMagic;
  const Vector<T> n = shifted - E::kMagic;
  const Vector<T> r = (x - n * E::kHigh) - n * E::kLow;
  Vector<T> power = Vector<T>{} + reciprocal_factorial<T>(E::kDegree);
#pragma GCC unroll 13
  for (int i = E::kDegree - 1; i >= 0; --i) power = power * r + reciprocal_factorial<T>(i);
  using Bits = typename Simd<T>::Bits;
  const Bits scale = (reinterpret_cast<Bits>(shifted) - E::kMagicBits + E::kBias) << E::kMantissa;
  return T(1) / (T(1) + power * reinterpret_cast<Vector<T>>(scale));
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

template <typename T>
inline Vector<T> relu(Vector<T> x) {
  return x < 0 ? Vector<T>{} : x;  // NaN stays
}

// ---- matrix products on packed weights -----------------------------------------------------------

// C[rows, V vectors] (+)= A[rows, depth] times one panel.
template <typename T, int M, int V>
inline void multiply_tile(Index depth, const T* __restrict a, Index stride_a,
                          const T* __restrict panel, T* __restrict c, Index stride_c, bool add) {
  Vector<T> sum[M][V];
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v)
      sum[i][v] = add ? load<T>(c + i * stride_c + v * kLanes<T>) : Vector<T>{};
  for (Index k = 0; k < depth; ++k) {
    Vector<T> w[V];
    for (int v = 0; v < V; ++v) w[v] = load<T>(panel + (k * V + v) * kLanes<T>);
    for (int i = 0; i < M; ++i)
      for (int v = 0; v < V; ++v) sum[i][v] += a[i * stride_a + k] * w[v];
  }
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v) store<T>(c + i * stride_c + v * kLanes<T>, sum[i][v]);
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
void multiply_rows(Index rows, Index depth, const T* a, Index stride_a, const T* panel, T* c,
                   Index stride_c, bool add) {
  if constexpr (M > 0) {
    for (; rows >= M; rows -= M, a += M * stride_a, c += M * stride_c)
      multiply_tile<T, M, V>(depth, a, stride_a, panel, c, stride_c, add);
    if (rows > 0) multiply_rows<T, M - 1, V>(rows, depth, a, stride_a, panel, c, stride_c, add);
  }
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

// C[rows, columns] (+)= A[rows, depth] times packed weights; columns is a multiple of kMultiple.
template <typename T>
void multiply(Index rows, Index columns, Index depth, const T* a, Index stride_a, const T* packed,
              T* c, Index stride_c, bool add) {
  for (Index n = 0; n < columns; n += kPanel<T>, packed += depth * kPanel<T>) {
    if (columns - n >= kPanel<T>)
      multiply_rows<T, kRows, 2>(rows, depth, a, stride_a, packed, c + n, stride_c, add);
    else
      multiply_rows<T, kRows, 1>(rows, depth, a, stride_a, packed, c + n, stride_c, add);
  }
}

// D[rows, columns] += x[samples, rows]^T g[samples, columns]
template <typename T>
void accumulate(Index rows, Index columns, Index samples, const T* x, Index stride_x, const T* g,
                Index stride_g, T* d) {
  for (Index n = 0; n < columns; n += kPanel<T>) {
    if (columns - n >= kPanel<T>)
      accumulate_rows<T, kRows, 2>(rows, samples, x, stride_x, g + n, stride_g, d + n, columns);
    else
      accumulate_rows<T, kRows, 1>(rows, samples, x, stride_x, g + n, stride_g, d + n, columns);
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

// Where each packed matrix begins.
template <typename T>
struct Packed {
  T *recurrent, *normalization, *gates, *drive, *gates_input;   // forward
  T *recurrent_back, *normalization_back, *gates_back, *input_back;
  T* end;

  Packed(const Shape& s, T* base) {
    const Index h = s.hidden, square = h * h;
    recurrent = base;
    normalization = recurrent + square;
    gates = normalization + square;
    drive = gates + 4 * square;
    gates_input = drive + s.inputs * h;
    recurrent_back = gates_input + s.inputs * 2 * h;
    normalization_back = recurrent_back + square;
    gates_back = normalization_back + square;
    input_back = gates_back + 4 * square;
    end = input_back + 3 * h * round_up(s.inputs);
  }
};

template <typename T>
Index packed_size(const Shape& s) {
  return Packed<T>(s, nullptr).end - static_cast<T*>(nullptr);
}

template <typename T>
void pack(const Shape& s, const Options& o, const Weights<T>& w, T* base, bool backward) {
  const Index h = s.hidden, m = s.inputs;
  const Packed<T> p(s, base);
  if (!o.identity) pack_matrix(h, h, h, w.recurrent, 1, h, p.recurrent);
  pack_matrix(h, h, h, w.normalization, 1, h, p.normalization);
  pack_matrix(2 * h, 2 * h, 2 * h, w.gates, 1, 2 * h, p.gates);
  pack_matrix(m, h, h, w.input, 1, m, p.drive);
  pack_matrix(m, 2 * h, 2 * h, w.input + h * m, 1, m, p.gates_input);
  if (!backward) return;
  if (!o.identity) pack_matrix(h, h, h, w.recurrent, h, 1, p.recurrent_back);
  pack_matrix(h, h, h, w.normalization, h, 1, p.normalization_back);
  pack_matrix(2 * h, 2 * h, 2 * h, w.gates, 2 * h, 1, p.gates_back);
  pack_matrix(3 * h, round_up(m), m, w.input, m, 1, p.input_back);
}

// ---- one step ------------------------------------------------------------------------------------

// What the recurrent and the normalization weights see of a state that stands in a record.
template <typename T>
inline void see(const Options& o, Index h, Index i, Vector<T> y, Vector<T> a, T* record) {
  const Vector<T> q = o.rectified ? relu<T>(y) : y;
  store<T>(record + kQ * h + i, q);
  store<T>(record + kU * h + i, q * q * relu<T>(a));
}

// Puts the states of `rows` samples, (rows, 4H), into their records.
template <typename T>
void begin(const Shape& s, const Options& o, Index rows, const T* states, T* records) {
  const Index h = s.hidden;
  for (Index r = 0; r < rows; ++r) {
    const T* const from = states + r * 4 * h;
    T* const to = records + r * kRecord * h;
    for (Index i = 0; i < 4 * h; i += kLanes<T>) store<T>(to + i, load<T>(from + i));
    for (Index i = 0; i < h; i += kLanes<T>)
      see<T>(o, h, i, load<T>(from + kY * h + i), load<T>(from + kA * h + i), to);
  }
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

// Where the products of a step begin in a record, yhat pool f0 f1.
inline Index products_at(const Options& o) { return o.identity ? kPool : kYhat; }

// The records of `rows` samples in which the state stands are completed from the input `x` and, if
// they are `given`, from the products; the states one step later begin the records `next`, if there
// are any.
template <typename T>
void step(const Shape& s, const Options& o, const Weights<T>& w, const Packed<T>& p, const T* x,
          const T* given, Index rows, T* records, T* next) {
  const Index h = s.hidden, m = s.inputs, size = kRecord * h;
  const bool after = o.rectified && o.rectified_after;
  multiply(rows, h, m, x, m, p.drive, records + kZ * h, size, false);
  if (given) {
    const Index count = products_of(s, o);
    copy_rows(rows, count, given, count, records + products_at(o) * h, size);
  } else {
    multiply(rows, 2 * h, m, x, m, p.gates_input, records + kF0 * h, size, false);
    multiply(rows, 2 * h, 2 * h, records + kY * h, size, p.gates, records + kF0 * h, size, true);
    multiply(rows, h, h, records + kU * h, size, p.normalization, records + kPool * h, size, false);
    if (!o.identity)
      multiply(rows, h, h, records + (after ? kY : kQ) * h, size, p.recurrent, records + kYhat * h,
               size, false);
  }
  for (Index r = 0; r < rows; ++r) {
    T* const e = records + r * size;
    T* const n = next ? next + r * size : nullptr;
    for (Index i = 0; i < h; i += kLanes<T>) {
      Vector<T> f0 = load<T>(e + kF0 * h + i), f1 = load<T>(e + kF1 * h + i);
      Vector<T> z = load<T>(e + kZ * h + i);
      Vector<T> yhat = load<T>(e + (o.identity ? kQ : kYhat) * h + i);
      if (o.rectified_drive) z = relu<T>(z);
      if (!given) {
        f0 = sigmoid<T>(f0);
        f1 = sigmoid<T>(f1);
        if (after) yhat = relu<T>(yhat);
        store<T>(e + kF0 * h + i, f0);
        store<T>(e + kF1 * h + i, f1);
      }
      store<T>(e + kZ * h + i, z);
      store<T>(e + kYhat * h + i, yhat);
      if (!n) continue;
      Vector<T> y = load<T>(e + kY * h + i), a = load<T>(e + kA * h + i);
      Vector<T> b0 = load<T>(e + kB0 * h + i), b = load<T>(e + kB * h + i);
      const Vector<T> gate = T(1) - square_root<T>(relu<T>(a));
      const Vector<T> tonic = load<T>(w.offset + i) * (b0 * b0);
      y += load<T>(w.rates + i) * (-y + b * z + gate * yhat);
      a += load<T>(w.rates + h + i) * (-a + tonic + load<T>(e + kPool * h + i));
      b0 += load<T>(w.rates + 2 * h + i) * (f0 - b0);
      b += load<T>(w.rates + 3 * h + i) * (f1 - b);
      store<T>(n + kY * h + i, y);
      store<T>(n + kA * h + i, a);
      store<T>(n + kB0 * h + i, b0);
      store<T>(n + kB * h + i, b);
      see<T>(o, h, i, y, a, n);
    }
  }
}

// Whether sample `r` has ended before step `t`.
inline bool ended(const std::int32_t* lengths, Index r, Index t) { return lengths && t >= lengths[r]; }

// The samples of the records `now` that have ended are to have the same state in `next`.
template <typename T>
void hold(const Shape& s, const std::int32_t* lengths, Index rows, Index t, const T* now, T* next) {
  const Index size = kRecord * s.hidden, state = kZ * s.hidden;  // and what is seen of it
  for (Index r = 0; r < rows; ++r)
    if (ended(lengths, r, t)) copy_rows(1, state, now + r * size, size, next + r * size, size);
}

// ---- the sequence --------------------------------------------------------------------------------

// Few enough samples that a segment of records stays in the cache next to the weights.
constexpr Index kTile = 32;

template <typename T>
Index gradient_size(const Shape& s) {
  return 6 * s.hidden * s.hidden + 3 * s.hidden * s.inputs + 5 * s.hidden;
}

template <typename T>
Index scratch_size(const Shape& s, bool backward) {
  const Index h = s.hidden;
  if (!backward) return 2 * kTile * kRecord * h;
  return kTile * (s.segment * (kRecord * h + kCotangents * h + s.inputs) + 4 * h + 4 * h +
                  round_up(s.inputs));
}

template <typename T>
void forward(const Shape& s, const Options& o, const Weights<T>& w, const T* packed,
             const Forward<T>& f, Index first, Index last, T* scratch) {
  const Index h = s.hidden, size = kRecord * h, count = products_of(s, o);
  const Packed<T> p(s, const_cast<T*>(packed));
  for (Index start = first; start < last; start += kTile) {
    const Index rows = smaller(kTile, last - start);
    const std::int32_t* const lengths = f.lengths ? f.lengths + start : nullptr;
    T* now = scratch;
    T* next = scratch + kTile * size;
    begin(s, o, rows, f.initial + start * 4 * h, now);
    for (Index t = 0; t < s.steps; ++t) {
      if (f.kept && t % s.segment == 0)
        copy_rows(rows, 4 * h, now, size, f.kept + (t / s.segment * s.batch + start) * 4 * h,
                  4 * h);
      step<T>(s, o, w, p, f.x + (t * s.batch + start) * s.inputs, nullptr, rows, now, next);
      if (lengths) hold(s, lengths, rows, t, now, next);
      if (f.products)
        stream_rows(rows, count, now + products_at(o) * h, size,
                    f.products + (t * s.batch + start) * count);
      if (f.outputs)
        copy_rows(rows, h, next, size, f.outputs + (t * s.batch + start) * h, h);
      T* const done = now;
      now = next;
      next = done;
    }
    copy_rows(rows, 4 * h, now, size, f.final_state + start * 4 * h, 4 * h);
  }
#if defined(__SSE2__)
  _mm_sfence();  // what was streamed is there for other threads
#endif
}

// From the cotangents `d` of the state after a step, those of its products (into `g`), and what
// of `d` passes to the state before other than through the products; and gradients of the rates.
// Of a sample that has ended `d` passes as it is.
template <typename T>
void pull_back(const Shape& s, const Options& o, const Weights<T>& w, const Gradients<T>& gradient,
               const std::int32_t* lengths, Index t, Index rows, const T* records, T* cotangents,
               T* d) {
  const Index h = s.hidden;
  const bool after = o.rectified && o.rectified_after;
  const auto add = [](T* sum, Vector<T> value) { store<T>(sum, load<T>(sum) + value); };
  for (Index r = 0; r < rows; ++r) {
    const T* const e = records + r * kRecord * h;
    T* const g = cotangents + r * kCotangents * h;
    T* const c = d + r * 4 * h;
    if (ended(lengths, r, t)) {
      for (Index i = 0; i < kCotangents * h; ++i) g[i] = 0;
      continue;
    }
    for (Index i = 0; i < h; i += kLanes<T>) {
      const Vector<T> y = load<T>(e + kY * h + i), a = load<T>(e + kA * h + i);
      const Vector<T> b0 = load<T>(e + kB0 * h + i), b = load<T>(e + kB * h + i);
      const Vector<T> z = load<T>(e + kZ * h + i), yhat = load<T>(e + kYhat * h + i);
      const Vector<T> f0 = load<T>(e + kF0 * h + i), f1 = load<T>(e + kF1 * h + i);
      const Vector<T> pool = load<T>(e + kPool * h + i), offset = load<T>(w.offset + i);
      const Vector<T> c_y = load<T>(c + i), c_a = load<T>(c + h + i);
      const Vector<T> c_b0 = load<T>(c + 2 * h + i), c_b = load<T>(c + 3 * h + i);
      const Vector<T> root = square_root<T>(relu<T>(a)), gate = T(1) - root;
      add(gradient.rates + i, c_y * (-y + b * z + gate * yhat));
      add(gradient.rates + h + i, c_a * (-a + offset * (b0 * b0) + pool));
      add(gradient.rates + 2 * h + i, c_b0 * (f0 - b0));
      add(gradient.rates + 3 * h + i, c_b * (f1 - b));
      const Vector<T> v_y = load<T>(w.rates + i) * c_y, v_a = load<T>(w.rates + h + i) * c_a;
      const Vector<T> v_b0 = load<T>(w.rates + 2 * h + i) * c_b0;
      const Vector<T> v_b = load<T>(w.rates + 3 * h + i) * c_b;
      add(gradient.offset + i, v_a * (b0 * b0));
      Vector<T> g_yhat = v_y * gate, g_z = v_y * b;
      if (after) g_yhat = yhat > 0 ? g_yhat : Vector<T>{};
      if (o.rectified_drive) g_z = z > 0 ? g_z : Vector<T>{};
      store<T>(g + kGYhat * h + i, g_yhat);
      store<T>(g + kGPool * h + i, v_a);
      store<T>(g + kGZ * h + i, g_z);
      store<T>(g + kGF0 * h + i, v_b0 * f0 * (T(1) - f0));
      store<T>(g + kGF1 * h + i, v_b * f1 * (T(1) - f1));
      const Vector<T> through_root = a > 0 ? v_y * yhat * (T(0.5) / root) : Vector<T>{};
      store<T>(c + i, c_y - v_y);
      store<T>(c + h + i, c_a - v_a - through_root);
      store<T>(c + 2 * h + i, c_b0 - v_b0 + v_a * offset * (T(2) * b0));
      store<T>(c + 3 * h + i, c_b - v_b + v_y * z);
    }
  }
}

// Adds to `d` what comes back through the products.
template <typename T>
void through_products(const Shape& s, const Options& o, const Packed<T>& p, Index rows,
                      const T* records, const T* cotangents, T* products, T* d) {
  const Index h = s.hidden, size = kCotangents * h, width = 4 * h;
  // products: of the gates (y, a), of W_r, of W
  multiply(rows, 2 * h, 2 * h, cotangents + kGF0 * h, size, p.gates_back, products, width, false);
  if (o.identity)
    copy_rows(rows, h, cotangents + kGYhat * h, size, products + 2 * h, width);
  else
    multiply(rows, h, h, cotangents + kGYhat * h, size, p.recurrent_back, products + 2 * h, width,
             false);
  multiply(rows, h, h, cotangents + kGPool * h, size, p.normalization_back, products + 3 * h, width,
           false);
  const bool through_relu = o.rectified && (o.identity || !o.rectified_after);
  for (Index r = 0; r < rows; ++r) {
    const T* const e = records + r * kRecord * h;
    const T* const c = products + r * width;
    T* const to = d + r * width;
    for (Index i = 0; i < h; i += kLanes<T>) {
      const Vector<T> y = load<T>(e + kY * h + i), a = load<T>(e + kA * h + i);
      const Vector<T> q = load<T>(e + kQ * h + i), c_u = load<T>(c + 3 * h + i);
      Vector<T> c_q = load<T>(c + 2 * h + i);
      if (through_relu) c_q = y > 0 ? c_q : Vector<T>{};
      const Vector<T> from_a = a > 0 ? c_u * (q * q) : Vector<T>{};
      store<T>(to + i, load<T>(to + i) + load<T>(c + i) + c_q + c_u * (T(2) * q * relu<T>(a)));
      store<T>(to + h + i, load<T>(to + h + i) + load<T>(c + h + i) + from_a);
    }
  }
}

template <typename T>
void backward(const Shape& s, const Options& o, const Weights<T>& w, const T* packed,
              const Backward<T>& f, const Gradients<T>& gradient, Index first, Index last,
              T* scratch) {
  const Index h = s.hidden, m = s.inputs, size = kRecord * h, g_size = kCotangents * h;
  const Index count = products_of(s, o);
  const Packed<T> p(s, const_cast<T*>(packed));
  T* const records = scratch;
  T* const cotangents = records + kTile * s.segment * size;
  T* const inputs = cotangents + kTile * s.segment * g_size;
  T* const d = inputs + kTile * s.segment * m;
  T* const products = d + kTile * 4 * h;
  T* const d_input = products + kTile * 4 * h;
  const Index segments = (s.steps + s.segment - 1) / s.segment;
  for (Index begins = first; begins < last; begins += kTile) {
    const Index rows = smaller(kTile, last - begins);
    const std::int32_t* const lengths = f.lengths ? f.lengths + begins : nullptr;
    copy_rows(rows, 4 * h, f.d_final + begins * 4 * h, 4 * h, d, 4 * h);
    for (Index segment = segments - 1; segment >= 0; --segment) {
      const Index start = segment * s.segment;
      const Index steps = smaller(s.segment, s.steps - start);
      begin(s, o, rows, f.kept + (segment * s.batch + begins) * 4 * h, records);
      for (Index t = 0; t < steps; ++t) {
        T* const here = records + t * rows * size;
        copy_rows(rows, m, f.x + ((start + t) * s.batch + begins) * m, m, inputs + t * rows * m, m);
        const T* const given =
            f.products ? f.products + ((start + t) * s.batch + begins) * count : nullptr;
        T* const next = t + 1 < steps ? here + rows * size : nullptr;
        step(s, o, w, p, inputs + t * rows * m, given, rows, here, next);
        if (lengths && next) hold(s, lengths, rows, start + t, here, next);
      }
      for (Index t = steps - 1; t >= 0; --t) {
        const T* const here = records + t * rows * size;
        T* const g = cotangents + t * rows * g_size;
        if (f.d_outputs)
          for (Index r = 0; r < rows; ++r)
            for (Index i = 0; i < h; ++i)
              d[r * 4 * h + i] += f.d_outputs[((start + t) * s.batch + begins + r) * h + i];
        pull_back(s, o, w, gradient, lengths, start + t, rows, here, g, d);
        through_products(s, o, p, rows, here, g, products, d);
        if (f.d_x) {
          const Index wide = round_up(m);
          multiply(rows, wide, 3 * h, g + kGZ * h, g_size, p.input_back, d_input, wide, false);
          copy_rows(rows, m, d_input, wide, f.d_x + ((start + t) * s.batch + begins) * m, m);
        }
      }
      const Index samples = steps * rows;
      if (!o.identity) {
        const Part seen = o.rectified && o.rectified_after ? kY : kQ;
        accumulate(h, h, samples, records + seen * h, size, cotangents + kGYhat * h, g_size,
                   gradient.recurrent);
      }
      accumulate(h, h, samples, records + kU * h, size, cotangents + kGPool * h, g_size,
                 gradient.normalization);
      accumulate(2 * h, 2 * h, samples, records + kY * h, size, cotangents + kGF0 * h, g_size,
                 gradient.gates);
      accumulate(m, 3 * h, samples, inputs, m, cotangents + kGZ * h, g_size, gradient.input);
    }
    copy_rows(rows, 4 * h, d, 4 * h, f.d_initial + begins * 4 * h, 4 * h);
  }
}

template <typename T>
constexpr Kernel<T> kernel() {
  return {packed_size<T>, scratch_size<T>, pack<T>, forward<T>, backward<T>, kTile};
}

}  // namespace

#define ORGANICS_JOIN(a, b) a##b
#define ORGANICS_NAME(a, b) ORGANICS_JOIN(a, b)
extern const Kernel<float> ORGANICS_NAME(kFloat_, ORGANICS_ISA);
extern const Kernel<double> ORGANICS_NAME(kDouble_, ORGANICS_ISA);
const Kernel<float> ORGANICS_NAME(kFloat_, ORGANICS_ISA) = kernel<float>();
const Kernel<double> ORGANICS_NAME(kDouble_, ORGANICS_ISA) = kernel<double>();

}  // namespace organics
