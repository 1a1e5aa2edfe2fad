// Groups of weights: tiles of ydim rows by xdim columns of a matrix w (R, C), tiles (bands, across).
//
// Squares are summed in double.  With a strength the factor of the gradient of strength * ||w_g||
// is written instead of the sum: strength / ||w_g||, and 0 for a group that is zero.
#include "common.cuh"
#include "block.cuh"

__device__ inline double finished(double sum, double strength)
{
    if (strength == 0) return sum;
    return sum != 0 ? strength / sqrt(sum) : 0.0;
}

// Wide tiles, say rows: one block for each.
extern "C" __global__ void wide_tiles(
    const real* w, int C, int ydim, int xdim, double strength, double* sums)
{
    const int across = C / xdim;
    const int row = blockIdx.x / across * ydim;
    const int column = blockIdx.x % across * xdim;
    double total = 0;
    for (int i = threadIdx.x; i < ydim * xdim; i += blockDim.x) {
        const double value = w[(row + i / xdim) * C + column + i % xdim];
        total += value * value;
    }
    total = block_sum(total);
    if (threadIdx.x == 0) sums[blockIdx.x] = finished(total, strength);
}

// Narrow tiles, say columns: 32 neighbours for each block of 32 x 8 threads, which share the rows.
extern "C" __global__ void narrow_tiles(
    const real* w, int C, int ydim, int xdim, double strength, double* sums)
{
    __shared__ double part[8][32];
    const int across = C / xdim;
    const int blocks = (across + 31) / 32;
    const int band = blockIdx.x / blocks;
    const int lane = threadIdx.x % 32, share = threadIdx.x / 32;
    const int tile = blockIdx.x % blocks * 32 + lane;
    double total = 0;
    for (int y = share; tile < across && y < ydim; y += 8) {
        const real* own = w + (band * ydim + y) * C + tile * xdim;
        for (int x = 0; x < xdim; ++x) total += (double)own[x] * own[x];
    }
    part[share][lane] = total;
    __syncthreads();
    if (share > 0 || tile >= across) return;
    for (int other = 1; other < 8; ++other) total += part[other][lane];
    sums[band * across + tile] = finished(total, strength);
}

// d_w += factors[tile] * w.
extern "C" __global__ void add_scaled_tiles(
    const real* w, const double* factors, int size, int C, int ydim, int xdim, real* d_w)
{
    OWN(i, size);
    d_w[i] += (real)(factors[i / C / ydim * (C / xdim) + i % C / xdim] * w[i]);
}

// w *= factors[tile]; a factor of 0 leaves exactly +0.
extern "C" __global__ void scale_tiles(
    const double* factors, int size, int C, int ydim, int xdim, real* w)
{
    OWN(i, size);
    const double factor = factors[i / C / ydim * (C / xdim) + i % C / xdim];
    w[i] = factor != 0 ? (real)(factor * w[i]) : (real)0;
}
