// Sums and maxima over the threads of a block, the same for any run: the order is fixed.

#define MOST_THREADS 256

// Sum of `value` over the block; all threads get it.  blockDim.x is a power of two.
__device__ inline double block_sum(double value)
{
    __shared__ double part[MOST_THREADS];
    const int t = threadIdx.x;
    part[t] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) part[t] += part[t + half];
        __syncthreads();
    }
    const double sum = part[0];
    __syncthreads();
    return sum;
}

// Largest `value` of the block, NaN where one of them is; all threads get it.
__device__ inline real block_max(real value)
{
    __shared__ real part[MOST_THREADS];
    const int t = threadIdx.x;
    part[t] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) {
            const real other = part[t + half];
            if (other > part[t] || other != other) part[t] = other;
        }
        __syncthreads();
    }
    const real largest = part[0];
    __syncthreads();
    return largest;
}
