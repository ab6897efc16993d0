// The kernel of `contraction.hpp` for one instruction set: ORGANICS_ISA names it, and the compiler's
// options must allow it, and honour the mode of rounding. Each lane of a vector is a box.
//
// All operations round upwards. An interval is kept as minus its lower end and its upper end, so that
// both are rounded outwards; a product of both with a sign is written as the product of a negated
// factor, never as a negated product. A product and a sum rounded in one step are a bound, too.
#include "contraction.hpp"
#include "simd.hpp"

namespace organics {
namespace {

using V = Vector<double>;
using Mask = Simd<double>::Bits;
constexpr Index kBoxes = kLanes<double>;
constexpr int kN = kMostUnknowns;

inline V all(double value) { return V{} + value; }
inline V larger(V a, V b) { return a > b ? a : b; }
inline V smaller(V a, V b) { return a < b ? a : b; }

struct Interval {
  V minus_low, high;
};

inline Interval operator-(Interval a) { return {a.high, a.minus_low}; }
inline Interval operator+(Interval a, Interval b) {
  return {a.minus_low + b.minus_low, a.high + b.high};
}
inline Interval operator-(Interval a, Interval b) { return a + -b; }
inline Interval operator*(Interval a, Interval b) {
  const V p = -a.minus_low, q = -a.high;
  return {larger(larger(p * b.minus_low, a.minus_low * b.high),
                 larger(a.high * b.minus_low, q * b.high)),
          larger(larger(a.minus_low * b.minus_low, p * b.high),
                 larger(q * b.minus_low, a.high * b.high))};
}
// with a number >= 0
inline Interval scaled(V factor, Interval a) { return {factor * a.minus_low, factor * a.high}; }
// with any number, the same for all boxes
inline Interval times(double factor, Interval a) {
  return factor >= 0 ? scaled(all(factor), a) : scaled(all(-factor), -a);
}
inline Interval meet(Interval a, Interval b) {
  return {smaller(a.minus_low, b.minus_low), smaller(a.high, b.high)};
}
inline Interval choose(Mask where, Interval a, Interval b) {
  return {where ? a.minus_low : b.minus_low, where ? a.high : b.high};
}
// 1 / a of positive numbers
inline Interval inverse(Interval a) { return {all(-1.0) / a.high, all(1.0) / -a.minus_low}; }
inline Interval squared(Interval a) {
  const V size = larger(a.minus_low, a.high);
  const V least = larger(larger(-a.minus_low, -a.high), V{});  // of the absolute values
  return {-least * least, size * size};
}
// of positive numbers; x / root(x), rounded downwards, is below the root
inline Interval root(Interval a) {
  return {a.minus_low / square_root<double>(-a.minus_low), square_root<double>(a.high)};
}
inline Mask excludes_zero(Interval a) { return (a.minus_low < 0) | (a.high < 0); }

// a / b; everything where b may be 0
inline Interval quotient(Interval a, Interval b) {
  const Mask negative = b.high < 0, sure = excludes_zero(b);
  a = choose(negative, -a, a);
  b = choose(negative, -b, b);
  const V least = -b.minus_low, most = b.high;
  const Interval found = {a.minus_low / (a.minus_low >= 0 ? least : most),
                          a.high / (a.high >= 0 ? least : most)};
  const V infinite = all(__builtin_inf());
  return choose(sure, found, {infinite, infinite});
}

struct Terms {
  Interval a[kN], s[kN], rest[kN], y[kN];
};

// minus the least v / root(rest + own v^2), from the lower end v
inline V minus_least(V v, Interval rest, double own) {
  const Mask positive = v >= 0;
  const V over = rest.high + all(own) * (v * v);
  const V under = -(rest.minus_low + all(own) * (-v * v));
  const V inside = positive ? over : under, above = square_root<double>(inside);
  const V below = -(-inside / above);
  return -v / (positive ? above : below);
}

inline void find_terms(const Equations& e, const Interval* v, Terms& t) {
  const Index n = e.n;
  Interval square[kN];
  for (Index i = 0; i < n; ++i) square[i] = squared(v[i]);
  for (Index i = 0; i < n; ++i) {
    Interval rest = {all(-e.c_low[i]), all(e.c_high[i])};
    for (Index j = 0; j < n; ++j)
      if (j != i) rest = rest + scaled(all(e.W[i * n + j]), square[j]);
    const double own = e.W[i * n + i];
    t.rest[i] = rest;
    t.a[i] = rest + scaled(all(own), square[i]);
    t.s[i] = root(t.a[i]);
    t.y[i] = {minus_least(-v[i].minus_low, rest, own), minus_least(-v[i].high, rest, own)};
  }
}

// G, and u = W_r y
inline void residual(const Equations& e, const Interval* v, const Terms& t, Interval* G,
                     Interval* u) {
  const Index n = e.n;
  const Interval one = {all(-1.0), all(1.0)};
  for (Index i = 0; i < n; ++i) {
    Interval others = {};
    for (Index j = 0; j < n; ++j)
      if (j != i) others = others + times(e.W_r[i * n + j], t.y[j]);
    const double own = e.W_r[i * n + i];
    const Interval gate = one - t.s[i], d = {all(-e.d_low[i]), all(e.d_high[i])};
    u[i] = others + times(own, t.y[i]);
    const Interval leak = one - Interval{all(-own), all(own)};
    G[i] = meet(t.y[i] - gate * u[i] - d,
                leak * t.y[i] + times(own, v[i]) - gate * others - d);
  }
}

inline void derivative(const Equations& e, const Interval* v, const Terms& t, const Interval* u,
                       Interval R[][kN]) {
  const Index n = e.n;
  const Interval one = {all(-1.0), all(1.0)};
  Interval ds[kN][kN], dy[kN][kN];
  for (Index i = 0; i < n; ++i) {
    const Interval below = inverse(t.s[i]), ratio = t.y[i] * below;
    for (Index j = 0; j < n; ++j) {
      const V weight = all(e.W[i * n + j]), limit = square_root<double>(weight);
      ds[i][j] = meet(scaled(weight, v[j]) * below, {limit, limit});
      dy[i][j] = -(ratio * ds[i][j]);
    }
    const Interval cube = t.a[i] * t.s[i];
    const Interval own = one - scaled(all(e.W[i * n + i]), squared(t.y[i]));
    dy[i][i] = meet(t.rest[i] * inverse(cube), own * below);
  }
  for (Index i = 0; i < n; ++i) {
    const Interval gate = one - t.s[i];
    for (Index j = 0; j < n; ++j) {
      Interval du = {};
      for (Index l = 0; l < n; ++l) du = du + times(e.W_r[i * n + l], dy[l][j]);
      R[i][j] = dy[i][j] - gate * du + u[i] * ds[i][j];
    }
  }
}

inline void exchange(Mask where, V& a, V& b) {
  const V kept = a;
  a = where ? b : a;
  b = where ? kept : b;
}

// An approximate inverse of the middle of R, by Gauss and Jordan with pivots; 0 where there is none.
inline void invert(Index n, const Interval R[][kN], V C[][kN]) {
  V A[kN][kN];
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j) {
      A[i][j] = all(0.5) * (R[i][j].high - R[i][j].minus_low);
      C[i][j] = all(i == j ? 1.0 : 0.0);
    }
  for (Index k = 0; k < n; ++k) {
    for (Index i = k + 1; i < n; ++i) {  // the largest comes up, row by row
      const Mask where = larger(A[i][k], -A[i][k]) > larger(A[k][k], -A[k][k]);
      for (Index j = 0; j < n; ++j) {
        exchange(where, A[k][j], A[i][j]);
        exchange(where, C[k][j], C[i][j]);
      }
    }
    const V pivot = all(1.0) / A[k][k];
    for (Index j = 0; j < n; ++j) {
      A[k][j] *= pivot;
      C[k][j] *= pivot;
    }
    for (Index i = 0; i < n; ++i) {
      if (i == k) continue;
      const V factor = -A[i][k];
      for (Index j = 0; j < n; ++j) {
        A[i][j] += factor * A[k][j];
        C[i][j] += factor * C[k][j];
      }
    }
  }
  Mask good = ~Mask{};
  for (Index i = 0; i < n; ++i)  // false for NaN, too
    for (Index j = 0; j < n; ++j) good &= larger(C[i][j], -C[i][j]) < 1e100;
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j) C[i][j] = good ? C[i][j] : V{};
}

