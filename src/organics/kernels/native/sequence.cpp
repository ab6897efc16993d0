// The kernels of `sequence.hpp` for one instruction set: ORGANICS_ISA names it, and the compiler's
// flags choose it. Everything has internal linkage, so that no code for a newer processor can be
// linked into the code for an older one; for the same reason nothing of the C++ library is used.
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
};
template <>
struct Simd<double> {
  typedef double Vector __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
};
template <typename T>
constexpr Index kLanes = kVectorBytes / sizeof(T);
template <typename T>
constexpr Index kPanel = 2 * kLanes<T>;  // columns of a packed panel

static_assert(kMultiple % kLanes<float> == 0, "a panel is one or two vectors wide");

// Where the parts of a record are, and its size, in units of H.
enum Part { kY, kA, kB0, kB, kQ, kU, kZ, kYhat, kPool, kF0, kF1, kRecord };
// Cotangents of the same step: of W_r q, of W u, of z and of the two gates before their sigmoid.
enum Cotangent { kGYhat, kGPool, kGZ, kGF0, kGF1, kCotangents };

inline Index round_up(Index n) { return (n + kMultiple - 1) / kMultiple * kMultiple; }
inline Index smaller(Index a, Index b) { return a < b ? a : b; }

// ---- elementary functions that the compiler can vectorise ----------------------------------------

inline float exponential(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 87.0f ? 87.0f : x;
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, in the low bits
  const float shifted = x * 1.44269504f + magic;
  const float n = shifted - magic;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  std::int32_t bits;
  __builtin_memcpy(&bits, &shifted, 4);
  bits = static_cast<std::int32_t>(
      (static_cast<std::uint32_t>(bits) - 0x4B400000u + 127u) << 23);
  float scale;
  __builtin_memcpy(&scale, &bits, 4);
  return p * scale;
}

inline double exponential(double x) {
  x = x < -708.0 ? -708.0 : x;
  x = x > 708.0 ? 708.0 : x;
  const double magic = 6755399441055744.0;  // 1.5 * 2^52
  const double shifted = x * 1.4426950408889634 + magic;
  const double n = shifted - magic;
  const double r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  std::int64_t bits;
  __builtin_memcpy(&bits, &shifted, 8);
  bits = static_cast<std::int64_t>(
      (static_cast<std::uint64_t>(bits) - 0x4338000000000000u + 1023u) << 52);
  double scale;
  __builtin_memcpy(&scale, &bits, 8);
  return p * scale;
}

template <typename T>
inline T sigmoid(T x) {
  return T(1) / (T(1) + exponential(-x));
}
inline float square_root(float x) { return __builtin_sqrtf(x); }
inline double square_root(double x) { return __builtin_sqrt(x); }
template <typename T>
inline T relu(T x) {
  return x > 0 ? x : T(0);
}

// ---- matrix products on packed weights -----------------------------------------------------------

// C[rows, V vectors] (+)= A[rows, depth] times one panel.
template <typename T, int M, int V>
inline void multiply_tile(Index depth, const T* __restrict a, Index stride_a,
                          const T* __restrict panel, T* __restrict c, Index stride_c, bool add) {
  using Vector = typename Simd<T>::Vector;
  Vector sum[M][V];
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v)
      sum[i][v] = add ? *reinterpret_cast<Vector*>(c + i * stride_c + v * kLanes<T>) : Vector{};
  for (Index k = 0; k < depth; ++k) {
    Vector w[V];
    for (int v = 0; v < V; ++v)
      w[v] = *reinterpret_cast<const Vector*>(panel + k * V * kLanes<T> + v * kLanes<T>);
    for (int i = 0; i < M; ++i)
      for (int v = 0; v < V; ++v) sum[i][v] += a[i * stride_a + k] * w[v];
  }
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v)
      *reinterpret_cast<Vector*>(c + i * stride_c + v * kLanes<T>) = sum[i][v];
}

// D[M, V vectors] += sum over samples of x[sample, M] g[sample, V vectors].
template <typename T, int M, int V>
inline void accumulate_tile(Index samples, const T* __restrict x, Index stride_x,
                            const T* __restrict g, Index stride_g, T* __restrict d,
                            Index stride_d) {
  using Vector = typename Simd<T>::Vector;
  Vector sum[M][V];
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v)
      sum[i][v] = *reinterpret_cast<Vector*>(d + i * stride_d + v * kLanes<T>);
  for (Index s = 0; s < samples; ++s) {
    Vector w[V];
    for (int v = 0; v < V; ++v)
      w[v] = *reinterpret_cast<const Vector*>(g + s * stride_g + v * kLanes<T>);
    for (int i = 0; i < M; ++i)
      for (int v = 0; v < V; ++v) sum[i][v] += x[s * stride_x + i] * w[v];
  }
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v)
      *reinterpret_cast<Vector*>(d + i * stride_d + v * kLanes<T>) = sum[i][v];
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

