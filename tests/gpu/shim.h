// Enough of CUDA to run a kernel on the CPU, one thread after the other.
//
// A kernel whose threads work alone is called once for each thread.  Where threads meet at
// __syncthreads(), each is a fiber: it runs up to there, then the next one does, until all have
// come; then they go on in the same order.  `backwards` turns the order round, which must not
// change any result.
#pragma once

#include <cmath>
#include <functional>
#include <ucontext.h>
#include <vector>

using std::exp;
using std::fabs;
using std::floor;
using std::log;
using std::pow;
using std::sqrt;

#define __global__
#define __device__
#define __shared__ static

struct Index {
    int x;
};

static Index blockIdx, threadIdx, blockDim, gridDim;
static int backwards = 0;

extern "C" void set_backwards(int value) { backwards = value; }

static int turn(int i, int count) { return backwards ? count - 1 - i : i; }

static void run_alone(const std::function<void()>& kernel)
{
    for (int i = 0; i < blockDim.x; ++i) {
        threadIdx.x = turn(i, blockDim.x);
        kernel();
    }
}

static const int STACK_BYTES = 64 * 1024;

struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(STACK_BYTES);
    bool done = false;
};

static ucontext_t scheduler;
static std::vector<Fiber> fibers;
static const std::function<void()>* body;

static inline void __syncthreads()
{
    swapcontext(&fibers[threadIdx.x].context, &scheduler);
}

static void enter()
{
    (*body)();
    fibers[threadIdx.x].done = true;
}

static void run_together(const std::function<void()>& kernel)
{
    body = &kernel;
    if ((int)fibers.size() < blockDim.x) fibers.resize(blockDim.x);
    for (int t = 0; t < blockDim.x; ++t) {
        Fiber& fiber = fibers[t];
        fiber.done = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = STACK_BYTES;
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, enter, 0);
    }
    for (bool running = true; running;) {
        running = false;
        for (int i = 0; i < blockDim.x; ++i) {
            threadIdx.x = turn(i, blockDim.x);
            Fiber& fiber = fibers[threadIdx.x];
            if (fiber.done) continue;
            swapcontext(&scheduler, &fiber.context);
            running = running || !fiber.done;
        }
    }
}

static void launch(int grid, int block, bool together, const std::function<void()>& kernel)
{
    gridDim.x = grid;
    blockDim.x = block;
    for (int i = 0; i < grid; ++i) {
        blockIdx.x = turn(i, grid);
        if (together) run_together(kernel);
        else run_alone(kernel);
    }
}
