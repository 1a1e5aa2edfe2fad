// Weight decay, and the sums that its penalty is made of.
#include "common.cuh"
#include "block.cuh"

// d_w += strength * multiplier * w, or sign(w) in place of w for L1; multiplier null for 1.
extern "C" __global__ void add_decay(
    const real* w, double strength, const real* multiplier, int is_l1, int size, real* d_w)
{
    OWN(i, size);
    const real value = is_l1 ? (real)((w[i] > 0) - (w[i] < 0)) : w[i];
    const real decay = (real)strength * value;
    d_w[i] += multiplier ? decay * multiplier[i] : decay;
}

// One part for each block of: sum of multiplier * w^2, or with is_l1 of |multiplier * w|.
extern "C" __global__ void partial_penalty(
    const real* w, const real* multiplier, int is_l1, int size, double* parts)
{
    double total = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += gridDim.x * blockDim.x) {
        const double m = multiplier ? (double)multiplier[i] : 1.0;
        total += is_l1 ? (double)fabs(multiplier ? w[i] * multiplier[i] : w[i]) : m * w[i] * w[i];
    }
    total = block_sum(total);
    if (threadIdx.x == 0) parts[blockIdx.x] = total;
}

// finite = 0 where an element is NaN or infinite; whoever finds one writes the same.
extern "C" __global__ void note_non_finite(const real* w, int size, int* finite)
{
    OWN(i, size);
    if (!is_finite(w[i])) *finite = 0;
}
