/* What libconvc itself costs, timed from C as a product would call it. Built and run by `python -m benchmarks.deploy`.
 *
 *   deploy_costs load MODULE N              N lines: ns of one load of the module's file, code and weights' mapping included
 *   deploy_costs run MODULE N ROUNDS        a line a round: ns of a run (median of N), ns of its kernels (sum of medians of N)
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "convc.h"

static void check(convc_status status) {
  if (status == CONVC_OK) return;
  fprintf(stderr, "%s\n", convc_last_error());
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

static void load(const char *path, int count) {
  for (int i = 0; i < count; ++i) {
    convc_module *module;
    const double start = now();
    check(convc_load(path, NULL, &module));
    printf("%.0f\n", now() - start);
    convc_unload(module);
  }
}

static void *zeros(size_t nbytes) {
  void *memory = convc_alloc(nbytes);
  if (!memory) exit(1);
  return memset(memory, 0, nbytes);
}

/* What reading the clock adds to the time of each step. */
static double clock_cost(void) {
  double best = 1e9;
  for (int i = 0; i < 1000; ++i) {
    const double start = now(), spent = now() - start;
    if (spent < best) best = spent;
  }
  return best;
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static double median(double *values, int count) {
  qsort(values, (size_t)count, sizeof *values, by_value);
  return values[count / 2];
}

static void run(const char *path, int count, int rounds) {
  convc_module *module;
  convc_context *context;
  check(convc_load(path, NULL, &module));
  check(convc_context_create(module, 1, &context));
  const size_t inputs = convc_input_count(module), outputs = convc_output_count(module), steps = convc_step_count(module);
  const void **in = calloc(inputs + 1, sizeof *in);
  void **out = calloc(outputs + 1, sizeof *out);
  double *seconds = calloc(steps + 1, sizeof *seconds);
  double *times = calloc((size_t)count, sizeof *times);
  if (!in || !out || !seconds || !times) exit(1);
  convc_tensor_info info;
  for (size_t i = 0; i < inputs; ++i) check(convc_input_info(module, i, &info)), in[i] = zeros(info.nbytes);
  for (size_t i = 0; i < outputs; ++i) check(convc_output_info(module, i, &info)), out[i] = zeros(info.nbytes);
  const double reading = clock_cost();
  for (int i = 0; i < count; ++i) check(convc_run(context, in, inputs, out, outputs));
  for (int round = 0; round < rounds; ++round) {
    for (int i = 0; i < count; ++i) {
      const double start = now();
      check(convc_run(context, in, inputs, out, outputs));
      times[i] = now() - start - reading;
    }
    check(convc_profile(context, in, inputs, out, outputs, count, seconds));
    double kernels = 0;
    for (size_t i = 0; i < steps; ++i) kernels += 1e9 * seconds[i] - reading;
    printf("%.1f %.1f\n", median(times, count), kernels);
  }
  for (size_t i = 0; i < inputs; ++i) convc_free((void *)in[i]);
  for (size_t i = 0; i < outputs; ++i) convc_free(out[i]);
  free(in), free(out), free(seconds), free(times);
  convc_context_destroy(context);
  convc_unload(module);
}

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[1], "load") == 0) return load(argv[2], atoi(argv[3])), 0;
  if (argc == 5 && strcmp(argv[1], "run") == 0) return run(argv[2], atoi(argv[3]), atoi(argv[4])), 0;
  fprintf(stderr, "usage: deploy_costs load MODULE N | run MODULE N ROUNDS\n");
  return 2;
}
