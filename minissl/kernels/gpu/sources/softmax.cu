// Softmax over the middle axis of (outer, classes, inner); one block for each (outer, inner).
#include "common.cuh"
#include "block.cuh"

// y = exp(x - max) / sum exp(x - max).
extern "C" __global__ void softmax(const real* x, int classes, int inner, real* y)
{
    const int first = blockIdx.x / inner * classes * inner + blockIdx.x % inner;
    real largest = x[first];
    for (int k = threadIdx.x; k < classes; k += blockDim.x) {
        const real value = x[first + k * inner];
        if (value > largest || value != value) largest = value;
    }
    largest = block_max(largest);
    double sum = 0;
    for (int k = threadIdx.x; k < classes; k += blockDim.x) {
        const real e = exp(x[first + k * inner] - largest);
        y[first + k * inner] = e;
        sum += e;
    }
    const real total = (real)block_sum(sum);
    for (int k = threadIdx.x; k < classes; k += blockDim.x) y[first + k * inner] /= total;
}

// d_x = y * (d_y - sum over classes of d_y * y).
extern "C" __global__ void softmax_gradient(
    const real* y, const real* d_y, int classes, int inner, real* d_x)
{
    const int first = blockIdx.x / inner * classes * inner + blockIdx.x % inner;
    double sum = 0;
    for (int k = threadIdx.x; k < classes; k += blockDim.x) {
        sum += (double)d_y[first + k * inner] * y[first + k * inner];
    }
    const real total = (real)block_sum(sum);
    for (int k = threadIdx.x; k < classes; k += blockDim.x) {
        const int i = first + k * inner;
        d_x[i] = y[i] * (d_y[i] - total);
    }
}
