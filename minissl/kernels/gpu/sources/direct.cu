// Convolution by single weights straight from the image: nothing is lowered.
#include "common.cuh"

// y[n, f, p, q] = b[f] + sum over the non-zeros j of filter f, at (c, r, s), of
// values[j] * x[n, c, p * sh + r * dh - ph, q * sw + s * dw - pw].
// x (N, C, H, W), y (N, F, P, Q); columns[j] = (c * kh + r) * kw + s within the conv group.
extern "C" __global__ void sparse_convolution(
    const real* x, const real* values, const column_t* columns, const long long* row_start,
    const real* b, int relu, int N, int channels, int rows_of_group,
    int C, int H, int W, int kh, int kw, int sh, int sw, int ph, int pw, int dh, int dw,
    int F, int P, int Q, real* y)
{
    OWN(i, N * F * P * Q);
    const int q = i % Q;
    const int p = i / Q % P;
    const int f = i / (P * Q) % F;
    const int n = i / (P * Q * F);
    const real* image = x + (n * C + f / rows_of_group * channels) * H * W;
    real total = 0;
    for (int j = (int)row_start[f]; j < (int)row_start[f + 1]; ++j) {
        const int k = (int)columns[j];
        const int h = p * sh + k / kw % kh * dh - ph;
        const int w = q * sw + k % kw * dw - pw;
        if (h >= 0 && h < H && w >= 0 && w < W) {
            total += values[j] * image[(k / (kh * kw) * H + h) * W + w];
        }
    }
    if (b) total += b[f];
    y[i] = rectified(total, relu);
}
