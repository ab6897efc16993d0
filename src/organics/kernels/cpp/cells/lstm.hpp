// Long short-term memory: i, f, o the open gates, g the candidate; c <- f c + i g, h <- o tanh(c).
#pragma once

#include "../cell.hpp"

namespace organics {
namespace {

template <typename T>
struct Lstm : Cell<T> {
  enum { kH, kC, kI, kF, kO, kG, kTanhC, kRecord };
  enum { kGI, kGF, kGO, kGG, kCotangents };
  static constexpr int kState = 2, kInput = kI, kInputs = 4, kCInput = kGI, kKept = kI;

  explicit Lstm(const Settings&) {}

  int kept() const { return 4; }
  int receivers() const { return 1; }
  Receiver receiver(int) const { return {kI, 4, 0, kH, 1, kGI, kH}; }

  template <int>
  void open(Parts<T>, Parts<T> e) const {
    e.set(kI, sigmoid<T>(e[kI]));
    e.set(kF, sigmoid<T>(e[kF]));
    e.set(kO, sigmoid<T>(e[kO]));
    e.set(kG, hyperbolic_tangent<T>(e[kG]));
  }

  template <int>
  void move(Parts<T>, Parts<T> e, Parts<T> n) const {
    const Vector<T> c = e[kF] * e[kC] + e[kI] * e[kG], bounded = hyperbolic_tangent<T>(c);
    n.set(kC, c);
    n.set(kH, e[kO] * bounded);
    e.set(kTanhC, bounded);
  }

  template <int>
  void pull_back(Parts<T>, Parts<T>, Parts<T> e, Parts<T> g, Parts<T> d) const {
    const Vector<T> i = e[kI], f = e[kF], o = e[kO], candidate = e[kG], bounded = e[kTanhC];
    const Vector<T> d_h = d[kH], d_c = d[kC] + d_h * o * tanh_slope<T>(bounded);
    g.set(kGI, d_c * candidate * sigmoid_slope<T>(i));
    g.set(kGF, d_c * e[kC] * sigmoid_slope<T>(f));
    g.set(kGO, d_h * bounded * sigmoid_slope<T>(o));
    g.set(kGG, d_c * i * tanh_slope<T>(candidate));
    d.set(kH, Vector<T>{});
    d.set(kC, d_c * f);
  }
};

}  // namespace
}  // namespace organics
