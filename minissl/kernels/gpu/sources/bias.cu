// Biases: added to outputs, and their gradients.
#include "common.cuh"
#include "block.cuh"

// y (N, F) += b, rectified if asked for.
extern "C" __global__ void add_bias(const real* b, int relu, int N, int F, real* y)
{
    OWN(i, N * F);
    const real value = b ? y[i] + b[i % F] : y[i];
    y[i] = rectified(value, relu);
}

// d_b[f] += sum over images and pixels of d_y (N, F, pixels); one block for each filter.
extern "C" __global__ void bias_gradient(const real* d_y, int N, int F, int pixels, real* d_b)
{
    const int f = blockIdx.x;
    double total = 0;
    for (int i = threadIdx.x; i < N * pixels; i += blockDim.x) {
        total += d_y[(i / pixels * F + f) * pixels + i % pixels];
    }
    total = block_sum(total);
    if (threadIdx.x == 0) d_b[f] += (real)total;
}
