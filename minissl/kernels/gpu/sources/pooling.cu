// Max and average pooling of x (N, C, H, W) into y (N, C, P, Q); planes = N * C.
//
// Backward has no atomics: each pixel visits the windows that hold it, in row-major order.
#include "common.cuh"

// Window w of an axis covers pixels w * stride - pad ... + kernel - 1.  These are the first window
// that holds a pixel, and the one behind the last.
__device__ inline int first_window(int pixel, int kernel, int stride, int pad)
{
    const int past = pixel + pad - kernel;
    return past < 0 ? 0 : past / stride + 1;
}
__device__ inline int end_window(int pixel, int stride, int pad, int windows)
{
    return at_most((pixel + pad) / stride + 1, windows);
}

// The largest pixel and where it is, as h * W + w; the first of equals, and NaN above all.
extern "C" __global__ void max_pool(
    const real* x, int planes, int H, int W, int kh, int kw, int sh, int sw, int ph, int pw,
    int P, int Q, real* y, int* argmax)
{
    OWN(i, planes * P * Q);
    const int top = i / Q % P * sh - ph;
    const int left = i % Q * sw - pw;
    const real* plane = x + i / (P * Q) * H * W;
    int index = at_least(top, 0) * W + at_least(left, 0);
    real best = plane[index];
    for (int h = at_least(top, 0); h < at_most(top + kh, H); ++h) {
        for (int w = at_least(left, 0); w < at_most(left + kw, W); ++w) {
            const real value = plane[h * W + w];
            if (value > best || (value != value && best == best)) {
                best = value;
                index = h * W + w;
            }
        }
    }
    y[i] = best;
    if (argmax) argmax[i] = index;
}

extern "C" __global__ void max_pool_gradient(
    const real* d_y, const int* argmax, int planes, int H, int W, int kh, int kw, int sh, int sw,
    int ph, int pw, int P, int Q, real* d_x)
{
    OWN(i, planes * H * W);
    const int pixel = i % (H * W);
    const int h = pixel / W, w = pixel % W;
    const int window = i / (H * W) * P * Q;
    real total = 0;
    for (int p = first_window(h, kh, sh, ph); p < end_window(h, sh, ph, P); ++p) {
        for (int q = first_window(w, kw, sw, pw); q < end_window(w, sw, pw, Q); ++q) {
            if (argmax[window + p * Q + q] == pixel) total += d_y[window + p * Q + q];
        }
    }
    d_x[i] = total;
}

// Pixels of a window along one axis, those of the padding too: Caffe's divisor.
__device__ inline int padded_length(int window, int kernel, int stride, int pad, int size)
{
    const int begin = window * stride - pad;
    return at_most(begin + kernel, size + pad) - begin;
}

extern "C" __global__ void ave_pool(
    const real* x, int planes, int H, int W, int kh, int kw, int sh, int sw, int ph, int pw,
    int P, int Q, real* y)
{
    OWN(i, planes * P * Q);
    const int p = i / Q % P, q = i % Q;
    const int top = p * sh - ph, left = q * sw - pw;
    const real* plane = x + i / (P * Q) * H * W;
    real total = 0;
    for (int h = at_least(top, 0); h < at_most(top + kh, H); ++h) {
        for (int w = at_least(left, 0); w < at_most(left + kw, W); ++w) total += plane[h * W + w];
    }
    y[i] = total / (padded_length(p, kh, sh, ph, H) * padded_length(q, kw, sw, pw, W));
}

extern "C" __global__ void ave_pool_gradient(
    const real* d_y, int planes, int H, int W, int kh, int kw, int sh, int sw, int ph, int pw,
    int P, int Q, real* d_x)
{
    OWN(i, planes * H * W);
    const int h = i / W % H, w = i % W;
    const int window = i / (H * W) * P * Q;
    real total = 0;
    for (int p = first_window(h, kh, sh, ph); p < end_window(h, sh, ph, P); ++p) {
        for (int q = first_window(w, kw, sw, pw); q < end_window(w, sw, pw, Q); ++q) {
            const int area = padded_length(p, kh, sh, ph, H) * padded_length(q, kw, sw, pw, W);
            total += d_y[window + p * Q + q] / area;
        }
    }
    d_x[i] = total;
}
