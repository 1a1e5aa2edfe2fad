// Products with a matrix in compressed sparse rows: values, columns, row_start.
#include "common.cuh"
#include "block.cuh"

// One thread for each output; neighbours read neighbours, and share the non-zeros.
//
// y[n, f, i] = b[f] + sum over the non-zeros j of row f of values[j] * x[group, columns[j], (n, i)]
// with x (groups * K, images * pixels) and y (images, F, pixels); rows f belong to groups in turn.
extern "C" __global__ void csr_product(
    const real* values, const column_t* columns, const long long* row_start, const real* x,
    const real* b, int relu, int rows_of_group, int K, int images, int F, int pixels, real* y)
{
    const int width = images * pixels;
    OWN(i, F * width);
    const int f = i / width;
    const int at = i % width;
    const real* own = x + f / rows_of_group * K * width + at;
    real total = 0;
    for (int j = (int)row_start[f]; j < (int)row_start[f + 1]; ++j) {
        total += values[j] * own[(int)columns[j] * width];
    }
    if (b) total += b[f];
    y[(at / pixels * F + f) * pixels + at % pixels] = rectified(total, relu);
}

// For few images: one block for each output, y[n, f] = b[f] + sum of values[j] * x[n, columns[j]].
// x (N, K) with `stride` numbers from row to row, y (N, F).
extern "C" __global__ void csr_dots(
    const real* values, const column_t* columns, const long long* row_start, const real* x,
    const real* b, int stride, int F, real* y)
{
    const int f = blockIdx.x % F;
    const int n = blockIdx.x / F;
    double total = 0;
    for (int j = (int)row_start[f] + threadIdx.x; j < (int)row_start[f + 1]; j += blockDim.x) {
        total += (double)values[j] * x[n * stride + (int)columns[j]];
    }
    total = block_sum(total);
    if (threadIdx.x == 0) y[n * F + f] = (real)(b ? total + b[f] : total);
}
