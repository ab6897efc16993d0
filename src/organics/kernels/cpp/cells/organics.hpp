// The gated circuit with divisive normalization:
//
//     q = relu(y) or y, u = q^2 relu(a):   what the recurrent and the normalization weights see
//     yhat = W_r q,  pool = W u,           f0, f1: the gates
//
// The first `modulated` of the rates of y, a, b0 and b are v[kLargest] times an open gate; its
// products alone being 0 it is v[kRate], and else the sigmoid of v[kRaw] and them. Each gate has
// products of its own, or all have the same: `sums` is their number.
#pragma once

#include "../cell.hpp"

namespace organics {
namespace {

template <typename T, int modulated, int sums = modulated>
struct Organics : Cell<T> {
  enum { kY, kA, kB0, kB, kQ, kU, kZ, kF0, kF1, kOpen, kPool = kOpen + modulated, kYhat, kRecord };
  enum { kGZ, kGF0, kGF1, kGOpen, kGPool = kGOpen + sums, kGYhat, kCotangents };
  enum { kRate, kOffset = 4, kRaw, kLargest = kRaw + modulated, kVectors = kLargest + modulated };
  static constexpr int kState = 4, kSeen = 2, kInput = kZ, kInputs = 3 + sums;
  static constexpr int kCInput = kGZ, kKept = kF0;

  bool identity;         // W_r is the identity and is not given
  bool rectified;        // relu(y) instead of y in the recurrent terms
  bool rectified_after;  // relu(W_r y) instead of W_r relu(y)
  bool rectified_drive;  // relu(z) instead of z

  explicit Organics(const Settings& s)
      : identity(s.values[0] != 0),
        rectified(s.values[1] != 0),
        rectified_after(rectified && !identity && s.values[2] != 0),
        rectified_drive(s.values[3] != 0) {}

  int kept() const { return (identity ? 3 : 4) + modulated; }  // of the identity, yhat is q
  int receivers() const { return identity ? 3 : 4; }
  Receiver receiver(int i) const {
    const int seen = rectified_after ? kY : kQ;
    const Receiver all[] = {{kZ, 1, -1, 0, 0, kGZ, 0, 0, true},
                            {kF0, 2 + sums, 2, kY, 2, kGF0, kY},
                            {kPool, 1, 1, kU, 1, kGPool, kU},
                            {kYhat, 1, 0, seen, 1, kGYhat, seen}};
    return all[i];
  }

  void see(Parts<T> e) const {
    const Vector<T> y = e[kY], q = rectified ? relu<T>(y) : y;
    e.set(kQ, q);
    e.set(kU, q * q * relu<T>(e[kA]));
  }

  template <int>
  void open(Parts<T> v, Parts<T> e) const {
    e.set(kF0, sigmoid<T>(e[kF0]));
    e.set(kF1, sigmoid<T>(e[kF1]));
    for (int i = modulated - 1; i >= 0; --i) {  // the first last, as it may hold what all need
      const Vector<T> shift = e[kOpen + (i < sums ? i : 0)];
      e.set(kOpen + i, shift == 0 ? v[kRate + i] : sigmoid<T>(v[kRaw + i] + shift));
    }
    if (rectified_after) e.set(kYhat, relu<T>(e[kYhat]));
  }

  // Step size over the time constant of a part of the state.
  Vector<T> rate(Parts<T> v, Parts<T> e, int part) const {
    return part < modulated ? v[kLargest + part] * e[kOpen + part] : v[kRate + part];
  }

  // Adds the gradient of a rate by `c`, the cotangent of it.
  void pull_back_rate(Parts<T> v, Parts<T> dv, Parts<T> e, Parts<T> g, int part, Vector<T> c) const {
    if (part < modulated) {
      const Vector<T> shift = c * v[kLargest + part] * sigmoid_slope<T>(e[kOpen + part]);
      dv.add(kRaw + part, shift);
      if (part < sums) {
        g.set(kGOpen + part, shift);
      } else {
        g.add(kGOpen, shift);
      }
    } else {
      dv.add(kRate + part, c);
    }
  }

