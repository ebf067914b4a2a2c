/* A module with cuDNN in it, from C: what making a context, a run and unloading do, as the double of cuDNN tells it.
 *
 *   with_cudnn MODULE IN OUT0 OUT1 [FUNCTION NTH STATUS]     the double's function fails, from its NTH call on if that is negative
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "convc.h"

static const char *nothing(void) { return ""; }
static const char *(*story)(void) = nothing;

static void transfer(const char *path, void *memory, size_t nbytes, const char *mode) {
  FILE *file = fopen(path, mode);
  if (!file || (*mode == 'w' ? fwrite(memory, 1, nbytes, file) : fread(memory, 1, nbytes, file)) != nbytes || fclose(file)) exit(2);
}

static void check(convc_status status, const char *what) {
  if (!status) return;
  printf("%s: error %d: %s\n", what, (int)status, convc_last_error());
  exit(0);
}

int main(int count, char **words) {
  if (count != 5 && count != 8) return 2;
  void *library = dlopen(getenv("CONVC_CUDNN_PATH"), RTLD_NOW);
  if (library) {
    void (*fail)(const char *, int, int);
    *(void **)&story = dlsym(library, "cudnn_double_log");
    *(void **)&fail = dlsym(library, "cudnn_double_fail");
    if (!story || !fail) return 2;
    if (count == 8) fail(words[5], atoi(words[6]), atoi(words[7]));
  }
  convc_module *module;
  convc_context *context;
  check(convc_load(words[1], NULL, &module), "load");
  check(convc_context_create(module, 1, &context), "context");
  printf("context: %s\nfallbacks:\n%s", story(), convc_context_fallbacks(context));
  convc_tensor_info info;
  void *in = NULL, *out[2] = {NULL, NULL};
  if (convc_input_info(module, 0, &info)) return 2;
  in = convc_alloc(info.nbytes);
  transfer(words[2], in, info.nbytes, "rb");
  for (size_t i = 0; i < 2; ++i) {
    if (convc_output_info(module, i, &info)) return 2;
    out[i] = convc_alloc(info.nbytes);
  }
  const void *const inputs[] = {in};
  for (int run = 0; run < 3; ++run) check(convc_run(context, inputs, 1, out, 2), "run");
  printf("runs: %s\n", story());
  double *seconds = calloc(convc_step_count(module), sizeof *seconds);
  check(convc_profile(context, inputs, 1, out, 2, 3, seconds), "profile");
  for (size_t i = 0; i < convc_step_count(module); ++i) {
    if (seconds[i] <= 0) return 2;
  }
  story();
  for (size_t i = 0; i < 2; ++i) {
    if (convc_output_info(module, i, &info)) return 2;
    transfer(words[3 + i], out[i], info.nbytes, "wb");
    convc_free(out[i]);
  }
  convc_free(in);
  free(seconds);
  convc_context_destroy(context);
  convc_unload(module);
  printf("unloaded: %s\n", story());
  return 0;
}
