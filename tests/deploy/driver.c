/* What the tests ask of libconvc from C; each verb exits 0 if all was as expected, and says what was not.
 *
 *   driver misuse MODULE            wrong calls are errors in words
 *   driver run CPU MODULE IN OUT0 ...  three runs of the variant for CPU (best: the one that convc takes); inputs and outputs are files
 *   driver batch MODULE IN N OUT0 ...  the same of N samples of a module with a symbolic batch, with another number of them before
 *   driver fork MODULE              what works in a forked child, and what is an error there
 *   driver threads MODULE IN N R    N threads, a context each, R runs each; all results equal the first
 *   driver replaced MODULE NEWER IN OUT0 ...  NEWER takes MODULE's place while that is loaded, and is run as by `run best`
 *   driver reload MODULE N          load, run, unload N times; memory stays
 *   driver inspect FILE...          one line a file: status, and message or the model's name
 *   driver load FILE...             the same with the code
 *   driver memory MODULE            what a run takes, measured by the system: bytes planned, bytes measured
 *   driver counted MODULE N         N runs after one; with count_allocations.so before the C library they must allocate nothing
 *   driver trace MODULE FILE        a profile on stdout and a Chrome trace
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buffers.h"

/* ---- verbs ---- */

static void misuse(const char *path) {
  convc_module *module = (convc_module *)1;
  convc_context *context;
  EXPECT(convc_api_version() == CONVC_API_VERSION);
  EXPECT(convc_load(NULL, NULL, &module) == CONVC_ERROR_ARGUMENT);
  EXPECT(convc_load(path, NULL, NULL) == CONVC_ERROR_ARGUMENT);
  EXPECT(convc_load("/no/such/file.so", NULL, &module) == CONVC_ERROR_FILE && module == NULL);
  EXPECT(strstr(convc_last_error(), "'/no/such/file.so' (No such file or directory)"));
  EXPECT(convc_load("/", NULL, &module) == CONVC_ERROR_FILE);
  EXPECT(convc_load("/proc/self/exe", NULL, &module) == CONVC_ERROR_FORMAT);
  EXPECT(strstr(convc_last_error(), ".convc.manifest"));

  convc_load_options options = {.size = sizeof options, .verify_weights = 1, .expect_sha256 = "abc"};
  EXPECT(convc_load(path, &options, &module) == CONVC_ERROR_ARGUMENT);
  options.expect_sha256 = "0000000000000000000000000000000000000000000000000000000000000000";
  EXPECT(convc_load(path, &options, &module) == CONVC_ERROR_CHECKSUM);
  EXPECT(strstr(convc_last_error(), "must have SHA-256 0000"));
  options.size = 1;
  EXPECT(convc_load(path, &options, &module) == CONVC_ERROR_ARGUMENT);
  options.size = offsetof(convc_load_options, expect_sha256); /* an older caller's options */
  CHECK(convc_load(path, &options, &module));
  convc_unload(module);
  options = (convc_load_options){.size = sizeof options, .cpu = "pentium"};
  EXPECT(convc_load(path, &options, &module) == CONVC_ERROR_ARGUMENT);
  EXPECT(strstr(convc_last_error(), "cpu must be one that the module has code for: x86-64-v2, x86-64-v3; got 'pentium'"));

  CHECK(convc_inspect(path, NULL, &module));
  EXPECT(convc_context_create(module, 1, &context) == CONVC_ERROR_ARGUMENT);
  EXPECT(strstr(convc_last_error(), "only inspected"));
  convc_unload(module);

  CHECK(convc_load(path, NULL, &module));
  EXPECT(convc_context_create(module, -1, &context) == CONVC_ERROR_ARGUMENT);
  EXPECT(convc_context_create(module, convc_usable_threads() + 1, &context) == CONVC_ERROR_ARGUMENT);
  EXPECT(convc_context_create(NULL, 1, &context) == CONVC_ERROR_ARGUMENT);
  CHECK(convc_context_create(module, 1, &context));
  Buffers b = make_buffers(module);
  EXPECT(convc_run(context, (const void *const *)b.in, b.inputs + 1, b.out, b.outputs) == CONVC_ERROR_ARGUMENT);
  EXPECT(convc_run(context, NULL, b.inputs, b.out, b.outputs) == CONVC_ERROR_ARGUMENT);
  EXPECT(convc_run(NULL, (const void *const *)b.in, b.inputs, b.out, b.outputs) == CONVC_ERROR_ARGUMENT);
  void *kept = b.in[0];
  b.in[0] = (char *)kept + 4;
  EXPECT(run(context, &b) == CONVC_ERROR_ARGUMENT);
  EXPECT(strstr(convc_last_error(), "must start at a multiple of 64 bytes; got 4 bytes behind one"));
  b.in[0] = NULL;
  EXPECT(run(context, &b) == CONVC_ERROR_ARGUMENT);
  b.in[0] = b.out[0];
  EXPECT(run(context, &b) == CONVC_ERROR_ARGUMENT);
  EXPECT(strstr(convc_last_error(), "must not overlap"));
  b.in[0] = kept;
  CHECK(run(context, &b));
  EXPECT(convc_module_batch(module) == 0 && convc_input_sample_bytes(module, 0) == 0);
  EXPECT(convc_run_batch(context, 1, (const void *const *)b.in, b.inputs, b.out, b.outputs) == CONVC_ERROR_ARGUMENT);
  EXPECT(strstr(convc_last_error(), "module must have a symbolic batch to run 1 samples; got one of fixed shapes"));

  convc_tensor_info info;
  convc_step_info step;
  EXPECT(convc_input_info(module, b.inputs, &info) == CONVC_ERROR_ARGUMENT);
  EXPECT(convc_output_info(module, b.outputs, &info) == CONVC_ERROR_ARGUMENT);
  EXPECT(convc_step_info_at(module, convc_step_count(module), &step) == CONVC_ERROR_ARGUMENT);
  EXPECT(convc_trace(context, (const void *const *)b.in, b.inputs, b.out, b.outputs, "/no/such/folder/t.json") == CONVC_ERROR_FILE);
  double seconds;
  EXPECT(convc_profile(context, (const void *const *)b.in, b.inputs, b.out, b.outputs, 0, &seconds) == CONVC_ERROR_ARGUMENT);

  /* The module goes with its last context. */
  convc_unload(module);
  for (int threads = 1; threads <= convc_usable_threads(); ++threads) {
    CHECK(convc_set_threads(context, threads));
    EXPECT(convc_threads(context) == threads);
    CHECK(run(context, &b));
  }
  convc_context_destroy(context);
  convc_context_destroy(NULL);
  convc_unload(NULL);
  EXPECT(convc_input_count(NULL) == 0);
  free_buffers(&b);
}

