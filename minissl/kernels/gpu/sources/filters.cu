// Between a blob y (images, F, pixels) and a matrix of products (rows, images * pixels).
#include "common.cuh"

// y[n, f, i] = out[place[f], (n, i)] + b[f]; b[f] alone where filter f has no row (place -1).
// place null: row f; b null: no bias; relu: rectified.
extern "C" __global__ void scatter_filters(
    const real* out, const int* place, const real* b, int relu,
    int images, int F, int pixels, real* y)
{
    OWN(i, images * F * pixels);
    const int pixel = i % pixels;
    const int f = i / pixels % F;
    const int n = i / (pixels * F);
    const int row = place ? place[f] : f;
    real value = row >= 0 ? out[(row * images + n) * pixels + pixel] : (real)0;
    if (b) value += b[f];
    y[i] = rectified(value, relu);
}

// out[row, (n, i)] = y[n, kept[row], i] (kept null: filter row).
extern "C" __global__ void gather_filters(
    const real* y, const long long* kept, int rows, int images, int F, int pixels, real* out)
{
    OWN(i, rows * images * pixels);
    const int pixel = i % pixels;
    const int n = i / pixels % images;
    const int row = i / (pixels * images);
    const int f = kept ? (int)kept[row] : row;
    out[i] = y[(n * F + f) * pixels + pixel];
}