// Which boxes are empty by G alone; and the terms, and W_r y.
inline Mask has_no_zero(const Equations& e, const Interval* v, Terms& t, Interval* u) {
  Interval G[kN];
  Mask empty = {};
  find_terms(e, v, t);
  residual(e, v, t, G, u);
  for (Index i = 0; i < e.n; ++i) empty |= excludes_zero(G[i]);
  return empty;
}

// A vector of boxes: what is left of each, what is known, and where to cut it.
inline void contract_vector(const Equations& e, Interval* v, Mask& known, Mask& widest) {
  const Index n = e.n;
  Terms t;
  Interval u[kN], at_middle[kN], unused[kN], point[kN], shift[kN], R[kN][kN], A[kN][kN];
  V middle[kN], C[kN][kN];
  Mask empty = has_no_zero(e, v, t, u);
  derivative(e, v, t, u, R);
  for (Index i = 0; i < n; ++i) {
    middle[i] = all(0.5) * (v[i].high - v[i].minus_low);
    point[i] = {-middle[i], middle[i]};
    shift[i] = v[i] - point[i];
  }
  find_terms(e, point, t);
  residual(e, point, t, at_middle, unused);
  for (Index i = 0; i < n; ++i) {
    Interval mean_value = at_middle[i];
    for (Index j = 0; j < n; ++j) mean_value = mean_value + R[i][j] * shift[j];
    empty |= excludes_zero(mean_value);
  }
  invert(n, R, C);
  Interval b[kN];
  for (Index i = 0; i < n; ++i) {
    b[i] = Interval{};
    for (Index j = 0; j < n; ++j) A[i][j] = Interval{};
    for (Index l = 0; l < n; ++l) {
      const V positive = larger(C[i][l], V{}), negative = larger(-C[i][l], V{});
      b[i] = b[i] + scaled(positive, at_middle[l]) + scaled(negative, -at_middle[l]);
      for (Index j = 0; j < n; ++j)
        A[i][j] = A[i][j] + scaled(positive, R[l][j]) + scaled(negative, -R[l][j]);
    }
  }
  Mask inside = ~Mask{};
  for (int sweep = 0; sweep < 2; ++sweep)
    for (Index i = 0; i < n; ++i) {
      Interval right = b[i];
      for (Index j = 0; j < n; ++j)
        if (j != i) right = right + A[i][j] * shift[j];
      const Interval found = quotient(-right, A[i][i]), end = found + point[i];
      if (sweep == 0) inside &= (end.minus_low < v[i].minus_low) & (end.high < v[i].high);
      shift[i] = meet(found, shift[i]);
      empty |= -shift[i].minus_low > shift[i].high;
    }
  V most = all(-1.0);
  widest = Mask{};
  for (Index j = 0; j < n; ++j) {
    V size = V{};
    for (Index i = 0; i < n; ++i) size += larger(R[i][j].minus_low, R[i][j].high);
    size *= v[j].high + v[j].minus_low;
    widest = size > most ? Mask{} + std::int64_t(j) : widest;
    most = larger(size, most);
  }
  for (Index i = 0; i < n; ++i) v[i] = meet(shift[i] + point[i], v[i]);
  const auto every = [](Known value) { return Mask{} + std::int64_t(value); };
  known = empty ? every(kEmpty) : inside ? every(kOne) : every(kOpen);
}