static void run_files(const char *cpu, int count, char **arguments) {
  convc_module *module;
  convc_context *context;
  convc_load_options options = {.size = sizeof options, .verify_weights = 1, .cpu = strcmp(cpu, "best") ? cpu : NULL};
  CHECK(convc_load(arguments[0], &options, &module));
  EXPECT(!options.cpu || strcmp(convc_module_cpu(module), cpu) == 0);
  CHECK(convc_context_create(module, 0, &context));
  Buffers b = make_buffers(module);
  EXPECT((size_t)count == 1 + b.inputs + b.outputs);
  for (size_t i = 0; i < b.inputs; ++i) transfer(arguments[1 + i], b.in[i], b.in_bytes[i], 0);
  for (int again = 0; again < 3; ++again) CHECK(run(context, &b));
  for (size_t i = 0; i < b.outputs; ++i) transfer(arguments[1 + b.inputs + i], b.out[i], b.out_bytes[i], 1);
  convc_context_destroy(context);
  convc_unload(module);
  free_buffers(&b);
}

static void replaced(int count, char **arguments) {
  convc_module *old;
  CHECK(convc_load(arguments[0], NULL, &old));
  EXPECT(rename(arguments[1], arguments[0]) == 0);
  arguments[1] = arguments[0];
  /* Twice: the second one finds what the first has left. */
  for (int again = 0; again < 2; ++again) run_files("best", count - 1, arguments + 1);
  convc_context *context;
  CHECK(convc_context_create(old, 0, &context));
  Buffers b = make_buffers(old);
  CHECK(run(context, &b));
  free_buffers(&b);
  convc_context_destroy(context);
  convc_unload(old);
}

