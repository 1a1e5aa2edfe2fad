// What every source begins with.
//
// `real` is float or double and `column_t` the integer type of column numbers; the backend defines
// both.  Arrays are C-contiguous.  Indices are int: an array has fewer than 2^31 elements, which is
// seen to before a launch.  Sums that decide something are formed in double.

// One thread for each of n elements; i is the one this thread owns and alone writes.
#define OWN(i, n)                                            \
    const int i = blockIdx.x * blockDim.x + threadIdx.x;     \
    if (i >= (n)) return

__device__ inline int at_least(int a, int b) { return a > b ? a : b; }
__device__ inline int at_most(int a, int b) { return a < b ? a : b; }
__device__ inline bool is_finite(real x) { return x - x == (real)0; }
__device__ inline real rectified(real x, int relu) { return relu && !(x > 0) ? x * (real)0 : x; }