// Completes the records of `rows` samples, in which the state stands, from their input.
template <typename T>
void evaluate(const Shape& s, const Options& o, const Packed<T>& p, const T* x, Index rows,
              T* records) {
  const Index h = s.hidden, m = s.inputs, size = kRecord * h;
  for (Index r = 0; r < rows; ++r) {
    T* __restrict e = records + r * size;
    for (Index i = 0; i < h; ++i) {
      const T q = o.rectified ? relu(e[kY * h + i]) : e[kY * h + i];
      e[kQ * h + i] = q;
      e[kU * h + i] = q * q * relu(e[kA * h + i]);
    }
  }
  multiply(rows, h, m, x, m, p.drive, records + kZ * h, size, false);
  multiply(rows, 2 * h, m, x, m, p.gates_input, records + kF0 * h, size, false);
  multiply(rows, 2 * h, 2 * h, records + kY * h, size, p.gates, records + kF0 * h, size, true);
  multiply(rows, h, h, records + kU * h, size, p.normalization, records + kPool * h, size, false);
  if (!o.identity) {
    const Part seen = o.rectified && o.rectified_after ? kY : kQ;
    multiply(rows, h, h, records + seen * h, size, p.recurrent, records + kYhat * h, size, false);
  }
  for (Index r = 0; r < rows; ++r) {
    T* __restrict e = records + r * size;
    for (Index i = 0; i < 2 * h; ++i) e[kF0 * h + i] = sigmoid(e[kF0 * h + i]);
    if (o.identity)
      for (Index i = 0; i < h; ++i) e[kYhat * h + i] = e[kQ * h + i];
    else if (o.rectified && o.rectified_after)
      for (Index i = 0; i < h; ++i) e[kYhat * h + i] = relu(e[kYhat * h + i]);
    if (o.rectified_drive)
      for (Index i = 0; i < h; ++i) e[kZ * h + i] = relu(e[kZ * h + i]);
  }
}

// The states one step after the (complete) records; `next` has rows of `stride` numbers.
template <typename T>
void advance(const Shape& s, const Weights<T>& w, Index rows, const T* records, T* next,
             Index stride) {
  const Index h = s.hidden;
  for (Index r = 0; r < rows; ++r) {
    const T* __restrict e = records + r * kRecord * h;
    T* __restrict n = next + r * stride;
    const T* __restrict rate = w.rates;
    for (Index i = 0; i < h; ++i) {
      const T y = e[kY * h + i], a = e[kA * h + i], b0 = e[kB0 * h + i], b = e[kB * h + i];
      const T gate = T(1) - square_root(relu(a));
      n[i] = y + rate[i] * (-y + b * e[kZ * h + i] + gate * e[kYhat * h + i]);
      n[h + i] = a + rate[h + i] * (-a + w.offset[i] * (b0 * b0) + e[kPool * h + i]);
      n[2 * h + i] = b0 + rate[2 * h + i] * (e[kF0 * h + i] - b0);
      n[3 * h + i] = b + rate[3 * h + i] * (e[kF1 * h + i] - b);
    }
  }
}

template <typename T>
void copy_rows(Index rows, Index count, const T* from, Index stride_from, T* to, Index stride_to) {
  for (Index r = 0; r < rows; ++r)
    for (Index i = 0; i < count; ++i) to[r * stride_to + i] = from[r * stride_from + i];
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
  const Index h = s.hidden, size = kRecord * h;
  const Packed<T> p(s, const_cast<T*>(packed));
  for (Index begin = first; begin < last; begin += kTile) {
    const Index rows = smaller(kTile, last - begin);
    T* now = scratch;
    T* next = scratch + kTile * size;
    copy_rows(rows, 4 * h, f.initial + begin * 4 * h, 4 * h, now, size);
    for (Index t = 0; t < s.steps; ++t) {
      if (f.kept && t % s.segment == 0)
        copy_rows(rows, 4 * h, now, size, f.kept + (t / s.segment * s.batch + begin) * 4 * h,
                  4 * h);
      evaluate(s, o, p, f.x + (t * s.batch + begin) * s.inputs, rows, now);
      advance(s, w, rows, now, next, size);
      if (f.outputs)
        copy_rows(rows, h, next, size, f.outputs + (t * s.batch + begin) * h, h);
      T* const done = now;
      now = next;
      next = done;
    }
    copy_rows(rows, 4 * h, now, size, f.final_state + begin * 4 * h, 4 * h);
  }
}