static void run_batch(int count, char **arguments) {
  convc_module *module;
  convc_context *context;
  CHECK(convc_load(arguments[0], NULL, &module));
  CHECK(convc_context_create(module, 0, &context));
  const size_t samples = (size_t)atol(arguments[2]), outputs = convc_output_count(module);
  EXPECT(convc_module_batch(module) > 0 && convc_input_count(module) == 1 && (size_t)count == 3 + outputs && outputs <= MAX);
  const size_t in_bytes = convc_input_sample_bytes(module, 0);
  void *in = buffer((samples + 1) * in_bytes), *out[MAX];
  transfer(arguments[1], in, samples * in_bytes, 0);
  for (size_t i = 0; i < outputs; ++i) out[i] = buffer((samples + 1) * convc_output_sample_bytes(module, i));
  for (size_t n = samples + 1; n + 1 > samples; --n) {
    CHECK(convc_run_batch(context, n, (const void *const *)&in, 1, out, outputs));
    if (!n) break;
  }
  CHECK(convc_run_batch(context, samples, (const void *const *)&in, 1, out, outputs));
  EXPECT(convc_run_batch(context, (size_t)-1 / 2, (const void *const *)&in, 1, out, outputs) == CONVC_ERROR_ARGUMENT);
  EXPECT(strstr(convc_last_error(), "samples must fit into memory"));
  for (size_t i = 0; i < outputs; ++i) transfer(arguments[3 + i], out[i], samples * convc_output_sample_bytes(module, i), 1);
  for (size_t i = 0; i < outputs; ++i) convc_free(out[i]);
  convc_free(in);
  convc_context_destroy(context);
  convc_unload(module);
}

static int same_outputs(const Buffers *a, const Buffers *b) {
  for (size_t i = 0; i < a->outputs; ++i) {
    if (memcmp(a->out[i], b->out[i], a->out_bytes[i])) return 0;
  }
  return 1;
}

/* Run and compare with an earlier run. */
static int runs_alike(convc_context *context, Buffers *b, const Buffers *expected) {
  for (size_t i = 0; i < b->outputs; ++i) memset(b->out[i], 0xff, b->out_bytes[i]);
  return run(context, b) == CONVC_OK && same_outputs(b, expected);
}

static void forked(const char *path) {
  convc_module *module;
  convc_context *two, *one, *fresh, *left;
  CHECK(convc_load(path, NULL, &module));
  CHECK(convc_context_create(module, 1, &one));
  CHECK(convc_context_create(module, 2, &two));
  CHECK(convc_context_create(module, 2, &left));
  Buffers b = make_buffers(module), expected = make_buffers(module);
  CHECK(run(one, &expected));
  EXPECT(runs_alike(two, &b, &expected));
  const pid_t child = fork();
  EXPECT(child >= 0);
  if (!child) {
    alarm(60); /* a child that waits for its parent's threads waits for ever */
    double seconds[MAX];
    EXPECT(run(two, &b) == CONVC_ERROR_ARGUMENT);
    EXPECT(strstr(convc_last_error(), "context with 2 threads must be used in the process that made it; got a forked child"));
    EXPECT(convc_profile(two, (const void *const *)b.in, b.inputs, b.out, b.outputs, 1, seconds) == CONVC_ERROR_ARGUMENT);
    EXPECT(runs_alike(one, &b, &expected));
    CHECK(convc_set_threads(two, 2));
    EXPECT(runs_alike(two, &b, &expected));
    CHECK(convc_context_create(module, 2, &fresh));
    EXPECT(runs_alike(fresh, &b, &expected));
    convc_context_destroy(fresh);
  } else {
    int status = -1;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    EXPECT(runs_alike(two, &b, &expected));
  }
  convc_context_destroy(left);
  convc_context_destroy(one);
  convc_context_destroy(two);
  convc_unload(module);
  free_buffers(&b);
  free_buffers(&expected);
}

