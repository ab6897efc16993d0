// The AntisymmetricRNN: h <- h + epsilon tanh(A h + V x), if gated with sigmoid(A h + V_z x) as a
// factor of the tanh.
#pragma once

#include "../cell.hpp"

namespace organics {
namespace {

template <typename T>
struct Antisymmetric : Cell<T> {
  enum { kH, kForce, kRecord };
  enum { kGForce, kCotangents };
  static constexpr int kState = 1, kInput = kForce, kInputs = 1, kCInput = kGForce, kKept = kForce;

  T epsilon;

  explicit Antisymmetric(const Settings& s) : epsilon(T(s.values[0])) {}

  int kept() const { return 1; }
  int receivers() const { return 1; }
  Receiver receiver(int) const { return {kForce, 1, 0, kH, 1, kGForce, kH}; }

  template <int>
  void open(Parts<T>, Parts<T> e) const {
    e.set(kForce, hyperbolic_tangent<T>(e[kForce]));
  }

  template <int>
  void move(Parts<T>, Parts<T> e, Parts<T> n) const {
    n.set(kH, e[kH] + epsilon * e[kForce]);
  }

  template <int>
  void pull_back(Parts<T>, Parts<T>, Parts<T> e, Parts<T> g, Parts<T> d) const {
    g.set(kGForce, epsilon * d[kH] * tanh_slope<T>(e[kForce]));
  }
};

template <typename T>
struct AntisymmetricGated : Cell<T> {
  enum { kH, kForce, kGate, kProduct, kRecord };
  enum { kGForce, kGGate, kGProduct, kCotangents };
  static constexpr int kState = 1, kInput = kForce, kInputs = 2, kCInput = kGForce, kKept = kForce;

  T epsilon;

  explicit AntisymmetricGated(const Settings& s) : epsilon(T(s.values[0])) {}

  int kept() const { return 2; }
  int receivers() const { return 2; }
  Receiver receiver(int i) const {
    const Receiver all[] = {{kForce, 2, -1, 0, 0, kGForce, 0},
                            {kProduct, 1, 0, kH, 1, kGProduct, kH}};
    return all[i];
  }

  template <int>
  void open(Parts<T>, Parts<T> e) const {
    const Vector<T> product = e[kProduct];
    e.set(kForce, hyperbolic_tangent<T>(product + e[kForce]));
    e.set(kGate, sigmoid<T>(product + e[kGate]));
  }

  template <int>
  void move(Parts<T>, Parts<T> e, Parts<T> n) const {
    n.set(kH, e[kH] + epsilon * (e[kForce] * e[kGate]));
  }

  template <int>
  void pull_back(Parts<T>, Parts<T>, Parts<T> e, Parts<T> g, Parts<T> d) const {
    const Vector<T> force = e[kForce], gate = e[kGate], c = epsilon * d[kH];
    const Vector<T> g_force = c * gate * tanh_slope<T>(force);
    const Vector<T> g_gate = c * force * sigmoid_slope<T>(gate);
    g.set(kGForce, g_force);
    g.set(kGGate, g_gate);
    g.set(kGProduct, g_force + g_gate);
  }
};

}  // namespace
}  // namespace organics
