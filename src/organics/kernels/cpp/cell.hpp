// What a cell says of itself. With H neurons, a record of one sample at one step is made of parts of
// H numbers each, which a cell names in an enumeration:
//
//     state | seen | what receives products, and what else is needed going back
//
// The state begins the record, its first part is the output. *Seen* is what follows from the state
// by itself and is multiplied with weights, such as a rectified state. A `Receiver` is a product.
//
// A step is made of stages, one or two: the products of a stage, then what is elementwise. A cell is
// a class template of the number's type with
//
//     kState, kSeen, kRecord    parts of the state, of what is seen of it, of a record
//     kInput, kInputs           the parts that receive the input, in the order of its weights' rows
//     kKept                     the first of the parts that the forward pass can keep: `kept()` many
//     kCotangents, kCInput      cotangents of what is received; the first of those of `kInput`
//     kVectors, kStages         further parameters of each neuron, stages
//     receivers(), receiver(i)  the products
//     see(state)                fills in what is seen of a state, if anything is
//     open<stage>(v, e)         what is nonlinear of the products and of `v` alone, so that it can be kept
//     move<stage>(v, e, n)      from a record `e`, the state one step later in `n`
//     pull_back<stage>(v, dv, e, g, d)
//                               from the cotangents `d` of the state after the stage those of its
//                               products, in `g`, and of the state before it but for the products,
//                               in `d`; adds those of the parameters `v` to `dv`
//     unsee(e, g, d)            adds to the state's cotangents what comes through what is seen
//
// all of one vector of neurons. Cotangents `d` have the parts `state | seen`. What comes back through
// the products of a stage is added to them after its `pull_back`; those of what is seen are set.
#pragma once

#include "products.hpp"

namespace organics {
namespace {

// Numbers of a vector of neurons, part by part.
template <typename T>
struct Parts {
  T* at;
  Index h;

  Vector<T> operator[](int part) const { return load<T>(at + part * h); }
  void set(int part, Vector<T> value) const { store<T>(at + part * h, value); }
  void add(int part, Vector<T> value) const { set(part, (*this)[part] + value); }
};

// Parts of a record that receive a product: of a matrix and other parts, of the input, or both.
struct Receiver {
  int part, parts;      // of the record
  int matrix;           // its number; -1 is none
  int source, sources;  // parts of the record that it is multiplied with
  int cotangent;        // the first of those of these parts
  int back;             // the first of those of the sources, in `d`
  int stage = 0;
  bool again = false;   // is needed going back, and not kept
};

// What most cells have: a state of which nothing further is seen, no further parameters, one stage.
template <typename T>
struct Cell {
  static constexpr int kSeen = 0, kVectors = 0, kStages = 1;
};

template <typename C>
bool takes_input(const Receiver& r) {
  return r.part >= C::kInput && r.part < C::kInput + C::kInputs;
}

}  // namespace
}  // namespace organics
