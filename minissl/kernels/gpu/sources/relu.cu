// The rectifier with a slope for negative values.
#include "common.cuh"

extern "C" __global__ void relu(const real* x, double slope, int size, real* y)
{
    OWN(i, size);
    y[i] = x[i] > 0 ? x[i] : x[i] * (real)slope;
}

extern "C" __global__ void relu_gradient(
    const real* x, const real* d_y, double slope, int size, real* d_x)
{
    OWN(i, size);
    d_x[i] = x[i] > 0 ? d_y[i] : d_y[i] * (real)slope;
}