// From the cotangents `d` of the state after a step, those of its products (into `g`), and what
// of `d` passes to the state before other than through the products; and gradients of the rates.
template <typename T>
void pull_back(const Shape& s, const Options& o, const Weights<T>& w, const Gradients<T>& gradient,
               Index rows, const T* records, T* cotangents, T* d) {
  const Index h = s.hidden;
  for (Index r = 0; r < rows; ++r) {
    const T* __restrict e = records + r * kRecord * h;
    T* __restrict g = cotangents + r * kCotangents * h;
    T* __restrict gy = d + r * 4 * h;
    const T* __restrict rate = w.rates;
    T* __restrict d_rate = gradient.rates;
    for (Index i = 0; i < h; ++i) {
      const T y = e[kY * h + i], a = e[kA * h + i], b0 = e[kB0 * h + i], b = e[kB * h + i];
      const T z = e[kZ * h + i], yhat = e[kYhat * h + i], pool = e[kPool * h + i];
      const T f0 = e[kF0 * h + i], f1 = e[kF1 * h + i], offset = w.offset[i];
      const T root = square_root(relu(a));
      const T c_y = gy[i], c_a = gy[h + i], c_b0 = gy[2 * h + i], c_b = gy[3 * h + i];
      d_rate[i] += c_y * (-y + b * z + (T(1) - root) * yhat);
      d_rate[h + i] += c_a * (-a + offset * (b0 * b0) + pool);
      d_rate[2 * h + i] += c_b0 * (f0 - b0);
      d_rate[3 * h + i] += c_b * (f1 - b);
      const T v_y = rate[i] * c_y, v_a = rate[h + i] * c_a;
      const T v_b0 = rate[2 * h + i] * c_b0, v_b = rate[3 * h + i] * c_b;
      gradient.offset[i] += v_a * (b0 * b0);
      const T g_yhat = v_y * (T(1) - root);
      g[kGYhat * h + i] = o.rectified && o.rectified_after && !(yhat > 0) ? T(0) : g_yhat;
      g[kGPool * h + i] = v_a;
      g[kGZ * h + i] = o.rectified_drive && !(z > 0) ? T(0) : v_y * b;
      g[kGF0 * h + i] = v_b0 * f0 * (T(1) - f0);
      g[kGF1 * h + i] = v_b * f1 * (T(1) - f1);
      gy[i] = c_y - v_y;
      gy[h + i] = c_a - v_a - (a > 0 ? v_y * yhat * (T(0.5) / root) : T(0));
      gy[2 * h + i] = c_b0 - v_b0 + v_a * offset * (T(2) * b0);
      gy[3 * h + i] = c_b - v_b + v_y * z;
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
    const T* __restrict e = records + r * kRecord * h;
    const T* __restrict c = products + r * width;
    T* __restrict gy = d + r * width;
    for (Index i = 0; i < h; ++i) {
      const T y = e[kY * h + i], a = e[kA * h + i], q = e[kQ * h + i];
      const T c_q = through_relu && !(y > 0) ? T(0) : c[2 * h + i];
      gy[i] += c[i] + c_q + c[3 * h + i] * (T(2) * q * relu(a));
      gy[h + i] += c[h + i] + (a > 0 ? c[3 * h + i] * (q * q) : T(0));
    }
  }
}

template <typename T>
void backward(const Shape& s, const Options& o, const Weights<T>& w, const T* packed,
              const Backward<T>& f, const Gradients<T>& gradient, Index first, Index last,
              T* scratch) {
  const Index h = s.hidden, m = s.inputs, size = kRecord * h, g_size = kCotangents * h;
  const Packed<T> p(s, const_cast<T*>(packed));
  T* const records = scratch;
  T* const cotangents = records + kTile * s.segment * size;
  T* const inputs = cotangents + kTile * s.segment * g_size;
  T* const d = inputs + kTile * s.segment * m;
  T* const products = d + kTile * 4 * h;
  T* const d_input = products + kTile * 4 * h;
  const Index segments = (s.steps + s.segment - 1) / s.segment;
  for (Index begin = first; begin < last; begin += kTile) {
    const Index rows = smaller(kTile, last - begin);
    copy_rows(rows, 4 * h, f.d_final + begin * 4 * h, 4 * h, d, 4 * h);
    for (Index segment = segments - 1; segment >= 0; --segment) {
      const Index start = segment * s.segment;
      const Index steps = smaller(s.segment, s.steps - start);
      copy_rows(rows, 4 * h, f.kept + (segment * s.batch + begin) * 4 * h, 4 * h, records, size);
      for (Index t = 0; t < steps; ++t) {
        T* const here = records + t * rows * size;
        copy_rows(rows, m, f.x + ((start + t) * s.batch + begin) * m, m, inputs + t * rows * m, m);
        evaluate(s, o, p, inputs + t * rows * m, rows, here);
        if (t + 1 < steps) advance(s, w, rows, here, here + rows * size, size);
      }
      for (Index t = steps - 1; t >= 0; --t) {
        const T* const here = records + t * rows * size;
        T* const g = cotangents + t * rows * g_size;
        if (f.d_outputs)
          for (Index r = 0; r < rows; ++r)
            for (Index i = 0; i < h; ++i)
              d[r * 4 * h + i] += f.d_outputs[((start + t) * s.batch + begin + r) * h + i];
        pull_back(s, o, w, gradient, rows, here, g, d);
        through_products(s, o, p, rows, here, g, products, d);
        if (f.d_x) {
          const Index wide = round_up(m);
          multiply(rows, wide, 3 * h, g + kGZ * h, g_size, p.input_back, d_input, wide, false);
          copy_rows(rows, m, d_input, wide, f.d_x + ((start + t) * s.batch + begin) * m, m);
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
    copy_rows(rows, 4 * h, d, 4 * h, f.d_initial + begin * 4 * h, 4 * h);
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
