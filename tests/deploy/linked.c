/* Two models that are linked into the program give one result:  linked IN SCORES FEATURES */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "one.h"
#include "two.h"

static void check(convc_status status) {
  if (status == CONVC_OK) return;
  fprintf(stderr, "error %d: %s\n", (int)status, convc_last_error());
  exit(1);
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  const convc_static_module *linked[] = {&convc_model_one, &convc_model_two};
  void *out[2][2], *in = NULL;
  size_t nbytes[2];
  for (int i = 0; i < 2; ++i) {
    convc_module *module;
    convc_context *context;
    convc_tensor_info info;
    convc_load_options options = {.size = sizeof options, .verify_weights = 1};
    check(convc_load_static(linked[i], &options, &module));
    check(convc_context_create(module, 0, &context));
    check(convc_input_info(module, 0, &info));
    if (!in) {
      in = convc_alloc(info.nbytes);
      FILE *file = fopen(argv[1], "rb");
      if (!in || !file || fread(in, 1, info.nbytes, file) != info.nbytes) return 3;
      fclose(file);
    }
    for (size_t j = 0; j < 2; ++j) {
      check(convc_output_info(module, j, &info));
      nbytes[j] = info.nbytes;
      out[i][j] = convc_alloc(info.nbytes);
    }
    check(convc_run(context, (const void *const *)&in, 1, out[i], 2));
    convc_context_destroy(context);
    convc_unload(module);
  }
  for (int j = 0; j < 2; ++j) {
    if (memcmp(out[0][j], out[1][j], nbytes[j])) return 4;
    FILE *file = fopen(argv[2 + j], "wb");
    if (!file || fwrite(out[0][j], 1, nbytes[j], file) != nbytes[j] || fclose(file)) return 5;
    convc_free(out[0][j]);
    convc_free(out[1][j]);
  }
  convc_free(in);
  return 0;
}
