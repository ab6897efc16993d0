// The vanilla recurrent network: h <- tanh(W h + V x).
#pragma once

#include "../cell.hpp"

namespace organics {
namespace {

template <typename T>
struct Tanh : Cell<T> {
  enum { kH, kNewH, kRecord };
  enum { kGH, kCotangents };
  static constexpr int kState = 1, kInput = kNewH, kInputs = 1, kCInput = kGH, kKept = kNewH;

  explicit Tanh(const Settings&) {}

  int kept() const { return 1; }
  int receivers() const { return 1; }
  Receiver receiver(int) const { return {kNewH, 1, 0, kH, 1, kGH, kH}; }

  template <int>
  void open(Parts<T>, Parts<T> e) const {
    e.set(kNewH, hyperbolic_tangent<T>(e[kNewH]));
  }

  template <int>
  void move(Parts<T>, Parts<T> e, Parts<T> n) const {
    n.set(kH, e[kNewH]);
  }

  template <int>
  void pull_back(Parts<T>, Parts<T>, Parts<T> e, Parts<T> g, Parts<T> d) const {
    g.set(kGH, d[kH] * tanh_slope<T>(e[kNewH]));
    d.set(kH, Vector<T>{});
  }
};

}  // namespace
}  // namespace organics
