// Coupled oscillators: v <- v + dt [tanh(W (h, v) + V x) - gamma h - epsilon v], h <- h + dt v with
// the new v.
#pragma once

#include "../cell.hpp"

namespace organics {
namespace {

template <typename T>
struct Cornn : Cell<T> {
  enum { kH, kV, kForce, kRecord };
  enum { kGForce, kCotangents };
  static constexpr int kState = 2, kInput = kForce, kInputs = 1, kCInput = kGForce, kKept = kForce;

  T dt, gamma, epsilon;

  explicit Cornn(const Settings& s)
      : dt(T(s.values[0])), gamma(T(s.values[1])), epsilon(T(s.values[2])) {}

  int kept() const { return 1; }
  int receivers() const { return 1; }
  Receiver receiver(int) const { return {kForce, 1, 0, kH, 2, kGForce, kH}; }

  template <int>
  void open(Parts<T>, Parts<T> e) const {
    e.set(kForce, hyperbolic_tangent<T>(e[kForce]));
  }

  template <int>
  void move(Parts<T>, Parts<T> e, Parts<T> n) const {
    const Vector<T> h = e[kH], v = e[kV], moved = v + dt * (e[kForce] - gamma * h - epsilon * v);
    n.set(kV, moved);
    n.set(kH, h + dt * moved);
  }

  template <int>
  void pull_back(Parts<T>, Parts<T>, Parts<T> e, Parts<T> g, Parts<T> d) const {
    const Vector<T> d_h = d[kH], d_v = d[kV] + dt * d_h, c = dt * d_v;
    g.set(kGForce, c * tanh_slope<T>(e[kForce]));
    d.set(kH, d_h - gamma * c);
    d.set(kV, d_v - epsilon * c);
  }
};

}  // namespace
}  // namespace organics
