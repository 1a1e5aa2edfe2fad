// Lowering and its adjoint, for some images of a batch and the columns of one or all conv groups.
//
// Column k = (c * kh + r) * kw + s of the weight matrix reads channel c at kernel position (r, s).
// The lowered matrix has one row for each column that is kept, and images * P * Q columns.
#include "common.cuh"

// col[i, (n, p, q)] = x[n, first_channel + c, p * sh + r * dh - ph, q * sw + s * dw - pw] of column
// k = columns[i] (or k = i where columns is null), zero outside the image.
// x (images, C, H, W), col (rows, images * P * Q).  A block belongs to one row, so that what depends
// on the column alone is worked out once for all of its threads.
extern "C" __global__ void lower_images(
    const real* x, const long long* columns, int images, int first_channel,
    int C, int H, int W, int kh, int kw, int sh, int sw, int ph, int pw, int dh, int dw,
    int P, int Q, real* col)
{
    const int width = images * P * Q;
    const int blocks = (width + blockDim.x - 1) / blockDim.x;
    const int row = blockIdx.x / blocks;
    const int k = columns ? (int)columns[row] : row;
    const int c = first_channel + k / (kh * kw);
    const int top = k / kw % kh * dh - ph;
    const int left = k % kw * dw - pw;
    const int at = blockIdx.x % blocks * blockDim.x + threadIdx.x;
    if (at >= width) return;
    const int n = at / (P * Q);
    const int p = at / Q % P;
    const int q = at % Q;
    const int h = p * sh + top, w = q * sw + left;
    const bool inside = h >= 0 && h < H && w >= 0 && w < W;
    col[row * width + at] = inside ? x[((n * C + c) * H + h) * W + w] : (real)0;
}

// The adjoint, without atomics: each pixel collects what was copied from it.
// x[n, first_channel + c, h, w] = sum over (r, s) of col[row of (c, r, s), (n, p, q)], where
// p * sh + r * dh - ph = h and q * sw + s * dw - pw = w; place[k] is the row of column k, or -1
// (null: row k).  Channels c of this conv group only; col (rows, images * P * Q).
extern "C" __global__ void raise_images(
    const real* col, const int* place, int images, int channels, int first_channel,
    int C, int H, int W, int kh, int kw, int sh, int sw, int ph, int pw, int dh, int dw,
    int P, int Q, real* x)
{
    OWN(i, images * channels * H * W);
    const int w = i % W;
    const int h = i / W % H;
    const int c = i / (W * H) % channels;
    const int n = i / (W * H * channels);
    real total = 0;
    for (int r = 0; r < kh; ++r) {
        const int top = h + ph - r * dh;
        if (top < 0 || top % sh || top / sh >= P) continue;
        for (int s = 0; s < kw; ++s) {
            const int left = w + pw - s * dw;
            if (left < 0 || left % sw || left / sw >= Q) continue;
            const int k = (c * kh + r) * kw + s;
            const int row = place ? place[k] : k;
            if (row >= 0) total += col[((row * images + n) * P + top / sh) * Q + left / sw];
        }
    }
    x[((n * C + first_channel + c) * H + h) * W + w] = total;
}

// place[k] = the index of k in the rising list `kept`, or -1, for k = 0 .. count - 1.
extern "C" __global__ void find_places(const long long* kept, int size, int count, int* place)
{
    OWN(k, count);
    int low = 0, high = size;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (kept[middle] < k) low = middle + 1;
        else high = middle;
    }
    place[k] = low < size && kept[low] == k ? low : -1;
}
