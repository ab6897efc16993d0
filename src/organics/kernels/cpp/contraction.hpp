// One step of a proof that boxes hold no steady state, or exactly one: see `enumeration/contraction.py`
// for what is computed, and for the same in NumPy, which all of this is tested against.
//
// This header says what the kernel takes; `contraction.cpp` is compiled once for each instruction
// set.
#pragma once

#include "sequence.hpp"

namespace organics {

constexpr int kMostUnknowns = 8;
enum Known : std::int32_t { kEmpty, kOpen, kOne };

// The equations: n x n matrices by rows, and lower and upper ends of `c` and `d`.
struct Equations {
  Index n;
  const double *W, *W_r, *c_low, *c_high, *d_low, *d_high;
};

// k boxes of n numbers, which are shrunk; what is known of each; where to cut it next.
struct Boxes {
  Index k;
  double *low, *high;
  std::int32_t *known, *widest;
};

// To be called while the processor rounds upwards.
using Contract = void (*)(const Equations&, const Boxes&);

}  // namespace organics
