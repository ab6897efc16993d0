// The kernels for products of numbers in bfloat16, with sums, states and all else in float. Without
// instructions for them, such numbers are multiplied as floats, which gives the same but for the
// rounding of sums.
#include "kernel.hpp"

namespace organics {
ORGANICS_KERNELS(Rounded, float, kBfloat16_)
}  // namespace organics
