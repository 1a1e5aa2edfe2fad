// What is done to every channel of (N, C, S) by itself; sums have one block for each channel.
#include "common.cuh"
#include "block.cuh"

// The i-th value of channel c.
__device__ inline int in_channel(int i, int c, int C, int S) { return (i / S * C + c) * S + i % S; }

// mean = sum of x / (N * S); variance = sum of (x - mean)^2 / (N * S).
extern "C" __global__ void channel_moments(
    const real* x, int N, int C, int S, real* mean, real* variance)
{
    const int c = blockIdx.x;
    double total = 0;
    for (int i = threadIdx.x; i < N * S; i += blockDim.x) total += x[in_channel(i, c, C, S)];
    const real center = (real)(block_sum(total) / (N * (double)S));
    total = 0;
    for (int i = threadIdx.x; i < N * S; i += blockDim.x) {
        const double distance = x[in_channel(i, c, C, S)] - center;
        total += distance * distance;
    }
    total = block_sum(total);
    if (threadIdx.x == 0) {
        mean[c] = center;
        variance[c] = (real)(total / (N * (double)S));
    }
}

// y = (x - mean) / sqrt(variance + eps).
extern "C" __global__ void normalize(
    const real* x, int N, int C, int S, const real* mean, const real* variance, double eps, real* y)
{
    OWN(i, N * C * S);
    const int c = i / S % C;
    y[i] = (x[i] - mean[c]) * ((real)1 / sqrt(variance[c] + (real)eps));
}

// d_x = (d_y - mean of d_y - x^ * mean of d_y * x^) / sqrt(variance + eps), x^ the normalized x.
extern "C" __global__ void normalize_gradient(
    const real* x, const real* d_y, int N, int C, int S, const real* mean, const real* variance,
    double eps, real* d_x)
{
    const int c = blockIdx.x;
    const real center = mean[c];
    const real inverse = (real)1 / sqrt(variance[c] + (real)eps);
    double total = 0, product = 0;
    for (int i = threadIdx.x; i < N * S; i += blockDim.x) {
        const int at = in_channel(i, c, C, S);
        total += d_y[at];
        product += (double)d_y[at] * (x[at] - center);
    }
    const real common = (real)(block_sum(total) / (N * (double)S));
    const real slope = (real)(block_sum(product) / (N * (double)S)) * inverse * inverse;
    for (int i = threadIdx.x; i < N * S; i += blockDim.x) {
        const int at = in_channel(i, c, C, S);
        d_x[at] = (d_y[at] - common - slope * (x[at] - center)) * inverse;
    }
}

// y = scale[c] * (x - mean) / sqrt(variance + eps) + bias[c], rectified if asked for.
extern "C" __global__ void norm_scale(
    const real* x, int N, int C, int S, const real* mean, const real* variance, double eps,
    const real* scale, const real* bias, int relu, real* y)
{
    OWN(i, N * C * S);
    const int c = i / S % C;
    const real inverse = (real)1 / sqrt(variance[c] + (real)eps);
    const real value = scale[c] * ((x[i] - mean[c]) * inverse);
    y[i] = rectified(bias ? value + bias[c] : value, relu);
}

// Its gradient; g is d_y, 0 where y was rectified: d_bias += sum of g, d_scale += sum of g * x^.
extern "C" __global__ void norm_scale_gradient(
    const real* x, const real* y, const real* d_y, int N, int C, int S, const real* mean,
    const real* variance, double eps, const real* scale, int relu, real* d_scale, real* d_bias,
    real* d_x)
{
    const int c = blockIdx.x;
    const real center = mean[c];
    const real inverse = (real)1 / sqrt(variance[c] + (real)eps);
    double total = 0, product = 0;
    for (int i = threadIdx.x; i < N * S; i += blockDim.x) {
        const int at = in_channel(i, c, C, S);
        const real g = relu && !(y[at] > 0) ? (real)0 : d_y[at];
        total += g;
        product += (double)g * (x[at] - center);
    }
    total = block_sum(total);
    product = block_sum(product);
    if (threadIdx.x == 0) {
        d_scale[c] += (real)(product * inverse);
        if (d_bias) d_bias[c] += (real)total;
    }
    const real common = (real)(total / (N * (double)S));
    const real slope = (real)(product / (N * (double)S)) * inverse * inverse;
    const real factor = scale[c] * inverse;
    for (int i = threadIdx.x; i < N * S; i += blockDim.x) {
        const int at = in_channel(i, c, C, S);
        const real g = relu && !(y[at] > 0) ? (real)0 : d_y[at];
        d_x[at] = (g - common - slope * (x[at] - center)) * factor;
    }
}

// y = scale[c] * x + bias[c]; there may be no bias.
extern "C" __global__ void channel_scale(
    const real* x, int N, int C, int S, const real* scale, const real* bias, real* y)
{
    OWN(i, N * C * S);
    const int c = i / S % C;
    const real value = scale[c] * x[i];
    y[i] = bias ? value + bias[c] : value;
}

// d_scale[c] += sum of d_y * x.
extern "C" __global__ void scale_gradient(
    const real* x, const real* d_y, int N, int C, int S, real* d_scale)
{
    const int c = blockIdx.x;
    double total = 0;
    for (int i = threadIdx.x; i < N * S; i += blockDim.x) {
        const int at = in_channel(i, c, C, S);
        total += (double)d_y[at] * x[at];
    }
    total = block_sum(total);
    if (threadIdx.x == 0) d_scale[c] += (real)total;
}
