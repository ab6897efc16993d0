// Long expressive memory, with s1, s2 the open gates:
//
//     z <- (1 - dt s1) z + dt s1 tanh(W_z y + V_z x)
//     y <- (1 - dt s2) y + dt s2 tanh(W_y z + V_y x), with the new z
#pragma once

#include "../cell.hpp"

namespace organics {
namespace {

template <typename T>
struct Lem : Cell<T> {
  enum { kY, kZ, kS1, kS2, kForceZ, kForceY, kNewZ, kRecord };
  enum { kGS1, kGS2, kGForceZ, kGForceY, kCotangents };
  static constexpr int kState = 2, kInput = kS1, kInputs = 4, kCInput = kGS1, kKept = kS1;
  static constexpr int kStages = 2;

  T dt;

  explicit Lem(const Settings& s) : dt(T(s.values[0])) {}

  int kept() const { return 4; }
  int receivers() const { return 2; }
  Receiver receiver(int i) const {
    const Receiver all[] = {{kS1, 3, 0, kY, 1, kGS1, kY},
                            {kForceY, 1, 1, kNewZ, 1, kGForceY, kZ, 1}};
    return all[i];
  }

  template <int stage>
  void open(Parts<T>, Parts<T> e) const {
    if constexpr (stage == 0) {
      e.set(kS1, sigmoid<T>(e[kS1]));
      e.set(kS2, sigmoid<T>(e[kS2]));
      e.set(kForceZ, hyperbolic_tangent<T>(e[kForceZ]));
    } else {
      e.set(kForceY, hyperbolic_tangent<T>(e[kForceY]));
    }
  }

  template <int stage>
  void move(Parts<T>, Parts<T> e, Parts<T> n) const {
    if constexpr (stage == 0) {
      const Vector<T> step = dt * e[kS1], z = (T(1) - step) * e[kZ] + step * e[kForceZ];
      e.set(kNewZ, z);
      n.set(kZ, z);
    } else {
      const Vector<T> step = dt * e[kS2];
      n.set(kY, (T(1) - step) * e[kY] + step * e[kForceY]);
    }
  }

  template <int stage>
  void pull_back(Parts<T>, Parts<T>, Parts<T> e, Parts<T> g, Parts<T> d) const {
    constexpr int part = stage == 0 ? kZ : kY, gate = stage == 0 ? kS1 : kS2;
    constexpr int towards = stage == 0 ? kForceZ : kForceY;
    const Vector<T> s = e[gate], force = e[towards], c = dt * d[part];
    g.set(gate - kInput, c * (force - e[part]) * sigmoid_slope<T>(s));
    g.set(towards - kInput, c * s * tanh_slope<T>(force));
    d.set(part, d[part] - c * s);
  }
};

}  // namespace
}  // namespace organics
