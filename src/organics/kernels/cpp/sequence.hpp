// Recurrences over a whole sequence, forward and backward in time.
//
// What a recurrence computes in one step is said by a *cell*, one file of `cells` each; `cell.hpp`
// says what a cell is. One *record* holds all there is about one sample at one step, so that a tile
// of samples stays in the cache. A tile is carried through all steps by one thread, with no
// synchronisation inside the sequence. Going back, the records of a segment of steps are computed
// again from the state at its start and, if the forward pass kept them, from what the products of
// every step gave; if it did not, these are computed again, too.
//
// The equations are those of Python, under `jax.lax.scan`, which all of this is tested against.
//
// This header says what a kernel is. `kernel.hpp` has them, and is compiled for each instruction set,
// with products as they are in `sequence.cpp`, and of numbers in bfloat16 in `bfloat16.cpp`.
#pragma once

#include <cstddef>
#include <cstdint>

namespace organics {

using Index = std::ptrdiff_t;

constexpr Index kMultiple = 16;
constexpr int kMatrices = 3;  // that a cell may have
constexpr int kSettings = 4;

// In the order of the kernels in `kernel.hpp`.
constexpr const char* kCells[] = {"organics", "lstm", "antisymmetric", "antisymmetric-gated",
                                  "cornn",    "lipschitz", "rnn", "lem", "organics-modulated-y",
                                  "organics-modulated", "organics-modulated-together"};
constexpr int kCellCount = sizeof(kCells) / sizeof(*kCells);

struct Shape {
  Index steps;    // T
  Index batch;    // B
  Index hidden;   // H, a multiple of kMultiple
  Index inputs;   // m
  Index segment;  // steps between two kept states
};

// A cell's numbers that are not trained: step sizes, and options as 0 or 1.
struct Settings {
  double values[kSettings];
};

// How large a cell's arrays are, in units of H.
struct Form {
  Index state;
  struct {
    Index receives, sends;  // both 0 if there is none
  } matrix[kMatrices];
  Index inputs;   // rows of the input's weights
  Index vectors;  // further parameters of each neuron
  Index kept;     // numbers of each sample and step that the forward pass can keep
};

// Weights as they are given: row i belongs to the neuron that receives.
template <typename T>
struct Weights {
  const T* matrix[kMatrices];  // (receives H, sends H)
  const T* input;              // (inputs H, m)
  const T* vectors;            // (vectors, H)
};

// Gradients of the same, with the inner index on the neuron that receives: (sends, receives).
template <typename T>
struct Gradients {
  T* matrix[kMatrices];
  T* input;
  T* vectors;
};

template <typename T>
struct Forward {
  const T* x;        // (T, B, m)
  const T* initial;  // (B, state H)
  T* final_state;    // (B, state H)
  T* kept;           // states at the starts of segments, (ceil(T / segment), B, state H), or null
  T* products;       // (T, B, kept H), or null
  T* outputs;        // (T, B, H): the first part of the state after each step, or null
  const std::int32_t* lengths;  // (B): steps after which each sample keeps its state, or null
};

template <typename T>
struct Backward {
  const T* x;           // (T, B, m)
  const T* kept;        // as in `Forward`
  const T* products;    // (T, B, kept H), or null
  const T* d_final;     // (B, state H)
  const T* d_outputs;   // (T, B, H), or null
  T* d_initial;         // (B, state H)
  T* d_x;               // (T, B, m), or null
  const std::int32_t* lengths;  // (B), as in `Forward`
};

// One cell's kernels for one instruction set, of samples first to last of the batch.
template <typename T>
struct Kernel {
  Form (*form)(const Settings&);
  // How many numbers the packed weights are, which threads share, and what a thread works in.
  Index (*packed_size)(const Shape&, const Settings&);
  Index (*scratch_size)(const Shape&, bool backward);
  void (*pack)(const Shape&, const Settings&, const Weights<T>&, void* packed, bool backward);
  void (*forward)(const Shape&, const Settings&, const Weights<T>&, const void* packed,
                  const Forward<T>&, Index first, Index last, T* scratch);
  void (*backward)(const Shape&, const Settings&, const Weights<T>&, const void* packed,
                   const Backward<T>&, const Gradients<T>&, Index first, Index last, T* scratch);
};

}  // namespace organics
