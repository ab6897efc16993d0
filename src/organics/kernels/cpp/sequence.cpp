// The kernels for products in the type of all numbers.
#include "kernel.hpp"

namespace organics {
ORGANICS_KERNELS(float, float, kFloat_)
ORGANICS_KERNELS(double, double, kDouble_)
}  // namespace organics
