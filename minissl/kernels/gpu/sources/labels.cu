// Labels, and the loss of the classes they name.
#include "common.cuh"
#include "block.cuh"

// Labels as whole numbers, and which of them count: labels[i] = 0 where values[i] is the one to be
// ignored.  A label that is no class makes status[0] 1 and is kept in status[1]; whichever of
// several it is, an error is reported.
extern "C" __global__ void read_labels(
    const real* values, int classes, int ignores, double ignored, int size,
    long long* labels, bool* valid, double* status)
{
    OWN(i, size);
    const real value = values[i];
    const bool counts = !(ignores && value == (real)ignored);
    const bool good = value >= 0 && value < classes && value == floor(value);
    if (counts && !good) {
        status[1] = value;
        status[0] = 1;
    }
    valid[i] = counts;
    labels[i] = counts && good ? (long long)value : 0;
}

// loss = - sum over valid positions of log max(p[label], least) / n, and count = n.  n is given, or
// where it is 0 the number of valid positions; at least 1.  p (outer, classes, inner), labels and
// valid (outer, inner); one block.
extern "C" __global__ void label_loss(
    const real* p, const long long* labels, const bool* valid, double least, int given,
    int outer, int classes, int inner, real* loss, double* count)
{
    double total = 0, n = 0;
    for (int i = threadIdx.x; i < outer * inner; i += blockDim.x) {
        if (!valid[i]) continue;
        const real found = p[(i / inner * classes + (int)labels[i]) * inner + i % inner];
        total -= log(found > (real)least || found != found ? found : (real)least);
        n += 1;
    }
    total = block_sum(total);
    n = block_sum(n);
    if (threadIdx.x == 0) {
        if (given) n = given;
        if (n < 1) n = 1;
        *loss = (real)(total / n);
        *count = n;
    }
}

// d_x = weight / count * (p - 1 at the label), 0 where the position does not count.
extern "C" __global__ void label_loss_gradient(
    const real* p, const long long* labels, const bool* valid, const real* weight,
    const double* count, int outer, int classes, int inner, real* d_x)
{
    OWN(i, outer * classes * inner);
    const int position = i / (classes * inner) * inner + i % inner;
    const bool is_label = labels[position] == i / inner % classes;
    const real wrong = is_label ? p[i] - 1 : p[i];
    d_x[i] = valid[position] ? wrong * (real)(*weight / *count) : wrong * (real)0;
}
