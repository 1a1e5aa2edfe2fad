// Element by element: the rectifier with a slope for negative values, and sums.
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

// y = alpha * a + beta * b, rectified if asked for; y may be a or b.
extern "C" __global__ void weighted_sum(
    const real* a, double alpha, const real* b, double beta, int relu, int size, real* y)
{
    OWN(i, size);
    y[i] = rectified((real)alpha * a[i] + (real)beta * b[i], relu);
}

// d_a = d_b = d_y where y > 0, else 0; d_a may be d_y.
extern "C" __global__ void sum_relu_gradient(
    const real* y, const real* d_y, int size, real* d_a, real* d_b)
{
    OWN(i, size);
    const real gradient = y[i] > 0 ? d_y[i] : (real)0;
    d_a[i] = gradient;
    d_b[i] = gradient;
}
