// The gated, Euler-discretised circuit over a whole sequence: forward, and backward in time.
//
// The equations are those of ../scan.py, which is what this code is tested against. One *record*
// holds all there is about one sample at one step, so that a tile of samples stays in cache:
//
//     y a b0 b | q u | z | yhat pool f0 f1          H numbers each
//
//     q = relu(y) or y, u = q^2 relu(a):   what the recurrent and the normalization weights see
//     yhat = W_r q,  pool = W u,           f0, f1: the gates, after their sigmoid
//
// A tile of samples is carried through all steps by one thread, with no synchronisation inside the
// sequence. Going back, the records of a segment of steps are computed again from the state at its
// start and, if the forward pass kept them, from the products `yhat pool f0 f1` of every step; if
// it did not, these are computed again, too.
//
// This header says what a kernel is; `sequence.cpp` is compiled once for each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace organics {

using Index = std::ptrdiff_t;

struct Shape {
  Index steps;    // T
  Index batch;    // B
  Index hidden;   // H, a multiple of kMultiple
  Index inputs;   // m
  Index segment;  // steps between two kept states
};

struct Options {
  bool identity;          // W_r is the identity and is not given
  bool rectified;         // relu(y) instead of y in the recurrent terms
  bool rectified_after;   // relu(W_r y) instead of W_r relu(y)
  bool rectified_drive;   // relu(z) instead of z
};

constexpr Index kMultiple = 16;

// Numbers for each sample and step in `yhat pool f0 f1`; of the identity, yhat is q.
inline Index products_of(const Shape& s, const Options& o) {
  return (o.identity ? 3 : 4) * s.hidden;
}

// Weights as they are given: row i belongs to the neuron that receives.
template <typename T>
struct Weights {
  const T* recurrent;      // (H, H)
  const T* normalization;  // (H, H)
  const T* gates;          // (2H, 2H): rows b0, b; columns y, a
  const T* input;          // (3H, m): rows z, b0, b
  const T* rates;          // (4, H): step over time constant of y, a, b0, b
  const T* offset;         // (H): sigma^2
};

// Gradients of the same, with the inner index on the neuron that receives: (sends, receives).
template <typename T>
struct Gradients {
  T* recurrent;      // (H, H)
  T* normalization;  // (H, H)
  T* gates;          // (2H, 2H)
  T* input;          // (m, 3H)
  T* rates;          // (4, H)
  T* offset;         // (H)
};

template <typename T>
struct Forward {
  const T* x;        // (T, B, m)
  const T* initial;  // (B, 4H)
  T* final_state;    // (B, 4H)
  T* kept;           // (ceil(T / segment), B, 4H), or null
  T* products;       // (T, B, products_of), or null
  T* outputs;        // (T, B, H): y after each step, or null
  const std::int32_t* lengths;  // (B): steps after which each sample keeps its state, or null
};

template <typename T>
struct Backward {
  const T* x;           // (T, B, m)
  const T* kept;        // (ceil(T / segment), B, 4H)
  const T* products;    // (T, B, products_of), or null
  const T* d_final;     // (B, 4H)
  const T* d_outputs;   // (T, B, H), or null
  T* d_initial;         // (B, 4H)
  T* d_x;               // (T, B, m), or null
  const std::int32_t* lengths;  // (B), as in `Forward`
};

// One instruction set's kernels. `rows` is a tile of samples, first to last of the batch.
template <typename T>
struct Kernel {
  // How many numbers a thread needs to work in, and the shared packed weights.
  Index (*packed_size)(const Shape&);
  Index (*scratch_size)(const Shape&, bool backward);
  void (*pack)(const Shape&, const Options&, const Weights<T>&, T* packed, bool backward);
  void (*forward)(const Shape&, const Options&, const Weights<T>&, const T* packed,
                  const Forward<T>&, Index first, Index last, T* scratch);
  void (*backward)(const Shape&, const Options&, const Weights<T>&, const T* packed,
                   const Backward<T>&, const Gradients<T>&, Index first, Index last, T* scratch);
  Index tile;  // samples in a tile
};

}  // namespace organics
