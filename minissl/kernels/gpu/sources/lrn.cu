// Local response normalization of x (N, C, H, W); the window has wc channels, wh rows, ww columns.
#include "common.cuh"

// scale = k + alpha / (wc * wh * ww) * sum of x^2 over the window; y = x * scale^-beta.
extern "C" __global__ void lrn(
    const real* x, int N, int C, int H, int W, int wc, int wh, int ww,
    double alpha, double beta, double k, real* scale, real* y)
{
    OWN(i, N * C * H * W);
    const int w = i % W, h = i / W % H, c = i / (W * H) % C, n = i / (W * H * C);
    real sum = 0;
    for (int cc = at_least(c - wc / 2, 0); cc <= at_most(c + wc / 2, C - 1); ++cc) {
        for (int hh = at_least(h - wh / 2, 0); hh <= at_most(h + wh / 2, H - 1); ++hh) {
            for (int v = at_least(w - ww / 2, 0); v <= at_most(w + ww / 2, W - 1); ++v) {
                const real value = x[((n * C + cc) * H + hh) * W + v];
                sum += value * value;
            }
        }
    }
    const real found = (real)k + (real)(alpha / (wc * wh * ww)) * sum;
    if (scale) scale[i] = found;
    y[i] = x[i] * pow(found, (real)-beta);
}

// d_x_i = d_y_i * scale_i^-beta - 2 alpha beta / |window| * x_i * sum of d_y_j * y_j / scale_j.
extern "C" __global__ void lrn_gradient(
    const real* x, const real* y, const real* scale, const real* d_y,
    int N, int C, int H, int W, int wc, int wh, int ww, double alpha, double beta, real* d_x)
{
    OWN(i, N * C * H * W);
    const int w = i % W, h = i / W % H, c = i / (W * H) % C, n = i / (W * H * C);
    real shared = 0;
    for (int cc = at_least(c - wc / 2, 0); cc <= at_most(c + wc / 2, C - 1); ++cc) {
        for (int hh = at_least(h - wh / 2, 0); hh <= at_most(h + wh / 2, H - 1); ++hh) {
            for (int v = at_least(w - ww / 2, 0); v <= at_most(w + ww / 2, W - 1); ++v) {
                const int j = ((n * C + cc) * H + hh) * W + v;
                shared += d_y[j] * y[j] / scale[j];
            }
        }
    }
    const real factor = (real)(2 * alpha * beta / (wc * wh * ww));
    d_x[i] = d_y[i] * pow(scale[i], (real)-beta) - factor * x[i] * shared;
}