// The boxes of a vector, by their numbers.
inline void load_boxes(Index n, const Boxes& boxes, const Index* which, Interval* v) {
  for (Index i = 0; i < n; ++i)
    for (Index lane = 0; lane < kBoxes; ++lane) {
      v[i].minus_low[lane] = -boxes.low[which[lane] * n + i];
      v[i].high[lane] = boxes.high[which[lane] * n + i];
    }
}

void drop_empty(const Equations& e, const Boxes& boxes) {
  for (Index begin = 0; begin < boxes.k; begin += kBoxes) {
    Index which[kBoxes];
    for (Index lane = 0; lane < kBoxes; ++lane)  // the last box fills up the vector
      which[lane] = smaller(begin + lane, boxes.k - 1);
    Interval v[kN], u[kN];
    Terms t;
    load_boxes(e.n, boxes, which, v);
    const Mask empty = has_no_zero(e, v, t, u);
    for (Index lane = 0; lane < kBoxes; ++lane)
      boxes.known[which[lane]] = empty[lane] ? kEmpty : kOpen;
  }
}

// First the cheap part for all, which many do not survive, then the rest, in full vectors.
void contract(const Equations& e, const Boxes& boxes) {
  const Index n = e.n;
  drop_empty(e, boxes);
  for (Index next = 0; next < boxes.k;) {
    Index which[kBoxes], count = 0;
    for (; count < kBoxes && next < boxes.k; ++next) {
      boxes.widest[next] = 0;
      if (boxes.known[next] == kOpen) which[count++] = next;
    }
    if (count == 0) break;
    for (Index lane = count; lane < kBoxes; ++lane) which[lane] = which[0];
    Interval v[kN];
    Mask known, widest;
    load_boxes(n, boxes, which, v);
    contract_vector(e, v, known, widest);
    for (Index lane = 0; lane < count; ++lane) {
      const Index box = which[lane];
      boxes.known[box] = std::int32_t(known[lane]);
      boxes.widest[box] = std::int32_t(widest[lane]);
      for (Index i = 0; i < n; ++i) {
        boxes.low[box * n + i] = -v[i].minus_low[lane];
        boxes.high[box * n + i] = v[i].high[lane];
      }
    }
  }
}

}  // namespace

#define ORGANICS_JOIN(a, b) a##b
#define ORGANICS_NAME(a, b) ORGANICS_JOIN(a, b)
extern const Contract ORGANICS_NAME(kContract_, ORGANICS_ISA);
const Contract ORGANICS_NAME(kContract_, ORGANICS_ISA) = contract;

}  // namespace organics
