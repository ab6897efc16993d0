// The Lipschitz recurrent network: h <- h + epsilon [A h + tanh(W h + V x)].
#pragma once

#include "../cell.hpp"

namespace organics {
namespace {

template <typename T>
struct Lipschitz : Cell<T> {
  enum { kH, kLinear, kForce, kRecord };
  enum { kGLinear, kGForce, kCotangents };
  static constexpr int kState = 1, kInput = kForce, kInputs = 1, kCInput = kGForce, kKept = kLinear;

  T epsilon;

  explicit Lipschitz(const Settings& s) : epsilon(T(s.values[0])) {}

  int kept() const { return 2; }
  int receivers() const { return 2; }
  Receiver receiver(int i) const {
    const Receiver all[] = {{kLinear, 1, 0, kH, 1, kGLinear, kH}, {kForce, 1, 1, kH, 1, kGForce, kH}};
    return all[i];
  }

  template <int>
  void open(Parts<T>, Parts<T> e) const {
    e.set(kForce, hyperbolic_tangent<T>(e[kForce]));
  }

  template <int>
  void move(Parts<T>, Parts<T> e, Parts<T> n) const {
    n.set(kH, e[kH] + epsilon * (e[kLinear] + e[kForce]));
  }

  template <int>
  void pull_back(Parts<T>, Parts<T>, Parts<T> e, Parts<T> g, Parts<T> d) const {
    const Vector<T> c = epsilon * d[kH];
    g.set(kGLinear, c);
    g.set(kGForce, c * tanh_slope<T>(e[kForce]));
  }
};

}  // namespace
}  // namespace organics
