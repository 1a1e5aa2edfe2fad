// Update rules, one pass each: from the gradient d_w to the step, which is left in d_w.
#include "common.cuh"

// h = momentum * h + rate * d_w; the step is h.
extern "C" __global__ void sgd(double rate, double momentum, int size, real* d_w, real* history)
{
    OWN(i, size);
    d_w[i] = history[i] = (real)momentum * history[i] + (real)rate * d_w[i];
}

// h' = momentum * h + rate * d_w; the step is (1 + momentum) * h' - momentum * h.
extern "C" __global__ void nesterov(
    double rate, double momentum, int size, real* d_w, real* history)
{
    OWN(i, size);
    const real m = (real)momentum;
    const real before = history[i];
    const real now = m * before + (real)rate * d_w[i];
    history[i] = now;
    d_w[i] = (1 + m) * now - m * before;
}

// m, v: running means of d_w and d_w^2; the step is rate * m / (sqrt(v) + delta).
extern "C" __global__ void adam(
    double rate, double beta1, double beta2, double delta, int size, real* d_w, real* m, real* v)
{
    OWN(i, size);
    const real g = d_w[i];
    m[i] = (real)beta1 * m[i] + (1 - (real)beta1) * g;
    v[i] = (real)beta2 * v[i] + (1 - (real)beta2) * g * g;
    d_w[i] = (real)rate * m[i] / (sqrt(v[i]) + (real)delta);
}

// h = h + d_w^2; the step is rate * d_w / (sqrt(h) + delta).
extern "C" __global__ void adagrad(double rate, double delta, int size, real* d_w, real* history)
{
    OWN(i, size);
    const real g = d_w[i];
    history[i] += g * g;
    d_w[i] = (real)rate * g / (sqrt(history[i]) + (real)delta);
}

// h: running mean of d_w^2; the step is rate * d_w / (sqrt(h) + delta).
extern "C" __global__ void rmsprop(
    double rate, double decay, double delta, int size, real* d_w, real* history)
{
    OWN(i, size);
    const real g = d_w[i];
    history[i] = (real)decay * history[i] + (1 - (real)decay) * g * g;
    d_w[i] = (real)rate * g / (sqrt(history[i]) + (real)delta);
}

// squares, steps: running means of d_w^2 and of u^2; the step is rate * u.
extern "C" __global__ void adadelta(
    double rate, double decay, double delta, int size, real* d_w, real* squares, real* steps)
{
    OWN(i, size);
    const real g = d_w[i];
    squares[i] = (real)decay * squares[i] + (1 - (real)decay) * g * g;
    const real u = g * sqrt((steps[i] + (real)delta) / (squares[i] + (real)delta));
    steps[i] = (real)decay * steps[i] + (1 - (real)decay) * u * u;
    d_w[i] = (real)rate * u;
}

// d_w *= mask (null for 1), then w -= d_w.
extern "C" __global__ void apply_step(const real* mask, int size, real* w, real* d_w)
{
    OWN(i, size);
    if (mask) d_w[i] *= mask[i];
    w[i] -= d_w[i];
}

// -threshold < w < threshold becomes exactly 0.
extern "C" __global__ void zero_out(double threshold, int size, real* w)
{
    OWN(i, size);
    if (w[i] < (real)threshold && w[i] > -(real)threshold) w[i] = 0;
}