typedef struct {
  convc_module *module;
  Buffers *expected;
  int runs, index, failed;
} User;

static void *use(void *given) {
  User *user = given;
  convc_context *context;
  Buffers b = make_buffers(user->module);
  for (size_t i = 0; i < b.inputs; ++i) memcpy(b.in[i], user->expected->in[i], b.in_bytes[i]);
  /* Every second one with all threads, so that pools of several contexts work at once. */
  if (convc_context_create(user->module, user->index % 2, &context)) {
    user->failed = 1;
  } else {
    for (int r = 0; r < user->runs && !user->failed; ++r) {
      if (!runs_alike(context, &b, user->expected)) user->failed = 2;
    }
    convc_context_destroy(context);
  }
  free_buffers(&b);
  return NULL;
}

static void threads(const char *path, const char *input, int count, int runs) {
  convc_module *module;
  convc_context *context;
  CHECK(convc_load(path, NULL, &module));
  CHECK(convc_context_create(module, 1, &context));
  Buffers expected = make_buffers(module);
  transfer(input, expected.in[0], expected.in_bytes[0], 0);
  CHECK(run(context, &expected));
  convc_context_destroy(context);
  pthread_t *ids = calloc((size_t)count, sizeof *ids);
  User *users = calloc((size_t)count, sizeof *users);
  for (int i = 0; i < count; ++i) {
    users[i] = (User){module, &expected, runs, i, 0};
    EXPECT(pthread_create(&ids[i], NULL, use, &users[i]) == 0);
  }
  for (int i = 0; i < count; ++i) {
    pthread_join(ids[i], NULL);
    EXPECT(users[i].failed == 0);
  }
  free(ids);
  free(users);
  free_buffers(&expected);
  convc_unload(module);
}

static void reload(const char *path, int count) {
  long after_first = 0;
  for (int i = 0; i < count; ++i) {
    convc_module *module;
    convc_context *context;
    CHECK(convc_load(path, NULL, &module));
    CHECK(convc_context_create(module, 0, &context));
    Buffers b = make_buffers(module);
    CHECK(run(context, &b));
    convc_context_destroy(context);
    convc_unload(module);
    free_buffers(&b);
    /* The first tenth: the C library keeps what it has once asked the system for. */
    if (i == count / 10) after_first = committed(path);
  }
  printf("%ld\n", (committed(path) - after_first) / 1024);
}

static void open_all(convc_status (*open)(const char *, const convc_load_options *, convc_module **), int count, char **paths) {
  convc_load_options options = {.size = sizeof options, .verify_weights = 1};
  for (int i = 0; i < count; ++i) {
    convc_module *module;
    const convc_status status = open(paths[i], &options, &module);
    printf("%d %s\n", (int)status, status ? convc_last_error() : convc_module_name(module));
    convc_unload(module);
  }
}

static void memory(const char *path) {
  convc_module *module;
  convc_context *context;
  convc_memory planned;
  const long before = committed(path);
  CHECK(convc_load(path, NULL, &module));
  CHECK(convc_module_memory(module, &planned));
  CHECK(convc_context_create(module, 1, &context));
  Buffers b = make_buffers(module);
  CHECK(run(context, &b));
  const long after = committed(path);
  const size_t workspace = convc_context_workspace_bytes(context);
  printf("%zu %ld %zu %zu\n",
         planned.weights_bytes + planned.arena_bytes + planned.workspace_bytes + planned.input_bytes + planned.output_bytes,
         after - before, planned.workspace_bytes, workspace);
  convc_context_destroy(context);
  convc_unload(module);
  free_buffers(&b);
}

