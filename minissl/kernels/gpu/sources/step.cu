// Everything that happens to a parameter after the backward pass, in one pass over its weights:
// decay, group lasso, momentum, mask, update and zero-out.
//
// The order is that of Solver.step.  The norms of the groups come from tiles.cu before, one pass
// for each kind of group.
#include "common.cuh"

#define MOST_TERMS 4

// Kinds of groups; factors are strength / ||w_g||, (R / ydim, C / xdim).
struct Terms {
    const double* factors[MOST_TERMS];
    int ydim[MOST_TERMS];
    int xdim[MOST_TERMS];
    int count;
};

extern "C" __global__ void sgd_step(
    double average, double decay, int is_l1, const real* multiplier,
    const double* factors_0, int ydim_0, int xdim_0, const double* factors_1, int ydim_1,
    int xdim_1, const double* factors_2, int ydim_2, int xdim_2, const double* factors_3,
    int ydim_3, int xdim_3, int terms, int C,
    double rate, double momentum, int is_nesterov, const real* mask, double threshold,
    int size, real* w, real* d_w, real* history)
{
    OWN(i, size);
    const Terms groups = {{factors_0, factors_1, factors_2, factors_3},
                          {ydim_0, ydim_1, ydim_2, ydim_3},
                          {xdim_0, xdim_1, xdim_2, xdim_3},
                          terms};
    const real weight = w[i];
    real g = d_w[i] * (real)average;
    if (decay != 0) {
        const real value = is_l1 ? (real)((weight > 0) - (weight < 0)) : weight;
        const real pull = (real)decay * value;
        g += multiplier ? pull * multiplier[i] : pull;
    }
    for (int t = 0; t < groups.count; ++t) {
        const int across = C / groups.xdim[t];
        const int tile = i / C / groups.ydim[t] * across + i % C / groups.xdim[t];
        g += (real)(groups.factors[t][tile] * weight);
    }
    const real m = (real)momentum;
    const real before = history[i];
    const real now = m * before + (real)rate * g;
    history[i] = now;
    real step = is_nesterov ? (1 + m) * now - m * before : now;
    if (mask) step *= mask[i];
    d_w[i] = step;
    real moved = weight - step;
    if (moved < (real)threshold && moved > -(real)threshold) moved = 0;
    w[i] = moved;
}