  template <int>
  void move(Parts<T> v, Parts<T> e, Parts<T> n) const {
    const Vector<T> y = e[kY], a = e[kA], b0 = e[kB0], b = e[kB];
    const Vector<T> z = rectified_drive ? relu<T>(e[kZ]) : e[kZ];
    const Vector<T> yhat = e[identity ? kQ : kYhat], gate = T(1) - square_root<T>(relu<T>(a));
    const Vector<T> pool = e[kPool], f0 = e[kF0], f1 = e[kF1];
    e.set(kZ, z);
    n.set(kY, y + rate(v, e, kY) * (-y + b * z + gate * yhat));
    n.set(kA, a + rate(v, e, kA) * (-a + v[kOffset] * (b0 * b0) + pool));
    n.set(kB0, b0 + rate(v, e, kB0) * (f0 - b0));
    n.set(kB, b + rate(v, e, kB) * (f1 - b));
    see(n);
  }

  template <int>
  void pull_back(Parts<T> v, Parts<T> dv, Parts<T> e, Parts<T> g, Parts<T> d) const {
    const Vector<T> y = e[kY], a = e[kA], b0 = e[kB0], b = e[kB], z = e[kZ];
    const Vector<T> yhat = e[identity ? kQ : kYhat], f0 = e[kF0], f1 = e[kF1], pool = e[kPool];
    const Vector<T> offset = v[kOffset], root = square_root<T>(relu<T>(a)), gate = T(1) - root;
    const Vector<T> d_y = d[kY], d_a = d[kA], d_b0 = d[kB0], d_b = d[kB];
    pull_back_rate(v, dv, e, g, kY, d_y * (-y + b * z + gate * yhat));
    pull_back_rate(v, dv, e, g, kA, d_a * (-a + offset * (b0 * b0) + pool));
    pull_back_rate(v, dv, e, g, kB0, d_b0 * (f0 - b0));
    pull_back_rate(v, dv, e, g, kB, d_b * (f1 - b));
    const Vector<T> c_y = rate(v, e, kY) * d_y, c_a = rate(v, e, kA) * d_a;
    const Vector<T> c_b0 = rate(v, e, kB0) * d_b0, c_b = rate(v, e, kB) * d_b;
    dv.add(kOffset, c_a * (b0 * b0));
    const Vector<T> g_yhat = c_y * gate, g_z = c_y * b;
    g.set(kGYhat, rectified_after ? (yhat > 0 ? g_yhat : Vector<T>{}) : g_yhat);
    g.set(kGPool, c_a);
    g.set(kGZ, rectified_drive ? (z > 0 ? g_z : Vector<T>{}) : g_z);
    g.set(kGF0, c_b0 * f0 * (T(1) - f0));
    g.set(kGF1, c_b * f1 * (T(1) - f1));
    const Vector<T> through_root = a > 0 ? c_y * yhat * (T(0.5) * reciprocal<T>(root)) : Vector<T>{};
    d.set(kY, d_y - c_y);
    d.set(kA, d_a - c_a - through_root);
    d.set(kB0, d_b0 - c_b0 + c_a * offset * (T(2) * b0));
    d.set(kB, d_b - c_b + c_y * z);
  }

  void unsee(Parts<T> e, Parts<T> g, Parts<T> d) const {
    const Vector<T> a = e[kA], q = e[kQ], c_u = d[kU];
    Vector<T> c_q = rectified_after ? Vector<T>{} : identity ? g[kGYhat] : d[kQ];
    if (rectified) c_q = e[kY] > 0 ? c_q : Vector<T>{};
    d.add(kY, c_q + c_u * (T(2) * q * relu<T>(a)));
    d.add(kA, a > 0 ? c_u * (q * q) : Vector<T>{});
  }
};

}  // namespace
}  // namespace organics