/* In count_allocations.c; absent without it. */
extern long allocations_so_far(void) __attribute__((weak));

static convc_status runs_again(convc_context *context, Buffers *b, size_t samples) {
  return samples ? convc_run_batch(context, samples, (const void *const *)b->in, b->inputs, b->out, b->outputs) : run(context, b);
}

static void counted(const char *path, int count) {
  convc_module *module;
  convc_context *context;
  EXPECT(allocations_so_far);
  CHECK(convc_load(path, NULL, &module));
  CHECK(convc_context_create(module, 0, &context));
  Buffers b = make_buffers(module);
  EXPECT(allocations_so_far() > 0);
  /* Of a symbolic batch one sample less than fits, which takes a second size or copies. */
  const size_t samples = convc_module_batch(module) ? convc_module_batch(module) - 1 : 0;
  CHECK(runs_again(context, &b, samples));
  const long before = allocations_so_far();
  for (int i = 0; i < count; ++i) CHECK(runs_again(context, &b, samples));
  printf("%ld\n", allocations_so_far() - before);
  convc_context_destroy(context);
  convc_unload(module);
  free_buffers(&b);
}

static void trace(const char *path, const char *file) {
  convc_module *module;
  convc_context *context;
  CHECK(convc_load(path, NULL, &module));
  CHECK(convc_context_create(module, 0, &context));
  Buffers b = make_buffers(module);
  const size_t count = convc_step_count(module);
  double *seconds = calloc(count + 1, sizeof *seconds);
  CHECK(convc_profile(context, (const void *const *)b.in, b.inputs, b.out, b.outputs, 4, seconds));
  convc_step_info step;
  for (size_t i = 0; i < count; ++i) {
    CHECK(convc_step_info_at(module, i, &step));
    EXPECT(seconds[i] > 0);
    printf("%s\t%s\t%s\t%lld\t%.9f\n", step.node, step.op, step.algorithm, (long long)step.flops, seconds[i]);
  }
  CHECK(convc_trace(context, (const void *const *)b.in, b.inputs, b.out, b.outputs, file));
  free(seconds);
  convc_context_destroy(context);
  convc_unload(module);
  free_buffers(&b);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  const char *verb = argv[1];
  if (strcmp(verb, "misuse") == 0) misuse(argv[2]);
  else if (strcmp(verb, "run") == 0 && argc > 3) run_files(argv[2], argc - 3, argv + 3);
  else if (strcmp(verb, "replaced") == 0 && argc > 4) replaced(argc - 2, argv + 2);
  else if (strcmp(verb, "batch") == 0 && argc > 4) run_batch(argc - 2, argv + 2);
  else if (strcmp(verb, "fork") == 0) forked(argv[2]);
  else if (strcmp(verb, "threads") == 0 && argc == 6) threads(argv[2], argv[3], atoi(argv[4]), atoi(argv[5]));
  else if (strcmp(verb, "reload") == 0 && argc == 4) reload(argv[2], atoi(argv[3]));
  else if (strcmp(verb, "inspect") == 0) open_all(convc_inspect, argc - 2, argv + 2);
  else if (strcmp(verb, "load") == 0) open_all(convc_load, argc - 2, argv + 2);
  else if (strcmp(verb, "memory") == 0) memory(argv[2]);
  else if (strcmp(verb, "counted") == 0 && argc == 4) counted(argv[2], atoi(argv[3]));
  else if (strcmp(verb, "trace") == 0 && argc == 4) trace(argv[2], argv[3]);
  else return 2;
  return 0;
}
